// RUN: allocate,emit
// SET: memory.instruction.bytes=8
// CHECK: error: the core program of entry 'main' has 3 words, the instruction memory of hpim has 2
sram.program "main" cores = [0] {
  %v = sram.const 5
  sram.sw %v, %v, imm = 64
}
