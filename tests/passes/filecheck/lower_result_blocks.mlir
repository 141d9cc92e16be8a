// RUN: partition,layout{ksplit=1},tile,schedule,lower{result-blocks=1}
// 150000 / 32 outputs a tile in 64 banks and channels are 74 result registers: three blocks, of which one signal tells.
// CHECK: hbm.program "f"
// CHECK: hbm.rdres
// CHECK-NOT: hbm.sig
// CHECK: hbm.rdres
// CHECK-NOT: hbm.sig
// CHECK: hbm.rdres
// CHECK-NEXT: hbm.sig
func.func @f(%ids: tensor<1x1xi32> {pimc.name = "tokens"}) -> tensor<1x1x150000xf16> {
  %t = "nn.param"() <{name = "embed"}> : () -> tensor<100x64xf16>
  %x = "nn.embedding"(%t, %ids) : (tensor<100x64xf16>, tensor<1x1xi32>) -> tensor<1x1x64xf16>
  %w = "nn.param"() <{name = "head"}> : () -> tensor<150000x64xf16>
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<150000x64xf16>) -> tensor<1x1x150000xf16>
  func.return %y : tensor<1x1x150000xf16>
}
