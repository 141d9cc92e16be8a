// RUN: legalize,annotate,place,partition
// Four sequences of twelve heads: eight cores a sequence, three heads and half of the rows a core.  Keys and values stay
// cut by features; queries go to the cores that work on them; a linear layer takes the result as it is.
// CHECK: pim.gemm
// CHECK: %[[Q:.*]] = pim.all_to_all {{.*}} -> tensor<4x128x768xf16, #pim.layout<0 : {{\[\[}}0, 0, 32, 1, 8]], 1 : {{\[\[}}0, 0, 32, 64, 1, 16]], 2 : {{\[\[}}0, 0, 32, 192, 2, 4]]>>
// CHECK: pim.attention_full %[[Q]], {{.*}}grid = array<i64: 4, 4, 2>
// CHECK-NOT: pim.all_gather
// CHECK: pim.gemm %a{{.*}}tensor<4x128x768xf16, #pim.layout<0 : {{\[\[}}0, 0, 32, 1, 8]]
func.func @main(%x: tensor<4x128x768xf16>) -> tensor<4x128x768xf16> {
  %wq = "nn.param"() <{name = "q"}> : () -> tensor<768x768xf16>
  %wk = "nn.param"() <{name = "k"}> : () -> tensor<768x768xf16>
  %wv = "nn.param"() <{name = "v"}> : () -> tensor<768x768xf16>
  %wo = "nn.param"() <{name = "o"}> : () -> tensor<768x768xf16>
  %q = "nn.linear"(%x, %wq) : (tensor<4x128x768xf16>, tensor<768x768xf16>) -> tensor<4x128x768xf16>
  %k = "nn.linear"(%x, %wk) : (tensor<4x128x768xf16>, tensor<768x768xf16>) -> tensor<4x128x768xf16>
  %v = "nn.linear"(%x, %wv) : (tensor<4x128x768xf16>, tensor<768x768xf16>) -> tensor<4x128x768xf16>
  %a = "nn.attention_full"(%q, %k, %v) <{heads = 12 : i64, kv_heads = 12 : i64, head_dim = 64 : i64, scale = 1.25e-01 : f32, causal = false}> : (tensor<4x128x768xf16>, tensor<4x128x768xf16>, tensor<4x128x768xf16>) -> tensor<4x128x768xf16>
  %o = "nn.linear"(%a, %wo) : (tensor<4x128x768xf16>, tensor<768x768xf16>) -> tensor<4x128x768xf16>
  func.return %o : tensor<4x128x768xf16>
}
