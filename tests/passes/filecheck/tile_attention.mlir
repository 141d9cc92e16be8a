// RUN: partition,layout,tile{key-share=40}
// One token: 128 slots, the lanes of the PIM unit, are 4 x 128 x 128 + 128 x 6 bytes.  16 tokens: 21 rows of three heads
// fill the tensor unit's 64, and 128 slots are 4 x 128 x 128 + 128 x 126 bytes; 256 are more than 40 % of 384 KiB.
"ml_program.global"() <{sym_name = "k", type = tensor<1x512x3x64xf16>, is_mutable, sym_visibility = "private"}> : () -> ()
"ml_program.global"() <{sym_name = "v", type = tensor<1x512x3x64xf16>, is_mutable, sym_visibility = "private"}> : () -> ()
// CHECK-LABEL: func.func @one
func.func @one(%q: tensor<1x1x576xf16>, %p: tensor<1xi32>) -> tensor<1x1x576xf16> {
  %l = arith.constant 0 : index
  // CHECK: pim.attention {{.*}}pim.tile_rows = 1 : i64, pim.tile_keys = 128 : i64
  // CHECK-SAME: pim.tile = "1 x 3 query rows and 128 slots at a time (the lanes of the SRAM-PIM unit);
  %o = "nn.attention"(%q, %l, %p) <{k = @k, v = @v, heads = 9 : i64, kv_heads = 3 : i64, head_dim = 64 : i64, scale = 0.125 : f32, causal = true}> : (tensor<1x1x576xf16>, index, tensor<1xi32>) -> tensor<1x1x576xf16>
  func.return %o : tensor<1x1x576xf16>
}
// CHECK-LABEL: func.func @several
func.func @several(%q: tensor<1x16x576xf16>, %p: tensor<1xi32>) -> tensor<1x16x576xf16> {
  %l = arith.constant 0 : index
  // CHECK: pim.attention {{.*}}pim.tile_rows = 21 : i64, pim.tile_keys = 128 : i64
  // CHECK-SAME: pim.tile = "21 x 3 query rows and 128 slots at a time (local memory);
  %o = "nn.attention"(%q, %l, %p) <{k = @k, v = @v, heads = 9 : i64, kv_heads = 3 : i64, head_dim = 64 : i64, scale = 0.125 : f32, causal = true}> : (tensor<1x16x576xf16>, index, tensor<1xi32>) -> tensor<1x16x576xf16>
  func.return %o : tensor<1x16x576xf16>
}
