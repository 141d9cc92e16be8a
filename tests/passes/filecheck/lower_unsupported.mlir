// RUN: partition,layout,tile,schedule,lower
// CHECK: error: 2 operation(s) have no lowering: nn.reshape at {{.*}}; nn.transpose at
func.func @f(%x: tensor<1x1x64xf16>) -> tensor<64x1xf16> {
  %r = "nn.reshape"(%x) : (tensor<1x1x64xf16>) -> tensor<1x64xf16>
  %s = "nn.transpose"(%r) <{permutation = array<i64: 1, 0>}> : (tensor<1x64xf16>) -> tensor<64x1xf16>
  func.return %s : tensor<64x1xf16>
}
