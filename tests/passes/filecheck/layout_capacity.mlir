// RUN: partition,layout
// SET: hbm.rows=1
// CHECK: error: head does not fit: it needs rows up to 2 of each bank, hpim has 1
func.func @f(%ids: tensor<1x1xi32>) -> tensor<1x1x100xf16> {
  %t = "nn.param"() <{name = "embed"}> : () -> tensor<100x64xf16>
  %x = "nn.embedding"(%t, %ids) : (tensor<100x64xf16>, tensor<1x1xi32>) -> tensor<1x1x64xf16>
  %w = "nn.param"() <{name = "head"}> : () -> tensor<100x64xf16>
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<100x64xf16>) -> tensor<1x1x100xf16>
  func.return %y : tensor<1x1x100xf16>
}
