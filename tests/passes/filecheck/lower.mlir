// RUN: partition,layout{ksplit=4},tile,schedule,lower
// One text for all cores, one stream for all groups; the stream multiplies between the core's signal and its wait.
// CHECK: sram.program "f" cores = [0, 1,
// CHECK: sram.port {{.*}}port = "tokens"
// CHECK: sram.hrd
// CHECK: sram.nmcast
// CHECK: sram.wait
// CHECK: sram.sigh sem = 0
// CHECK: sram.wait {{.*}}imm = 4
// CHECK-NEXT: sram.address
// CHECK: sram.vredp
// CHECK: sram.port {{.*}}direction = "output"
// CHECK: hbm.program "f" groups = [0, 1,
// CHECK: hbm.wait sem = 0, count = 1
// CHECK-NEXT: hbm.wrgb base = 0, address = @embedding + 0, column = 0, count = 1, stride = 32
// CHECK-NEXT: hbm.act base = 0, row = 1
// CHECK-NEXT: hbm.mac column = 0, buffer = 0, count = 1, result = 0, clear = 1
// CHECK-NEXT: hbm.pre
// CHECK-NEXT: hbm.rdres {{.*}}result = 0, count = 1
// CHECK-NEXT: hbm.sig
func.func @f(%ids: tensor<1x1xi32> {pimc.name = "tokens"}) -> tensor<1x1x100xf16> {
  %t = "nn.param"() <{name = "embed"}> : () -> tensor<100x64xf16>
  %x = "nn.embedding"(%t, %ids) : (tensor<100x64xf16>, tensor<1x1xi32>) -> tensor<1x1x64xf16>
  %w = "nn.param"() <{name = "head"}> : () -> tensor<100x64xf16>
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<100x64xf16>) -> tensor<1x1x100xf16>
  func.return %y : tensor<1x1x100xf16>
}
