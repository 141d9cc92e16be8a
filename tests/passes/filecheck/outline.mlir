// RUN: outline{min-ops=2}
// CHECK-LABEL: func.func private @f_layer(
// CHECK-SAME: %[[L:.*]]: index, %[[X:.*]]: tensor<1x4x8xf16>)
// CHECK: "nn.param"(%[[L]]) <{name = "block*_w"}> : (index) -> tensor<8x8xf16>
// CHECK: "nn.linear"
// CHECK: "nn.relu"
// CHECK: func.return
// CHECK-LABEL: func.func @f(
// CHECK-SAME: pim.outline = "3 layers of 2 operations in @f_layer"
// CHECK: arith.constant 2 : index
// CHECK: arith.constant 5 : index
// CHECK: scf.for
// CHECK-NEXT: func.call @f_layer
// CHECK: "nn.tanh"
func.func @f(%x: tensor<1x4x8xf16>) -> tensor<1x4x8xf16> {
  %w2 = "nn.param"() <{name = "block2_w"}> : () -> tensor<8x8xf16>
  %a = "nn.linear"(%x, %w2) : (tensor<1x4x8xf16>, tensor<8x8xf16>) -> tensor<1x4x8xf16>
  %b = "nn.relu"(%a) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  %w3 = "nn.param"() <{name = "block3_w"}> : () -> tensor<8x8xf16>
  %c = "nn.linear"(%b, %w3) : (tensor<1x4x8xf16>, tensor<8x8xf16>) -> tensor<1x4x8xf16>
  %d = "nn.relu"(%c) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  %w4 = "nn.param"() <{name = "block4_w"}> : () -> tensor<8x8xf16>
  %e = "nn.linear"(%d, %w4) : (tensor<1x4x8xf16>, tensor<8x8xf16>) -> tensor<1x4x8xf16>
  %f = "nn.relu"(%e) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  %g = "nn.tanh"(%f) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  func.return %g : tensor<1x4x8xf16>
}
