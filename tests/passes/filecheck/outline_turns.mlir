// RUN: outline{min-ops=3}
// Layers of two kinds take turns: one function is of both, and the layers of the cache count by two.
// CHECK-LABEL: func.func private @f_layer(
// CHECK-SAME: %[[L:.*]]: index, %[[X:.*]]: tensor<1x1x8xf16>, %[[P:.*]]: tensor<1xi32>
// CHECK: %[[TWO:.*]] = arith.constant 2 : index
// CHECK-NEXT: %[[EVEN:.*]] = arith.muli %[[L]], %[[TWO]]
// CHECK-NEXT: "nn.cache_write"(%[[EVEN]],
// CHECK: "nn.relu"
// CHECK: arith.muli %[[L]],
// CHECK: %[[ODD:.*]] = arith.addi 
// CHECK-NEXT: "nn.cache_write"(%[[ODD]],
// CHECK: "nn.tanh"
// CHECK-LABEL: func.func @f(
// CHECK-SAME: pim.outline = "2 layers of 4 operations in @f_layer"
"ml_program.global"() <{sym_name = "c", type = tensor<4x4x1x8xf16>, is_mutable, sym_visibility = "private"}> : () -> ()
func.func @f(%x: tensor<1x1x8xf16>, %p: tensor<1xi32>) -> tensor<1x1x8xf16> {
  %l0 = arith.constant 0 : index
  %l1 = arith.constant 1 : index
  %l2 = arith.constant 2 : index
  %l3 = arith.constant 3 : index
  "nn.cache_write"(%l0, %x, %p) <{cache = @c}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
  %a = "nn.relu"(%x) : (tensor<1x1x8xf16>) -> tensor<1x1x8xf16>
  "nn.cache_write"(%l1, %a, %p) <{cache = @c}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
  %b = "nn.tanh"(%a) : (tensor<1x1x8xf16>) -> tensor<1x1x8xf16>
  "nn.cache_write"(%l2, %b, %p) <{cache = @c}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
  %c = "nn.relu"(%b) : (tensor<1x1x8xf16>) -> tensor<1x1x8xf16>
  "nn.cache_write"(%l3, %c, %p) <{cache = @c}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
  %d = "nn.tanh"(%c) : (tensor<1x1x8xf16>) -> tensor<1x1x8xf16>
  func.return %d : tensor<1x1x8xf16>
}
