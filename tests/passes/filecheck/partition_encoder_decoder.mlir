// RUN: partition,layout
// An encoder writes keys and values that attention of another entry point reads: in the rounds of that attention.
// CHECK: #pim.region<replicated, "bias", {{.*}} rows = 4, row_bytes = 64
ml_program.global private mutable @k : tensor<1x32x4x16xf16>
ml_program.global private mutable @v : tensor<1x32x4x16xf16>
// CHECK-LABEL: func.func @encode
func.func @encode(%x: tensor<1x8x64xf16>, %y: tensor<1x8x64xf16>) -> tensor<1x8x64xf16> {
  %l = arith.constant 0 : index
  %p = "nn.constant"() <{value = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  // CHECK: pim.kv_append {{.*}}rounds = #pim.heads<{{\[\[}}0, 4, 8]]>
  "nn.cache_write"(%l, %x, %p) <{cache = @k}> : (index, tensor<1x8x64xf16>, tensor<1xi32>) -> ()
  "nn.cache_write"(%l, %y, %p) <{cache = @v}> : (index, tensor<1x8x64xf16>, tensor<1xi32>) -> ()
  // CHECK-NOT: nn.cache_write
  func.return %x : tensor<1x8x64xf16>
}
// CHECK-LABEL: func.func @decode
func.func @decode(%q: tensor<1x1x64xf16>, %p: tensor<1xi32>) -> tensor<1x1x64xf16> {
  %l = arith.constant 0 : index
  %b = "nn.param"() <{name = "bias"}> : () -> tensor<4x32xf16>
  // CHECK: pim.attention %{{.*}}, %{{.*}}, %{{.*}} bias %{{.*}} : tensor<4x32xf16> {{.*}}rounds = #pim.heads<{{\[\[}}0, 4, 8]]>
  %a = "nn.attention"(%q, %l, %p, %b) <{k = @k, v = @v, heads = 4 : i64, kv_heads = 4 : i64, head_dim = 16 : i64, scale = 1.0 : f32, causal = true}> : (tensor<1x1x64xf16>, index, tensor<1xi32>, tensor<4x32xf16>) -> tensor<1x1x64xf16>
  func.return %a : tensor<1x1x64xf16>
}
