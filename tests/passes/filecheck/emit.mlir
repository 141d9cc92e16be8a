// RUN: allocate,emit,link
// Words of the first core, and the words that differ: 1 is halt; core 1 loads 7 where core 0 loads 5.
// CHECK: "sram.code"
// CHECK-SAME: agents = array<i64: 0, 1>
// CHECK-SAME: words = array<i32: 199229445, {{-?[0-9]+}}, 1>
// CHECK-SAME: patch_places = array<i32: 0>
// CHECK-SAME: patch_words = array<i32: 199229445, 199229447>
// CHECK: "hbm.code"
// CHECK-SAME: words = array<i64: {{[0-9]+}}, 288230376151711744>
sram.program "main" cores = [0, 1] {
  %v = sram.const [5, 7]
  %z = sram.const 0
  sram.sw %v, %z, imm = 64
}
hbm.program "main" groups = [0, 1] {
  hbm.set rd = 1, imm = 3
}
