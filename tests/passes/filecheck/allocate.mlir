// RUN: allocate
// Addresses become constants, arithmetic on them is folded, configuration becomes cfg, scalars get registers.
// CHECK: sram.program "main" cores = [0, 1]
// CHECK: sram.const 0 {register = 0 : i64}
// CHECK: sram.alloc "x" {bytes = 64 : i64, memory = "activation", align = 32 : i64, address = 0 : i64}
// CHECK: sram.alloc "y" {{.*}}address = 64 : i64
// CHECK: sram.alloc "t" {{.*}}address = 393216 : i64
// CHECK: sram.const [4, 8] of "x" {register = 31 : i64}
// CHECK: sram.lw {{.*}}register = 1 : i64
// CHECK: sram.cfg {{.*}}, config = 0
// CHECK: sram.const 393216
// CHECK: sram.for {{.*}}registers = array<i64: 2>
// CHECK-NEXT: sram.slli {{.*}}, imm = 3 {register = 3 : i64}
// CHECK-NEXT: sram.vrope
// CHECK-NEXT: }
// CHECK: hbm.wrgb base = 0, address = 16, column = 0, count = 1, stride = 0
sram.program "main" cores = [0, 1] {
  %x = sram.alloc "x" {bytes = 64 : i64, memory = "activation", align = 32 : i64}
  %y = sram.alloc "y" {bytes = 64 : i64, memory = "activation", align = 32 : i64}
  %t = sram.alloc "t" {bytes = 128 : i64, memory = "temp", align = 32 : i64}
  %base = sram.address %x + [0, 4]
  %four = sram.const 4
  %at = sram.add %base, %four
  %n = sram.lw %at, imm = 0
  %zero = sram.const 0
  %table = sram.address %t + 0
  %from = sram.address %y + 0
  sram.for %i = %zero to %n step 1 {
    %eight = sram.const 8
    %d = sram.const 64
    %skip = sram.mul %i, %eight
    sram.vrope %from, %skip, %table, %d, head_dim = %d
  }
  sram.keep %x
}
hbm.program "main" groups = [0, 1] {
  hbm.wrgb base = 0, address = @x + 16, column = 0, count = 1, stride = 0
}
