// RUN: partition,layout{ksplit=4},tile{share=10 buffers=2}
// 10 % of 384 KiB hold two transfers of one slot: 16 outputs x 576 x 2 bytes = 18 KiB each.
// CHECK-LABEL: func.func @f
func.func @f(%x: tensor<1x4x576xf16>) -> tensor<1x4x1536xf16> {
  %w = "nn.param"() <{name = "up"}> : () -> tensor<1536x576xf16>
  // CHECK: pim.gemm {{.*}}pim.tile_rows = 4 : i64, pim.tile_slots = 1 : i64, pim.tile_block_slots = 1 : i64, pim.tile_columns = 9 : i64, pim.tile_buffers = 2 : i64, pim.tile_in_unit = 0 : i64
  %y = "nn.linear"(%x, %w) : (tensor<1x4x576xf16>, tensor<1536x576xf16>) -> tensor<1x4x1536xf16>
  func.return %y : tensor<1x4x1536xf16>
}
