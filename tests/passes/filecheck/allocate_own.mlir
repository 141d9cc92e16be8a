// RUN: allocate{share=false}
// CHECK: sram.alloc "x" {{.*}}address = 0 : i64
// CHECK: sram.alloc "y" {{.*}}address = 64 : i64
sram.program "main" cores = [0] {
  %x = sram.alloc "x" {bytes = 64 : i64, memory = "activation", align = 32 : i64}
  %y = sram.alloc "y" {bytes = 64 : i64, memory = "activation", align = 32 : i64}
  %a = sram.address %x + 0
  %b = sram.address %y + 0
  %n = sram.const 32
  sram.vadd_h %a, %a, %a, %n
  sram.vadd_h %b, %b, %b, %n
}
