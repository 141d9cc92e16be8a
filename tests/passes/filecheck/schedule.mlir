// RUN: partition,layout,tile,schedule
// The vector weights come first (prefetch); the GEMV starts before the work that does not need it and is awaited after.
// CHECK-LABEL: func.func @f
func.func @f(%x: tensor<1x1x64xf16>, %z: tensor<1x1x64xf16>) -> (tensor<1x1x64xf16>, tensor<1x1x64xf16>) {
  // CHECK: "nn.param"() <{name = "up"}>
  %w = "nn.param"() <{name = "up"}> : () -> tensor<64x64xf16>
  // CHECK: "nn.param"() <{name = "norm"}>
  // CHECK: %[[TOKEN:.*]], %[[RESULT:.*]] = pim.async "hbm"
  // CHECK-NEXT: pim.gemv
  // CHECK: "nn.rms_norm"
  // CHECK-NEXT: "nn.relu"
  // CHECK-NEXT: pim.await %[[TOKEN]]
  // CHECK-NEXT: pim.all_gather %[[RESULT]]
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<64x64xf16>) -> tensor<1x1x64xf16>
  %s = "nn.add"(%y, %x) : (tensor<1x1x64xf16>, tensor<1x1x64xf16>) -> tensor<1x1x64xf16>
  %v = "nn.param"() <{name = "norm"}> : () -> tensor<64xf16>
  %n = "nn.rms_norm"(%z, %v) <{eps = 1.0e-05 : f32}> : (tensor<1x1x64xf16>, tensor<64xf16>) -> tensor<1x1x64xf16>
  %r = "nn.relu"(%n) : (tensor<1x1x64xf16>) -> tensor<1x1x64xf16>
  func.return %s, %r : tensor<1x1x64xf16>, tensor<1x1x64xf16>
}
