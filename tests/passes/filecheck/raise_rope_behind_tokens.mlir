// RUN: raise
// Heads that stay behind the tokens, as they are without the transpose for a product.
// CHECK-LABEL: func.func @behind
// CHECK: "nn.rope"(%x, %{{.*}}) <{head_dim = 8 : i64}> : (tensor<1x2x32xf16>, tensor<1x2x16xf16>) -> tensor<1x2x32xf16>
// CHECK-NEXT: func.return
func.func @behind(%x: tensor<1x2x32xf32>, %position: tensor<1xi32>) -> tensor<1x2x32xf32> {
  %table = "nn.param"() <{name = "rope_table"}> : () -> tensor<16x16xf32>
  %iota = "nn.iota"() <{axis = 0 : i64}> : () -> tensor<2xi32>
  %sum = "nn.add"(%position, %iota) : (tensor<1xi32>, tensor<2xi32>) -> tensor<2xi32>
  %ids = "nn.reshape"(%sum) : (tensor<2xi32>) -> tensor<1x2xi32>
  %rows = "nn.embedding"(%table, %ids) : (tensor<16x16xf32>, tensor<1x2xi32>) -> tensor<1x2x16xf32>
  %cos = "nn.slice"(%rows) <{starts = array<i64: 0, 0, 0>, stops = array<i64: 1, 2, 8>, steps = array<i64: 1, 1, 1>}> : (tensor<1x2x16xf32>) -> tensor<1x2x8xf32>
  %sin = "nn.slice"(%rows) <{starts = array<i64: 0, 0, 8>, stops = array<i64: 1, 2, 16>, steps = array<i64: 1, 1, 1>}> : (tensor<1x2x16xf32>) -> tensor<1x2x8xf32>
  %c = "nn.reshape"(%cos) : (tensor<1x2x8xf32>) -> tensor<1x2x1x8xf32>
  %s = "nn.reshape"(%sin) : (tensor<1x2x8xf32>) -> tensor<1x2x1x8xf32>
  %split = "nn.reshape"(%x) : (tensor<1x2x32xf32>) -> tensor<1x2x4x8xf32>
  %straight = "nn.mul"(%split, %c) : (tensor<1x2x4x8xf32>, tensor<1x2x1x8xf32>) -> tensor<1x2x4x8xf32>
  %low = "nn.slice"(%split) <{starts = array<i64: 0, 0, 0, 0>, stops = array<i64: 1, 2, 4, 4>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x4x8xf32>) -> tensor<1x2x4x4xf32>
  %high = "nn.slice"(%split) <{starts = array<i64: 0, 0, 0, 4>, stops = array<i64: 1, 2, 4, 8>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x4x8xf32>) -> tensor<1x2x4x4xf32>
  %negative = "nn.neg"(%high) : (tensor<1x2x4x4xf32>) -> tensor<1x2x4x4xf32>
  %turned = "nn.concat"(%negative, %low) <{axis = 3 : i64}> : (tensor<1x2x4x4xf32>, tensor<1x2x4x4xf32>) -> tensor<1x2x4x8xf32>
  %across = "nn.mul"(%turned, %s) : (tensor<1x2x4x8xf32>, tensor<1x2x1x8xf32>) -> tensor<1x2x4x8xf32>
  %y = "nn.add"(%straight, %across) : (tensor<1x2x4x8xf32>, tensor<1x2x4x8xf32>) -> tensor<1x2x4x8xf32>
  %merged = "nn.reshape"(%y) : (tensor<1x2x4x8xf32>) -> tensor<1x2x32xf32>
  func.return %merged : tensor<1x2x32xf32>
}
