// RUN: partition
// Gate and up share their input; their product stays cut and is gathered once for the next layer.
// CHECK-LABEL: func.func private @layer
func.func private @layer(%x: tensor<1x4x64xf16>) -> tensor<1x4x64xf16> {
  %wg = "nn.param"() <{name = "gate"}> : () -> tensor<96x64xf16>
  %wu = "nn.param"() <{name = "up"}> : () -> tensor<96x64xf16>
  %wd = "nn.param"() <{name = "down"}> : () -> tensor<64x96xf16>
  // CHECK: pim.gemm %{{.*}}, [%{{.*}}, %{{.*}}] {{.*}}-> tensor<1x4x96xf16, #pim.layout<2 : {{\[\[}}0, 0, 32, 3]]>>, tensor<1x4x96xf16, #pim.layout<2 : {{\[\[}}0, 0, 32, 3]]>>
  %g = "nn.linear"(%x, %wg) : (tensor<1x4x64xf16>, tensor<96x64xf16>) -> tensor<1x4x96xf16>
  %u = "nn.linear"(%x, %wu) : (tensor<1x4x64xf16>, tensor<96x64xf16>) -> tensor<1x4x96xf16>
  // CHECK-NEXT: "nn.silu"
  %s = "nn.silu"(%g) : (tensor<1x4x96xf16>) -> tensor<1x4x96xf16>
  // CHECK-NEXT: %[[M:.*]] = "nn.mul"{{.*}} -> tensor<1x4x96xf16, #pim.layout<2 : {{\[\[}}0, 0, 32, 3]]>>
  // CHECK-NEXT: pim.all_gather %[[M]]
  %m = "nn.mul"(%s, %u) : (tensor<1x4x96xf16>, tensor<1x4x96xf16>) -> tensor<1x4x96xf16>
  // CHECK: pim.gemm
  %d = "nn.linear"(%m, %wd) : (tensor<1x4x96xf16>, tensor<64x96xf16>) -> tensor<1x4x64xf16>
  // CHECK-NEXT: pim.all_gather
  // CHECK-NEXT: "nn.add"{{.*}} -> tensor<1x4x64xf16>
  %r = "nn.add"(%x, %d) : (tensor<1x4x64xf16>, tensor<1x4x64xf16>) -> tensor<1x4x64xf16>
  func.return %r : tensor<1x4x64xf16>
}
