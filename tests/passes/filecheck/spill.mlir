// RUN: layout,spill
// SET: memory.activation.bytes=65536
// SET: memory.temp.base=65536
// The two element-wise operators share a loop over rows; what the transposition needs, and what it makes, is in DRAM.
// CHECK-LABEL: func.func @f
func.func @f(%x: tensor<96x256xf16>) -> tensor<256x96xf16> {
  // CHECK: [[X:%.*]] = pim.spill %x
  // CHECK: pim.empty
  // CHECK: [[LOOP:%.*]] = scf.for [[I:%.*]] = {{.*}} iter_args([[HOME:%.*]] = {{.*}}) -> (tensor<96x256xf16, #pim.layout<dram>>)
  // CHECK: [[TILE:%.*]] = pim.read [[X]][[[I]]] {dim = 0 : i64, rows = array<i64: 1, 96>} : tensor<96x256xf16, #pim.layout<dram>> -> tensor<[[B:.*]]x256xf16>
  // CHECK: [[H:%.*]] = "nn.gelu"([[TILE]])
  // CHECK: [[S:%.*]] = "nn.mul"([[H]], [[TILE]])
  // CHECK: pim.write [[S]], [[HOME]][[[I]]]
  // CHECK: scf.yield
  %h = "nn.gelu"(%x) <{approximate = "none"}> : (tensor<96x256xf16>) -> tensor<96x256xf16>
  %s = "nn.mul"(%h, %x) : (tensor<96x256xf16>, tensor<96x256xf16>) -> tensor<96x256xf16>
  // CHECK: [[FILL:%.*]] = pim.fill [[LOOP]]
  // CHECK: "nn.transpose"([[FILL]])
  %t = "nn.transpose"(%s) <{permutation = array<i64: 1, 0>}> : (tensor<96x256xf16>) -> tensor<256x96xf16>
  func.return %t : tensor<256x96xf16>
}
