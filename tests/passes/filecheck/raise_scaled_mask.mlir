// RUN: raise
// A mask that is scaled with the scores is no mask of nn.attention_full, which adds it behind the scale.
// CHECK-NOT: nn.attention_full
// CHECK: nn.softmax
func.func @f(%q: tensor<1x4x32xf32>, %k: tensor<1x4x32xf32>, %v: tensor<1x4x32xf32>, %mask: tensor<1x1x4x4xf32>) -> tensor<1x2x4x16xf32> {
  %q4 = "nn.reshape"(%q) : (tensor<1x4x32xf32>) -> tensor<1x4x2x16xf32>
  %k4 = "nn.reshape"(%k) : (tensor<1x4x32xf32>) -> tensor<1x4x2x16xf32>
  %v4 = "nn.reshape"(%v) : (tensor<1x4x32xf32>) -> tensor<1x4x2x16xf32>
  %qh = "nn.transpose"(%q4) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x4x2x16xf32>) -> tensor<1x2x4x16xf32>
  %kt = "nn.transpose"(%k4) <{permutation = array<i64: 0, 2, 3, 1>}> : (tensor<1x4x2x16xf32>) -> tensor<1x2x16x4xf32>
  %vh = "nn.transpose"(%v4) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x4x2x16xf32>) -> tensor<1x2x4x16xf32>
  %s = "nn.matmul"(%qh, %kt) : (tensor<1x2x4x16xf32>, tensor<1x2x16x4xf32>) -> tensor<1x2x4x4xf32>
  %m = "nn.add"(%s, %mask) : (tensor<1x2x4x4xf32>, tensor<1x1x4x4xf32>) -> tensor<1x2x4x4xf32>
  %c = "nn.constant"() <{value = dense<2.500000e-01> : tensor<f32>}> : () -> tensor<f32>
  %scaled = "nn.mul"(%m, %c) : (tensor<1x2x4x4xf32>, tensor<f32>) -> tensor<1x2x4x4xf32>
  %p = "nn.softmax"(%scaled) <{axis = -1 : i64}> : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %o = "nn.matmul"(%p, %vh) : (tensor<1x2x4x4xf32>, tensor<1x2x4x16xf32>) -> tensor<1x2x4x16xf32>
  func.return %o : tensor<1x2x4x16xf32>
}
