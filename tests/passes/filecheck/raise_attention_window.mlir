// RUN: raise
// A mask of the last three keys and capped scores: window and softcap of nn.attention, whose scale is that of the scores.
"ml_program.global"() <{sym_name = "k_cache", type = tensor<2x6x2x8xf32>, is_mutable, sym_visibility = "private"}> : () -> ()
"ml_program.global"() <{sym_name = "v_cache", type = tensor<2x6x2x8xf32>, is_mutable, sym_visibility = "private"}> : () -> ()
// CHECK-LABEL: func.func @windowed
// CHECK: "nn.attention"
// CHECK-SAME: window = 3 : i64, softcap = 4.000000e+00 : f32
// CHECK-SAME: scale = 5.000000e-01 : f32
// CHECK-NEXT: func.return
func.func @windowed(%x: tensor<1x2x32xf32>, %new: tensor<1x2x16xf32>, %position: tensor<1xi32>) -> tensor<1x2x32xf32> {
  %layer = arith.constant 1 : index
  %scale = "nn.constant"() <{value = dense<0.5> : tensor<f32>}> : () -> tensor<f32>
  %cap = "nn.constant"() <{value = dense<4.0> : tensor<f32>}> : () -> tensor<f32>
  %inverse = "nn.constant"() <{value = dense<0.25> : tensor<f32>}> : () -> tensor<f32>
  %low = "nn.constant"() <{value = dense<-3.4e38> : tensor<f32>}> : () -> tensor<f32>
  %slots = "nn.iota"() <{axis = 1 : i64}> : () -> tensor<1x6xi32>
  %count = "nn.iota"() <{axis = 0 : i64}> : () -> tensor<2xi32>
  %places = "nn.add"(%position, %count) : (tensor<1xi32>, tensor<2xi32>) -> tensor<2xi32>
  %column = "nn.reshape"(%places) : (tensor<2xi32>) -> tensor<2x1xi32>
  %seen = "nn.compare"(%slots, %column) <{predicate = "le"}> : (tensor<1x6xi32>, tensor<2x1xi32>) -> tensor<2x6xi1>
  %three = "nn.constant"() <{value = dense<3> : tensor<i32>}> : () -> tensor<i32>
  %start = "nn.sub"(%column, %three) : (tensor<2x1xi32>, tensor<i32>) -> tensor<2x1xi32>
  %near = "nn.compare"(%slots, %start) <{predicate = "gt"}> : (tensor<1x6xi32>, tensor<2x1xi32>) -> tensor<2x6xi1>
  %both = "nn.and"(%seen, %near) : (tensor<2x6xi1>, tensor<2x6xi1>) -> tensor<2x6xi1>
  %mask = "nn.reshape"(%both) : (tensor<2x6xi1>) -> tensor<1x1x2x6xi1>
  "nn.cache_write"(%layer, %new, %position) <{cache = @k_cache}> : (index, tensor<1x2x16xf32>, tensor<1xi32>) -> ()
  %k = "nn.cache_read"(%layer) <{cache = @k_cache}> : (index) -> tensor<1x6x2x8xf32>
  %v = "nn.cache_read"(%layer) <{cache = @v_cache}> : (index) -> tensor<1x6x2x8xf32>
  %split = "nn.reshape"(%x) : (tensor<1x2x32xf32>) -> tensor<1x2x4x8xf32>
  %q = "nn.transpose"(%split) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x2x4x8xf32>) -> tensor<1x4x2x8xf32>
  %k1 = "nn.transpose"(%k) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x6x2x8xf32>) -> tensor<1x2x6x8xf32>
  %k2 = "nn.reshape"(%k1) : (tensor<1x2x6x8xf32>) -> tensor<1x2x1x6x8xf32>
  %k3 = "nn.broadcast_to"(%k2) : (tensor<1x2x1x6x8xf32>) -> tensor<1x2x2x6x8xf32>
  %k4 = "nn.reshape"(%k3) : (tensor<1x2x2x6x8xf32>) -> tensor<1x4x6x8xf32>
  %kt = "nn.transpose"(%k4) <{permutation = array<i64: 0, 1, 3, 2>}> : (tensor<1x4x6x8xf32>) -> tensor<1x4x8x6xf32>
  %v1 = "nn.transpose"(%v) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x6x2x8xf32>) -> tensor<1x2x6x8xf32>
  %v2 = "nn.reshape"(%v1) : (tensor<1x2x6x8xf32>) -> tensor<1x2x1x6x8xf32>
  %v3 = "nn.broadcast_to"(%v2) : (tensor<1x2x1x6x8xf32>) -> tensor<1x2x2x6x8xf32>
  %v4 = "nn.reshape"(%v3) : (tensor<1x2x2x6x8xf32>) -> tensor<1x4x6x8xf32>
  %scores = "nn.matmul"(%q, %kt) : (tensor<1x4x2x8xf32>, tensor<1x4x8x6xf32>) -> tensor<1x4x2x6xf32>
  %scaled = "nn.mul"(%scores, %scale) : (tensor<1x4x2x6xf32>, tensor<f32>) -> tensor<1x4x2x6xf32>
  %low_scores = "nn.mul"(%scaled, %inverse) : (tensor<1x4x2x6xf32>, tensor<f32>) -> tensor<1x4x2x6xf32>
  %bent = "nn.tanh"(%low_scores) : (tensor<1x4x2x6xf32>) -> tensor<1x4x2x6xf32>
  %biased = "nn.mul"(%bent, %cap) : (tensor<1x4x2x6xf32>, tensor<f32>) -> tensor<1x4x2x6xf32>
  %masked = "nn.select"(%mask, %biased, %low) : (tensor<1x1x2x6xi1>, tensor<1x4x2x6xf32>, tensor<f32>) -> tensor<1x4x2x6xf32>
  %p = "nn.softmax"(%masked) <{axis = 3 : i64}> : (tensor<1x4x2x6xf32>) -> tensor<1x4x2x6xf32>
  %o = "nn.matmul"(%p, %v4) : (tensor<1x4x2x6xf32>, tensor<1x4x6x8xf32>) -> tensor<1x4x2x8xf32>
  %tokens = "nn.transpose"(%o) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x4x2x8xf32>) -> tensor<1x2x4x8xf32>
  %y = "nn.reshape"(%tokens) : (tensor<1x2x4x8xf32>) -> tensor<1x2x32xf32>
  func.return %y : tensor<1x2x32xf32>
}
