// RUN: outline{min-ops=2}
// CHECK: pim.outline = "2 x 2 operations kept inline: numbers of nn.rms_norm at {{.*}} differ from the copy before"
// CHECK-NOT: scf.for
func.func @f(%x: tensor<1x4x8xf16>) -> tensor<1x4x8xf16> {
  %w2 = "nn.param"() <{name = "n0"}> : () -> tensor<8xf16>
  %a = "nn.rms_norm"(%x, %w2) <{eps = 0.5 : f32}> : (tensor<1x4x8xf16>, tensor<8xf16>) -> tensor<1x4x8xf16>
  %b = "nn.relu"(%a) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  %w3 = "nn.param"() <{name = "n1"}> : () -> tensor<8xf16>
  %c = "nn.rms_norm"(%b, %w3) <{eps = 0.25 : f32}> : (tensor<1x4x8xf16>, tensor<8xf16>) -> tensor<1x4x8xf16>
  %d = "nn.relu"(%c) : (tensor<1x4x8xf16>) -> tensor<1x4x8xf16>
  func.return %d : tensor<1x4x8xf16>
}
