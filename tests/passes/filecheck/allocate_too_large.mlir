// RUN: allocate
// CHECK: error: {{.*}}buffer 'x' does not fit the temp memory of 32768 bytes: it and the buffers in use with it take 32800 bytes: x (32800 bytes)
sram.program "main" cores = [0] {
  %x = sram.alloc "x" {bytes = 32800 : i64, memory = "temp", align = 32 : i64}
  sram.keep %x
}
