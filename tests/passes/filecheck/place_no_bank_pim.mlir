// RUN: annotate,place
// POLICY: no-bank-pim
// CHECK-LABEL: func.func @decode
func.func @decode(%x: tensor<1x1x64xf16>) {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<64x64xf16>
  // CHECK: "nn.linear"{{.*}}pim.domain = "tcu", pim.reason = "{{.*}}policy no-bank-pim gives no work to bank_pim
  %a = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<64x64xf16>) -> tensor<1x1x64xf16>
  func.return
}
