// RUN: partition,layout,tile,schedule,lower
// CHECK: error: 2 operation(s) have no lowering: nn.reshape at {{.*}}; nn.softmax at
func.func @f(%x: tensor<1x1x64xf16>) -> tensor<1x64xf16> {
  %r = "nn.reshape"(%x) : (tensor<1x1x64xf16>) -> tensor<1x64xf16>
  %s = "nn.softmax"(%r) <{axis = -1 : i64}> : (tensor<1x64xf16>) -> tensor<1x64xf16>
  func.return %s : tensor<1x64xf16>
}
