// RUN: partition
// SmolLM2's 3 KV heads in the one round that takes the least time: groups of 8 cores, the last without a head.
ml_program.global private mutable @k : tensor<1x2048x3x64xf16>
ml_program.global private mutable @v : tensor<1x2048x3x64xf16>
func.func @decode(%x: tensor<1x1x576xf16>, %p: tensor<1xi32>) -> tensor<1x1x576xf16> {
  %l = arith.constant 0 : index
  %wq = "nn.param"() <{name = "q"}> : () -> tensor<576x576xf16>
  %q = "nn.linear"(%x, %wq) : (tensor<1x1x576xf16>, tensor<576x576xf16>) -> tensor<1x1x576xf16>
  %wk = "nn.param"() <{name = "k"}> : () -> tensor<192x576xf16>
  %k = "nn.linear"(%x, %wk) : (tensor<1x1x576xf16>, tensor<192x576xf16>) -> tensor<1x1x192xf16>
  %wv = "nn.param"() <{name = "v"}> : () -> tensor<192x576xf16>
  %v = "nn.linear"(%x, %wv) : (tensor<1x1x576xf16>, tensor<192x576xf16>) -> tensor<1x1x192xf16>
  // Gathers stand in the order of need.
  "nn.cache_write"(%l, %k, %p) <{cache = @k}> : (index, tensor<1x1x192xf16>, tensor<1xi32>) -> ()
  "nn.cache_write"(%l, %v, %p) <{cache = @v}> : (index, tensor<1x1x192xf16>, tensor<1xi32>) -> ()
  // CHECK: pim.kv_append {{.*}}rounds = #pim.heads<{{\[\[}}0, 3, 8]]>
  // CHECK: pim.attention {{.*}}rounds = #pim.heads<{{\[\[}}0, 3, 8]]>{{.*}}#pim.layout<2 : {{\[\[}}0, 0, 24, 24]]>>
  %a = "nn.attention"(%q, %l, %p) <{k = @k, v = @v, heads = 9 : i64, kv_heads = 3 : i64, head_dim = 64 : i64, scale = 0.125 : f32, causal = true}> : (tensor<1x1x576xf16>, index, tensor<1xi32>) -> tensor<1x1x576xf16>
  %wo = "nn.param"() <{name = "o"}> : () -> tensor<576x576xf16>
  %o = "nn.linear"(%a, %wo) : (tensor<1x1x576xf16>, tensor<576x576xf16>) -> tensor<1x1x576xf16>
  // Results of an entry stay cut.
  func.return %o : tensor<1x1x576xf16>
}
