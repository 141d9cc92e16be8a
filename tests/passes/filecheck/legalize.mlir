// RUN: legalize
// CHECK: func.func @main
// A weight that is computed: a product, and the bias added.
// CHECK: "nn.transpose"(%w) <{permutation = array<i64: 1, 0>}>
// CHECK: "nn.matmul"
// CHECK: "nn.add"
// A table that is computed: rows by index.
// CHECK: "nn.gather"(%w, %ids) <{axis = 0 : i64}>
// To a boolean: not zero.
// CHECK: "nn.compare"({{.*}}predicate = "ne"
// CHECK-NOT: nn.cast
// Positions of constants are constants.
// CHECK: dense<[0, 1, 2]> : tensor<3xi32>
// CHECK-NOT: nn.iota
func.func @main(%x: tensor<2x3xf16>, %w: tensor<4x3xf16>, %b: tensor<4xf16>, %ids: tensor<1x2xi32>)
    -> (tensor<2x4xf16>, tensor<1x2x3xf16>, tensor<2x3xi1>, tensor<3xi32>) {
  %y = "nn.linear"(%x, %w, %b) : (tensor<2x3xf16>, tensor<4x3xf16>, tensor<4xf16>) -> tensor<2x4xf16>
  %e = "nn.embedding"(%w, %ids) : (tensor<4x3xf16>, tensor<1x2xi32>) -> tensor<1x2x3xf16>
  %t = "nn.cast"(%x) : (tensor<2x3xf16>) -> tensor<2x3xi1>
  %i = "nn.iota"() <{axis = 0 : i64}> : () -> tensor<3xi32>
  func.return %y, %e, %t, %i : tensor<2x4xf16>, tensor<1x2x3xf16>, tensor<2x3xi1>, tensor<3xi32>
}
