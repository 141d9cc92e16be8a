// RUN: raise
// Exporters write 1 / sqrt as two operators.
// CHECK: "nn.rms_norm"
// CHECK-NOT: nn.sqrt
func.func @f(%x: tensor<1x3x8xf32>) -> tensor<1x3x8xf32> {
  %two = "nn.constant"() <{value = dense<2.000000e+00> : tensor<f32>}> : () -> tensor<f32>
  %eps = "nn.constant"() <{value = dense<1.000000e-06> : tensor<f32>}> : () -> tensor<f32>
  %w = "nn.param"() <{name = "norm.weight"}> : () -> tensor<8xf32>
  %p = "nn.pow"(%x, %two) : (tensor<1x3x8xf32>, tensor<f32>) -> tensor<1x3x8xf32>
  %m = "nn.reduce_mean"(%p) <{axes = array<i64: 2>, keepdims = true}> : (tensor<1x3x8xf32>) -> tensor<1x3x1xf32>
  %e = "nn.add"(%m, %eps) : (tensor<1x3x1xf32>, tensor<f32>) -> tensor<1x3x1xf32>
  %s = "nn.sqrt"(%e) : (tensor<1x3x1xf32>) -> tensor<1x3x1xf32>
  %r = "nn.recip"(%s) : (tensor<1x3x1xf32>) -> tensor<1x3x1xf32>
  %n = "nn.mul"(%x, %r) : (tensor<1x3x8xf32>, tensor<1x3x1xf32>) -> tensor<1x3x8xf32>
  %y = "nn.mul"(%w, %n) : (tensor<8xf32>, tensor<1x3x8xf32>) -> tensor<1x3x8xf32>
  func.return %y : tensor<1x3x8xf32>
}
