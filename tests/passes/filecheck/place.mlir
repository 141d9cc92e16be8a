// RUN: annotate,place
ml_program.global private mutable @k : tensor<1x16x2x32xf16>
ml_program.global private mutable @v : tensor<1x16x2x32xf16>
// CHECK-LABEL: func.func @decode
func.func @decode(%x: tensor<1x1x64xf16>, %p: tensor<1xi32>) {
  %l = arith.constant 0 : index
  %w = "nn.param"() <{name = "w"}> : () -> tensor<64x64xf16>
  // CHECK: "nn.linear"{{.*}}pim.domain = "hbm", pim.reason = "gemv on stored weights
  %a = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<64x64xf16>) -> tensor<1x1x64xf16>
  // CHECK: "nn.attention"{{.*}}pim.domain = "pim_unit"
  %b = "nn.attention"(%a, %l, %p) <{k = @k, v = @v, heads = 2 : i64, kv_heads = 2 : i64, head_dim = 32 : i64, scale = 1.0 : f32, causal = true}> : (tensor<1x1x64xf16>, index, tensor<1xi32>) -> tensor<1x1x64xf16>
  // CHECK: "nn.silu"{{.*}}pim.domain = "vcu"
  %c = "nn.silu"(%b) : (tensor<1x1x64xf16>) -> tensor<1x1x64xf16>
  func.return
}
// CHECK-LABEL: func.func @prefill
func.func @prefill(%x: tensor<1x8x64xf16>, %p: tensor<1xi32>) {
  %l = arith.constant 0 : index
  %w = "nn.param"() <{name = "w"}> : () -> tensor<64x64xf16>
  // CHECK: "nn.linear"{{.*}}pim.domain = "tcu"
  %a = "nn.linear"(%x, %w) : (tensor<1x8x64xf16>, tensor<64x64xf16>) -> tensor<1x8x64xf16>
  // CHECK: "nn.attention"{{.*}}pim.domain = "tcu"
  %b = "nn.attention"(%a, %l, %p) <{k = @k, v = @v, heads = 2 : i64, kv_heads = 2 : i64, head_dim = 32 : i64, scale = 1.0 : f32, causal = true}> : (tensor<1x8x64xf16>, index, tensor<1xi32>) -> tensor<1x8x64xf16>
  // CHECK: "nn.select_token"{{.*}}pim.domain = "vcu", pim.reason = "moves data within local memory
  %c = "nn.select_token"(%b, %p) : (tensor<1x8x64xf16>, tensor<1xi32>) -> tensor<1x1x64xf16>
  // The head of prefill sees one token: a GEMV in the banks.
  // CHECK: "nn.linear"{{.*}}pim.domain = "hbm"
  %d = "nn.linear"(%c, %w) : (tensor<1x1x64xf16>, tensor<64x64xf16>) -> tensor<1x1x64xf16>
  func.return
}
