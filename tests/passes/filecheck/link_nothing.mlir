// RUN: link
// CHECK: error: the module has no code to link
func.func @f() {
  func.return
}
