// RUN: annotate,place{policy=best}
// CHECK: error: unknown placement policy 'best'
func.func @f() {
  func.return
}
