// RUN: partition{rounds=paper}
// SmolLM2's attention: 9 query heads in rounds of 8 and 1, 3 KV heads in rounds of 2 and 1 (Algorithm 1).
ml_program.global private mutable @k : tensor<1x2048x3x64xf16>
ml_program.global private mutable @v : tensor<1x2048x3x64xf16>
// CHECK-LABEL: func.func @decode
// CHECK-SAME: -> tensor<1x1x576xf16, #pim.layout<2 : {{\[\[}}0, 0, 32, 18]]>>
func.func @decode(%x: tensor<1x1x576xf16>, %p: tensor<1xi32>) -> tensor<1x1x576xf16> {
  %l = arith.constant 0 : index
  %wq = "nn.param"() <{name = "q"}> : () -> tensor<576x576xf16>
  %q = "nn.linear"(%x, %wq) : (tensor<1x1x576xf16>, tensor<576x576xf16>) -> tensor<1x1x576xf16>
  %wk = "nn.param"() <{name = "k"}> : () -> tensor<192x576xf16>
  %k = "nn.linear"(%x, %wk) : (tensor<1x1x576xf16>, tensor<192x576xf16>) -> tensor<1x1x192xf16>
  %wv = "nn.param"() <{name = "v"}> : () -> tensor<192x576xf16>
  %v = "nn.linear"(%x, %wv) : (tensor<1x1x576xf16>, tensor<192x576xf16>) -> tensor<1x1x192xf16>
  // CHECK: %[[Q:.*]], %[[K:.*]], %[[V:.*]] = pim.gemv {{.*}} #pim.layout<2 : {{\[\[}}0, 0, 32, 16], [512, 0, 32, 2]]>>, {{.*}}#pim.layout<2 : {{\[\[}}0, 0, 32, 4], [128, 0, 32, 2]]>>
  // Gathers stand in the order of need.
  // CHECK-NEXT: pim.all_gather %[[K]]
  // CHECK-NEXT: pim.all_gather %[[V]]
  // CHECK-NEXT: pim.all_gather %[[Q]]
  "nn.cache_write"(%l, %k, %p) <{cache = @k}> : (index, tensor<1x1x192xf16>, tensor<1xi32>) -> ()
  "nn.cache_write"(%l, %v, %p) <{cache = @v}> : (index, tensor<1x1x192xf16>, tensor<1xi32>) -> ()
  // CHECK-NOT: nn.cache_write
  // CHECK: pim.kv_append {{.*}}rounds = #pim.heads<{{\[\[}}0, 2, 16], [2, 1, 32]]>
  // CHECK: pim.attention {{.*}}rounds = #pim.heads<{{\[\[}}0, 2, 16], [2, 1, 32]]>{{.*}}#pim.layout<2 : {{\[\[}}0, 0, 32, 12], [384, 0, 32, 6]]>>
  %a = "nn.attention"(%q, %l, %p) <{k = @k, v = @v, heads = 9 : i64, kv_heads = 3 : i64, head_dim = 64 : i64, scale = 0.125 : f32, causal = true}> : (tensor<1x1x576xf16>, index, tensor<1xi32>) -> tensor<1x1x576xf16>
  // CHECK-NEXT: pim.all_gather
  %wo = "nn.param"() <{name = "o"}> : () -> tensor<576x576xf16>
  %o = "nn.linear"(%a, %wo) : (tensor<1x1x576xf16>, tensor<576x576xf16>) -> tensor<1x1x576xf16>
  // Results of an entry stay cut.
  func.return %o : tensor<1x1x576xf16>
}
