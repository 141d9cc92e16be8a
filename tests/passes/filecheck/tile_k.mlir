// RUN: partition,layout,tile
// 64 x 28672 of the input do not fit: it is gathered in blocks of K, and partial sums stay in local memory in f32.
// CHECK-LABEL: func.func @f
func.func @f(%x: tensor<1x64x64xf16>) -> tensor<1x64x7168xf16> {
  %w0 = "nn.param"() <{name = "up"}> : () -> tensor<28672x64xf16>
  %w1 = "nn.param"() <{name = "down"}> : () -> tensor<7168x28672xf16>
  %h = "nn.linear"(%x, %w0) : (tensor<1x64x64xf16>, tensor<28672x64xf16>) -> tensor<1x64x28672xf16>
  // CHECK: pim.gemm {{.*}}tensor<28672x64xf16>
  // CHECK: pim.gemm {{.*}}pim.tile_rows = 64 : i64, {{.*}}pim.tile_in_unit = 0 : i64{{.*}}tensor<7168x28672xf16>
  %y = "nn.linear"(%h, %w1) : (tensor<1x64x28672xf16>, tensor<7168x28672xf16>) -> tensor<1x64x7168xf16>
  func.return %y : tensor<1x64x7168xf16>
}
