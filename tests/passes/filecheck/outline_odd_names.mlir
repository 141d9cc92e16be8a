// RUN: outline{min-ops=2}
// CHECK: pim.aliases = {"alpha@0" = "alpha", "alpha@1" = "beta"}
// CHECK: pim.outline = "2 layers of 2 operations in @f_layer"
func.func @f(%x: tensor<1x4x8xf16>) -> tensor<1x4x8xf16> {
  %w2 = "nn.param"() <{name = "alpha"}> : () -> tensor<8x8xf16>
  %a = "nn.linear"(%x, %w2) : (tensor<1x4x8xf16>, tensor<8x8xf16>) -> tensor<1x4x8xf16>
  %b = "nn.relu"(%a) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  %w3 = "nn.param"() <{name = "beta"}> : () -> tensor<8x8xf16>
  %c = "nn.linear"(%b, %w3) : (tensor<1x4x8xf16>, tensor<8x8xf16>) -> tensor<1x4x8xf16>
  %d = "nn.relu"(%c) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  func.return %d : tensor<1x4x8xf16>
}
