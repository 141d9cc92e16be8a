// RUN: raise
// Queries, keys and values of one head after the other: one linear layer a part, with its rows of every head.
// CHECK-DAG: name = "qkv.weight[2x0:4]"
// CHECK-DAG: name = "qkv.bias[2x0:4]"
// CHECK-DAG: name = "qkv.weight[2x4:8]"
// CHECK-DAG: name = "qkv.weight[2x8:12]"
// CHECK-NOT: nn.slice
func.func @f(%x: tensor<1x3x8xf32>) -> (tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>) {
  %w = "nn.param"() <{name = "qkv.weight"}> : () -> tensor<24x8xf32>
  %b = "nn.param"() <{name = "qkv.bias"}> : () -> tensor<24xf32>
  %y = "nn.linear"(%x, %w, %b) : (tensor<1x3x8xf32>, tensor<24x8xf32>, tensor<24xf32>) -> tensor<1x3x24xf32>
  %h = "nn.reshape"(%y) : (tensor<1x3x24xf32>) -> tensor<1x3x2x12xf32>
  %t = "nn.transpose"(%h) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x3x2x12xf32>) -> tensor<1x2x3x12xf32>
  %q = "nn.slice"(%t) <{starts = array<i64: 0, 0, 0, 0>, stops = array<i64: 1, 2, 3, 4>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x12xf32>) -> tensor<1x2x3x4xf32>
  %k = "nn.slice"(%t) <{starts = array<i64: 0, 0, 0, 4>, stops = array<i64: 1, 2, 3, 8>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x12xf32>) -> tensor<1x2x3x4xf32>
  %v = "nn.slice"(%t) <{starts = array<i64: 0, 0, 0, 8>, stops = array<i64: 1, 2, 3, 12>, steps = array<i64: 1, 1, 1, 1>}> : (tensor<1x2x3x12xf32>) -> tensor<1x2x3x4xf32>
  func.return %q, %k, %v : tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>, tensor<1x2x3x4xf32>
}
