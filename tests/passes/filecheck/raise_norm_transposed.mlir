// RUN: raise
// A norm of heads that have changed places with tokens is taken before they do (Gemma 3).
// CHECK-LABEL: func.func @heads
// CHECK: %[[SPLIT:.*]] = "nn.reshape"(%x)
// CHECK-NEXT: %[[NORM:.*]] = "nn.rms_norm"(%[[SPLIT]], %w) <{eps = {{.*}}}>
// CHECK-NEXT: "nn.transpose"(%[[NORM]])
func.func @heads(%x: tensor<1x3x16xf32>) -> tensor<1x2x3x8xf32> {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<8xf32>
  %eps = "nn.constant"() <{value = dense<1.0e-05> : tensor<f32>}> : () -> tensor<f32>
  %split = "nn.reshape"(%x) : (tensor<1x3x16xf32>) -> tensor<1x3x2x8xf32>
  %t = "nn.transpose"(%split) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x3x2x8xf32>) -> tensor<1x2x3x8xf32>
  %squares = "nn.mul"(%t, %t) : (tensor<1x2x3x8xf32>, tensor<1x2x3x8xf32>) -> tensor<1x2x3x8xf32>
  %mean = "nn.reduce_mean"(%squares) <{axes = array<i64: 3>, keepdims = true}> : (tensor<1x2x3x8xf32>) -> tensor<1x2x3x1xf32>
  %sum = "nn.add"(%mean, %eps) : (tensor<1x2x3x1xf32>, tensor<f32>) -> tensor<1x2x3x1xf32>
  %root = "nn.rsqrt"(%sum) : (tensor<1x2x3x1xf32>) -> tensor<1x2x3x1xf32>
  %scaled = "nn.mul"(%t, %root) : (tensor<1x2x3x8xf32>, tensor<1x2x3x1xf32>) -> tensor<1x2x3x8xf32>
  %y = "nn.mul"(%scaled, %w) : (tensor<1x2x3x8xf32>, tensor<8xf32>) -> tensor<1x2x3x8xf32>
  func.return %y : tensor<1x2x3x8xf32>
}
