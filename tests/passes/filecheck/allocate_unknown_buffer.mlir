// RUN: allocate
// CHECK: error: {{.*}}hbm.wrgb names buffer @y, which core 0 does not allocate in entry 'main'
sram.program "main" cores = [0] {
}
hbm.program "main" groups = [0] {
  hbm.wrgb base = 0, address = @y + 16, column = 0, count = 1, stride = 0
}
