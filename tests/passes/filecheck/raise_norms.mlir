// RUN: raise{precision=f32}
// CHECK-LABEL: func.func @rms
// CHECK-NEXT: %[[W:.*]] = "nn.param"
// CHECK-NEXT: "nn.rms_norm"(%x, %[[W]]) <{eps = 1.000000e-05 : f32}> : (tensor<1x2x8xf32>, tensor<8xf32>) -> tensor<1x2x8xf32>
// CHECK-NEXT: func.return
func.func @rms(%x: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %two = "nn.constant"() <{value = dense<2.0> : tensor<f32>}> : () -> tensor<f32>
  %eps = "nn.constant"() <{value = dense<1.0e-5> : tensor<f32>}> : () -> tensor<f32>
  %w = "nn.param"() <{name = "norm.weight"}> : () -> tensor<8xf32>
  %square = "nn.pow"(%x, %two) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %mean = "nn.reduce_mean"(%square) <{axes = array<i64: -1>, keepdims = true}> : (tensor<1x2x8xf32>) -> tensor<1x2x1xf32>
  %shifted = "nn.add"(%mean, %eps) : (tensor<1x2x1xf32>, tensor<f32>) -> tensor<1x2x1xf32>
  %root = "nn.rsqrt"(%shifted) : (tensor<1x2x1xf32>) -> tensor<1x2x1xf32>
  %unit = "nn.mul"(%x, %root) : (tensor<1x2x8xf32>, tensor<1x2x1xf32>) -> tensor<1x2x8xf32>
  %y = "nn.mul"(%w, %unit) : (tensor<8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
// CHECK-LABEL: func.func @layer
// CHECK-NOT: nn.sub
// CHECK: "nn.layer_norm"(%x, %{{.*}}, %{{.*}})
// CHECK-NEXT: func.return
func.func @layer(%x: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %eps = "nn.constant"() <{value = dense<1.0e-5> : tensor<f32>}> : () -> tensor<f32>
  %w = "nn.param"() <{name = "norm.weight"}> : () -> tensor<8xf32>
  %b = "nn.param"() <{name = "norm.bias"}> : () -> tensor<8xf32>
  %mean = "nn.reduce_mean"(%x) <{axes = array<i64: 2>, keepdims = true}> : (tensor<1x2x8xf32>) -> tensor<1x2x1xf32>
  %d = "nn.sub"(%x, %mean) : (tensor<1x2x8xf32>, tensor<1x2x1xf32>) -> tensor<1x2x8xf32>
  %square = "nn.mul"(%d, %d) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %variance = "nn.reduce_mean"(%square) <{axes = array<i64: 2>, keepdims = true}> : (tensor<1x2x8xf32>) -> tensor<1x2x1xf32>
  %shifted = "nn.add"(%variance, %eps) : (tensor<1x2x1xf32>, tensor<f32>) -> tensor<1x2x1xf32>
  %root = "nn.sqrt"(%shifted) : (tensor<1x2x1xf32>) -> tensor<1x2x1xf32>
  %unit = "nn.div"(%d, %root) : (tensor<1x2x8xf32>, tensor<1x2x1xf32>) -> tensor<1x2x8xf32>
  %scaled = "nn.mul"(%unit, %w) : (tensor<1x2x8xf32>, tensor<8xf32>) -> tensor<1x2x8xf32>
  %y = "nn.add"(%scaled, %b) : (tensor<1x2x8xf32>, tensor<8xf32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
// The mean over tokens is no norm.
// CHECK-LABEL: func.func @other_axis
// CHECK: nn.rsqrt
func.func @other_axis(%x: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %eps = "nn.constant"() <{value = dense<1.0e-5> : tensor<f32>}> : () -> tensor<f32>
  %w = "nn.param"() <{name = "norm.weight"}> : () -> tensor<8xf32>
  %square = "nn.mul"(%x, %x) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %mean = "nn.reduce_mean"(%square) <{axes = array<i64: 1>, keepdims = true}> : (tensor<1x2x8xf32>) -> tensor<1x1x8xf32>
  %shifted = "nn.add"(%mean, %eps) : (tensor<1x1x8xf32>, tensor<f32>) -> tensor<1x1x8xf32>
  %root = "nn.rsqrt"(%shifted) : (tensor<1x1x8xf32>) -> tensor<1x1x8xf32>
  %unit = "nn.mul"(%x, %root) : (tensor<1x2x8xf32>, tensor<1x1x8xf32>) -> tensor<1x2x8xf32>
  %y = "nn.mul"(%w, %unit) : (tensor<8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
