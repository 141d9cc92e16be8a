// RUN: widen
// A module with caches is a decoder, and stays as it is.
// CHECK: func.func @main
// CHECK-NOT: f32
ml_program.global private mutable @cache : tensor<1x8x1x4xf16>
func.func @main(%x: tensor<4x3xf16>) -> tensor<4x3xf16> {
  %d = "nn.exp"(%x) : (tensor<4x3xf16>) -> tensor<4x3xf16>
  %q = "nn.log"(%d) : (tensor<4x3xf16>) -> tensor<4x3xf16>
  func.return %q : tensor<4x3xf16>
}
