// RUN: allocate,emit
// A constant that follows from the layout of memory takes two words even where it is small; a plain one takes one.
// CHECK: "sram.code"
// CHECK-SAME: words = array<i32: {{-?[0-9]+}}, {{-?[0-9]+}}, {{-?[0-9]+}}, {{-?[0-9]+}}, 1>
sram.program "main" cores = [0] {
  %plain = sram.const 7
  %laid = sram.const 7 of "slots"
  sram.sw %plain, %laid, imm = 64
}
