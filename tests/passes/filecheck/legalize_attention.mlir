// RUN: legalize,annotate,place,partition
// A mask of booleans is one that is added, as wide as there are keys; two heads and four rows go to eight cores.
// CHECK: "nn.select"
// CHECK: "nn.broadcast_to"{{.*}} -> tensor<1x1x4x6xf16>
// CHECK: pim.take {{.*}} -> tensor<1x1x4x6xf16, #pim.layout<2 : {{\[\[}}0, 0, 8, 1, 1, 2]]>>
// CHECK: pim.attention_full {{.*}}grid = array<i64: 1, 2, 4>{{.*}} -> tensor<1x4x32xf16, #pim.layout<1 : {{\[\[}}0, 0, 8, 1, 1, 2]], 2 : {{\[\[}}0, 0, 8, 16, 4]]>>
func.func @main(%q: tensor<1x4x32xf16>, %k: tensor<1x6x32xf16>, %m: tensor<1x1x4x1xi1>) -> tensor<1x4x32xf16> {
  %a = "nn.attention_full"(%q, %k, %k, %m) <{heads = 2 : i64, kv_heads = 2 : i64, head_dim = 16 : i64, scale = 2.5e-01 : f32, causal = false}> : (tensor<1x4x32xf16>, tensor<1x6x32xf16>, tensor<1x6x32xf16>, tensor<1x1x4x1xi1>) -> tensor<1x4x32xf16>
  func.return %a : tensor<1x4x32xf16>
}
