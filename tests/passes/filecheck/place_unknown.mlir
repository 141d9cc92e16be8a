// RUN: annotate,place
// POLICY: best
// CHECK: error: no policy 'best'
func.func @f() {
  func.return
}
