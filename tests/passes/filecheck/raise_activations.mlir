// RUN: raise
// CHECK-LABEL: func.func @silu
// CHECK-NEXT: "nn.silu"(%x) : (tensor<1x2x8xf16>) -> tensor<1x2x8xf16>
// CHECK-NEXT: func.return
func.func @silu(%x: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %s = "nn.sigmoid"(%x) : (tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %y = "nn.mul"(%s, %x) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
// CHECK-LABEL: func.func @gelu
// CHECK-NEXT: "nn.gelu"(%x) <{approximate = "none"}>
// CHECK-NEXT: func.return
func.func @gelu(%x: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %half = "nn.constant"() <{value = dense<0.5> : tensor<f32>}> : () -> tensor<f32>
  %one = "nn.constant"() <{value = dense<1.0> : tensor<f32>}> : () -> tensor<f32>
  %root = "nn.constant"() <{value = dense<1.41421356> : tensor<f32>}> : () -> tensor<f32>
  %scaled = "nn.div"(%x, %root) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %e = "nn.erf"(%scaled) : (tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %plus = "nn.add"(%e, %one) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %product = "nn.mul"(%x, %plus) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %y = "nn.mul"(%product, %half) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
// CHECK-LABEL: func.func @gelu_of_a_sum
// CHECK-NEXT: %[[S:.*]] = "nn.add"(%x, %z)
// CHECK-NEXT: "nn.gelu"(%[[S]]) <{approximate = "tanh"}>
// CHECK-NEXT: func.return
func.func @gelu_of_a_sum(%x: tensor<1x2x8xf32>, %z: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %half = "nn.constant"() <{value = dense<0.5> : tensor<f32>}> : () -> tensor<f32>
  %one = "nn.constant"() <{value = dense<1.0> : tensor<f32>}> : () -> tensor<f32>
  %cubic = "nn.constant"() <{value = dense<0.044715> : tensor<f32>}> : () -> tensor<f32>
  %inner = "nn.constant"() <{value = dense<0.797884583> : tensor<f32>}> : () -> tensor<f32>
  %s = "nn.add"(%x, %z) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %square = "nn.mul"(%s, %s) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %cube = "nn.mul"(%square, %s) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %small = "nn.mul"(%cube, %cubic) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %sum = "nn.add"(%s, %small) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %scaled = "nn.mul"(%sum, %inner) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %t = "nn.tanh"(%scaled) : (tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %plus = "nn.add"(%t, %one) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %halved = "nn.mul"(%s, %half) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %y = "nn.mul"(%halved, %plus) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
// CHECK-LABEL: func.func @relu
// CHECK-NEXT: "nn.relu"(%x)
func.func @relu(%x: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %zero = "nn.constant"() <{value = dense<0.0> : tensor<f32>}> : () -> tensor<f32>
  %y = "nn.maximum"(%x, %zero) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
// x * sigmoid(1.702 x) is not silu, and x * sigmoid(z) is a gate.
// CHECK-LABEL: func.func @neither
// CHECK-COUNT-2: nn.sigmoid
func.func @neither(%x: tensor<1x2x8xf32>, %z: tensor<1x2x8xf32>) -> tensor<1x2x8xf32> {
  %c = "nn.constant"() <{value = dense<1.702> : tensor<f32>}> : () -> tensor<f32>
  %scaled = "nn.mul"(%x, %c) : (tensor<1x2x8xf32>, tensor<f32>) -> tensor<1x2x8xf32>
  %s = "nn.sigmoid"(%scaled) : (tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %a = "nn.mul"(%x, %s) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %g = "nn.sigmoid"(%z) : (tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  %y = "nn.mul"(%a, %g) : (tensor<1x2x8xf32>, tensor<1x2x8xf32>) -> tensor<1x2x8xf32>
  func.return %y : tensor<1x2x8xf32>
}
