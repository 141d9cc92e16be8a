// RUN: widen
// CHECK: func.func @chain
// The norm of a difference: f32 between its ends, and the number that fp16 does not have as the model has it.
// CHECK: %[[A:.*]] = "nn.cast"(%x) : (tensor<4x3xf16>) -> tensor<4x3xf32>
// CHECK: "nn.sub"({{.*}}) : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<4x3xf32>
// CHECK: dense<1.000000e-12> : tensor<f32>
// CHECK: "nn.maximum"({{.*}}) : (tensor<4xf32>, tensor<f32>) -> tensor<4xf32>
// CHECK: %[[N:.*]] = "nn.recip"({{.*}}) : (tensor<4xf32>) -> tensor<4xf32>
// CHECK: "nn.cast"(%[[N]]) : (tensor<4xf32>) -> tensor<4xf16>
func.func @chain(%x: tensor<4x3xf16>, %y: tensor<4x3xf16>) -> tensor<4xf16> {
  %d = "nn.sub"(%x, %y) : (tensor<4x3xf16>, tensor<4x3xf16>) -> tensor<4x3xf16>
  %q = "nn.mul"(%d, %d) : (tensor<4x3xf16>, tensor<4x3xf16>) -> tensor<4x3xf16>
  %s = "nn.reduce_sum"(%q) <{axes = array<i64: 1>, keepdims = false}> : (tensor<4x3xf16>) -> tensor<4xf16>
  %r = "nn.sqrt"(%s) : (tensor<4xf16>) -> tensor<4xf16>
  %e = "nn.constant"() <{value = dense<0.0> : tensor<f16>}> {pim.exact = 1.000000e-12 : f32} : () -> tensor<f16>
  %m = "nn.maximum"(%r, %e) : (tensor<4xf16>, tensor<f16>) -> tensor<4xf16>
  %i = "nn.recip"(%m) : (tensor<4xf16>) -> tensor<4xf16>
  func.return %i : tensor<4xf16>
}
// Rounding before a maximum is as good as behind it.
// CHECK: func.func @moved
// CHECK-NOT: f32
func.func @moved(%x: tensor<4x3xf16>) -> tensor<4x3xf16> {
  %d = "nn.exp"(%x) : (tensor<4x3xf16>) -> tensor<4x3xf16>
  %q = "nn.maximum"(%d, %x) : (tensor<4x3xf16>, tensor<4x3xf16>) -> tensor<4x3xf16>
  func.return %q : tensor<4x3xf16>
}
// One operator, and one whose result others need, stay as they are.
// CHECK: func.func @alone
// CHECK-NOT: f32
func.func @alone(%x: tensor<4x3xf16>) -> (tensor<4x3xf16>, tensor<4x3xf16>) {
  %d = "nn.exp"(%x) : (tensor<4x3xf16>) -> tensor<4x3xf16>
  %q = "nn.log"(%d) : (tensor<4x3xf16>) -> tensor<4x3xf16>
  func.return %d, %q : tensor<4x3xf16>, tensor<4x3xf16>
}
