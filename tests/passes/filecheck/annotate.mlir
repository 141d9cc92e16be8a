// RUN: annotate
// CHECK-LABEL: func.func @f
func.func @f(%x: tensor<1x1x64xf16>, %many: tensor<1x8x64xf16>, %ids: tensor<1x1xi32>) {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<32x64xf16>
  // CHECK-NOT: "nn.param"() <{name = "w"}> {pim.class
  // CHECK: "nn.linear"{{.*}}pim.class = "gemv", pim.flops = 4096 : i64, pim.bytes = 4288 : i64, pim.intensity
  %a = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<32x64xf16>) -> tensor<1x1x32xf16>
  // CHECK: "nn.linear"{{.*}}pim.class = "gemm", pim.flops = 32768 : i64
  %b = "nn.linear"(%many, %w) : (tensor<1x8x64xf16>, tensor<32x64xf16>) -> tensor<1x8x32xf16>
  // CHECK: "nn.silu"{{.*}}pim.class = "nonlinear"
  %c = "nn.silu"(%a) : (tensor<1x1x32xf16>) -> tensor<1x1x32xf16>
  // CHECK: "nn.embedding"{{.*}}pim.class = "memory", pim.flops = 0 : i64
  %d = "nn.embedding"(%w, %ids) : (tensor<32x64xf16>, tensor<1x1xi32>) -> tensor<1x1x64xf16>
  func.return
}
