// RUN: layout,spill
// SET: memory.activation.bytes=65536
// SET: memory.temp.base=65536
// In the layer that the loop calls, both products of x are needed late: the one that is made first waits in DRAM.
func.func private @layer(%i: index, %x: tensor<64x64xf16>) -> tensor<64x64xf16> {
  // CHECK: [[A:%.*]] = "nn.matmul"(%x, %x)
  // CHECK-NEXT: [[D:%.*]] = pim.spill [[A]] {{.*}}pim.region = #pim.region<value
  // CHECK: nn.reduce_max
  // CHECK: [[F:%.*]] = pim.fill [[D]]
  // CHECK: "nn.add"([[F]]
  %a = "nn.matmul"(%x, %x) : (tensor<64x64xf16>, tensor<64x64xf16>) -> tensor<64x64xf16>
  %t = "nn.broadcast_to"(%x) : (tensor<64x64xf16>) -> tensor<6x64x64xf16>
  %m = "nn.reduce_max"(%t) <{axes = array<i64: 0>, keepdims = false}> : (tensor<6x64x64xf16>) -> tensor<64x64xf16>
  %y = "nn.add"(%a, %m) : (tensor<64x64xf16>, tensor<64x64xf16>) -> tensor<64x64xf16>
  func.return %y : tensor<64x64xf16>
}
func.func @main(%x: tensor<64x64xf16>) -> tensor<64x64xf16> {
  %lower = arith.constant 0 : index
  %upper = arith.constant 2 : index
  %step = arith.constant 1 : index
  %r = scf.for %i = %lower to %upper step %step iter_args(%c = %x) -> (tensor<64x64xf16>) {
    %o = func.call @layer(%i, %c) : (index, tensor<64x64xf16>) -> tensor<64x64xf16>
    scf.yield %o : tensor<64x64xf16>
  }
  func.return %r : tensor<64x64xf16>
}
