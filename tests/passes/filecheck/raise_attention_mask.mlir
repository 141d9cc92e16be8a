// A mask that hides a token from itself is not causal.
// RUN: raise
// CHECK: error: {{.*}}attention over @k_cache is not recognised (no attention: the mask at position 4 is not causal)
"ml_program.global"() <{sym_name = "k_cache", type = tensor<2x6x2x8xf32>, is_mutable, sym_visibility = "private"}> : () -> ()
"ml_program.global"() <{sym_name = "v_cache", type = tensor<2x6x2x8xf32>, is_mutable, sym_visibility = "private"}> : () -> ()
func.func @strict(%x: tensor<1x2x32xf32>, %new: tensor<1x2x16xf32>, %position: tensor<1xi32>) -> tensor<1x2x32xf32> {
  %layer = arith.constant 1 : index
  %scale = "nn.constant"() <{value = dense<0.5> : tensor<f32>}> : () -> tensor<f32>
  %low = "nn.constant"() <{value = dense<-3.4e38> : tensor<f32>}> : () -> tensor<f32>
  %slots = "nn.iota"() <{axis = 1 : i64}> : () -> tensor<1x6xi32>
  %count = "nn.iota"() <{axis = 0 : i64}> : () -> tensor<2xi32>
  %places = "nn.add"(%position, %count) : (tensor<1xi32>, tensor<2xi32>) -> tensor<2xi32>
  %column = "nn.reshape"(%places) : (tensor<2xi32>) -> tensor<2x1xi32>
  %seen = "nn.compare"(%slots, %column) <{predicate = "lt"}> : (tensor<1x6xi32>, tensor<2x1xi32>) -> tensor<2x6xi1>
  %mask = "nn.reshape"(%seen) : (tensor<2x6xi1>) -> tensor<1x1x2x6xi1>
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
  %masked = "nn.select"(%mask, %scaled, %low) : (tensor<1x1x2x6xi1>, tensor<1x4x2x6xf32>, tensor<f32>) -> tensor<1x4x2x6xf32>
  %p = "nn.softmax"(%masked) <{axis = 3 : i64}> : (tensor<1x4x2x6xf32>) -> tensor<1x4x2x6xf32>
  %o = "nn.matmul"(%p, %v4) : (tensor<1x4x2x6xf32>, tensor<1x4x6x8xf32>) -> tensor<1x4x2x8xf32>
  %tokens = "nn.transpose"(%o) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x4x2x8xf32>) -> tensor<1x2x4x8xf32>
  %y = "nn.reshape"(%tokens) : (tensor<1x2x4x8xf32>) -> tensor<1x2x32xf32>
  func.return %y : tensor<1x2x32xf32>
}
