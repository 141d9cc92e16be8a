// RUN: partition,layout{ksplit=4},tile{weight-share=40 buffers=2}
// Room for four slots a buffer: all three in one tile, so one buffer is enough.
// CHECK-LABEL: func.func @f
func.func @f(%x: tensor<1x4x576xf16>) -> tensor<1x4x1536xf16> {
  %w = "nn.param"() <{name = "up"}> : () -> tensor<1536x576xf16>
  // CHECK: pim.gemm {{.*}}pim.tile_slots = 3 : i64, pim.tile_buffers = 1 : i64
  %y = "nn.linear"(%x, %w) : (tensor<1x4x576xf16>, tensor<1536x576xf16>) -> tensor<1x4x1536xf16>
  func.return %y : tensor<1x4x1536xf16>
}
