// RUN: emit
// CHECK: error: {{.*}}a scalar value has no register
sram.program "main" cores = [0] {
  %v = sram.const 5
  sram.sw %v, %v, imm = 64
}
