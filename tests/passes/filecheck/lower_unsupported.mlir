// RUN: partition,layout,tile,schedule,lower
// CHECK: error: 2 unsupported node(s) of 1 operator(s):
// CHECK-NEXT: nn.iota at {{.*}}: has no lowering
// CHECK-NEXT: nn.iota at {{.*}}: has no lowering
func.func @f() -> (tensor<4xi32>, tensor<5xi32>) {
  %r = "nn.iota"() <{axis = 0 : i64}> : () -> tensor<4xi32>
  %s = "nn.iota"() <{axis = 0 : i64}> : () -> tensor<5xi32>
  func.return %r, %s : tensor<4xi32>, tensor<5xi32>
}
