// RUN: allocate,emit,link
// CHECK: error: {{.*}}entry 'main' has two streams for core 1
sram.program "main" cores = [0, 1] {
}
sram.program "main" cores = [1, 2] {
}
