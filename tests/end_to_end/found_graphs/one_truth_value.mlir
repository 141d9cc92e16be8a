// A constant of one truth value: true is 1 as an operand of an instruction, not what a signed bit is.
func.func @main(%x: tensor<7xf32>, %y: tensor<7xf32>) -> (tensor<7xi1>, tensor<7xi1>, tensor<7xf32>) {
  %true = "nn.constant"() <{value = dense<true> : tensor<1xi1>}> : () -> tensor<1xi1>
  %less = "nn.compare"(%x, %y) <{predicate = "lt"}> : (tensor<7xf32>, tensor<7xf32>) -> tensor<7xi1>
  %xor = "nn.xor"(%less, %true) : (tensor<7xi1>, tensor<1xi1>) -> tensor<7xi1>
  %or = "nn.or"(%less, %true) : (tensor<7xi1>, tensor<1xi1>) -> tensor<7xi1>
  %one = "nn.cast"(%true) : (tensor<1xi1>) -> tensor<1xf32>
  %sum = "nn.add"(%x, %one) : (tensor<7xf32>, tensor<1xf32>) -> tensor<7xf32>
  func.return %xor, %or, %sum : tensor<7xi1>, tensor<7xi1>, tensor<7xf32>
}
