// A table that is looked up in its own memory, and also read whole, before and after that.
func.func @main(%x: tensor<1x8xf32>) -> (tensor<8xf32>, tensor<1x2x8xf32>, tensor<1x2x8xf32>) {
  %table = "nn.param"() <{name = "table"}> : () -> tensor<100x8xf32>
  %ids = "nn.constant"() <{value = dense<[[3, 97]]> : tensor<1x2xi64>}> : () -> tensor<1x2xi64>
  %sum = "nn.reduce_sum"(%table) <{axes = array<i64: 0>, keepdims = false}> : (tensor<100x8xf32>) -> tensor<8xf32>
  %rows = "nn.embedding"(%table, %ids) : (tensor<100x8xf32>, tensor<1x2xi64>) -> tensor<1x2x8xf32>
  %moved = "nn.add"(%rows, %x) : (tensor<1x2x8xf32>, tensor<1x8xf32>) -> tensor<1x2x8xf32>
  func.return %sum, %rows, %moved : tensor<8xf32>, tensor<1x2x8xf32>, tensor<1x2x8xf32>
}
