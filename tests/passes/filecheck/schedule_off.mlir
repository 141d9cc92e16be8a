// RUN: partition,layout,tile,schedule{overlap=false prefetch=false reorder=false}
// CHECK-NOT: pim.async
func.func @f(%x: tensor<1x1x64xf16>) -> tensor<1x1x64xf16> {
  %w = "nn.param"() <{name = "up"}> : () -> tensor<64x64xf16>
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<64x64xf16>) -> tensor<1x1x64xf16>
  // CHECK: pim.gemv %
  // CHECK-NEXT: pim.all_gather
  // CHECK-NEXT: "nn.add"
  // CHECK-NEXT: "nn.param"() <{name = "norm"}>
  %s = "nn.add"(%y, %x) : (tensor<1x1x64xf16>, tensor<1x1x64xf16>) -> tensor<1x1x64xf16>
  %v = "nn.param"() <{name = "norm"}> : () -> tensor<64xf16>
  %n = "nn.rms_norm"(%s, %v) <{eps = 1.0e-05 : f32}> : (tensor<1x1x64xf16>, tensor<64xf16>) -> tensor<1x1x64xf16>
  func.return %n : tensor<1x1x64xf16>
}
