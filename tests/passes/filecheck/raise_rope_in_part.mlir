// RUN: raise
// The first 4 of a head's 6 features are rotated, the others stay.
// CHECK: "nn.rope"
// CHECK-SAME: head_dim = 6 : i64
// CHECK-SAME: rotary_dim = 4 : i64
// CHECK-NOT: nn.neg
func.func @f(%x: tensor<1x3x12xf32>, %positions: tensor<1x3xi32>) -> tensor<1x2x3x6xf32> {
  %table = "nn.param"() <{name = "rope_table"}> : () -> tensor<8x8xf32>
  %rows = "nn.embedding"(%table, %positions) : (tensor<8x8xf32>, tensor<1x3xi32>) -> tensor<1x3x8xf32>
  %c3 = "nn.slice"(%rows) <{starts = array<i64: 0, 0, 0>, stops = array<i64: 1, 3, 4>, steps = array<i64: 1, 1, 1>}> : (tensor<1x3x8xf32>) -> tensor<1x3x4xf32>
  %s3 = "nn.slice"(%rows) <{starts = array<i64: 0, 0, 4>, stops = array<i64: 1, 3, 8>, steps = array<i64: 1, 1, 1>}> : (tensor<1x3x8xf32>) -> tensor<1x3x4xf32>
  %cos = "nn.reshape"(%c3) : (tensor<1x3x4xf32>) -> tensor<1x1x3x4xf32>
  %sin = "nn.reshape"(%s3) : (tensor<1x3x4xf32>) -> tensor<1x1x3x4xf32>
  %h = "nn.reshape"(%x) : (tensor<1x3x12xf32>) -> tensor<1x3x2x6xf32>
  %t = "nn.transpose"(%h) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x3x2x6xf32>) -> tensor<1x2x3x6xf32>
  %a = "nn.slice"(%t) <{starts = array<i64: 0, 0, 0, 0>, stops = array<i64: 1, 2, 3, 4>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x6xf32>) -> tensor<1x2x3x4xf32>
  %rest = "nn.slice"(%t) <{starts = array<i64: 0, 0, 0, 4>, stops = array<i64: 1, 2, 3, 6>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x6xf32>) -> tensor<1x2x3x2xf32>
  %low = "nn.slice"(%a) <{starts = array<i64: 0, 0, 0, 0>, stops = array<i64: 1, 2, 3, 2>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x2xf32>
  %high = "nn.slice"(%a) <{starts = array<i64: 0, 0, 0, 2>, stops = array<i64: 1, 2, 3, 4>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x4xf32>) -> tensor<1x2x3x2xf32>
  %minus = "nn.neg"(%high) : (tensor<1x2x3x2xf32>) -> tensor<1x2x3x2xf32>
  %turned = "nn.concat"(%minus, %low) <{axis = 3 : i64}> : (tensor<1x2x3x2xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x4xf32>
  %p = "nn.mul"(%a, %cos) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
  %r = "nn.mul"(%turned, %sin) : (tensor<1x2x3x4xf32>, tensor<1x1x3x4xf32>) -> tensor<1x2x3x4xf32>
  %sum = "nn.add"(%p, %r) : (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) -> tensor<1x2x3x4xf32>
  %y = "nn.concat"(%sum, %rest) <{axis = 3 : i64}> : (tensor<1x2x3x4xf32>, tensor<1x2x3x2xf32>) -> tensor<1x2x3x6xf32>
  func.return %y : tensor<1x2x3x6xf32>
}
