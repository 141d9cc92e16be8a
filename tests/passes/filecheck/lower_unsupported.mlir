// RUN: partition,layout,tile,schedule,lower
// CHECK: error: 2 unsupported node(s) of 1 operator(s):
// CHECK-NEXT: nn.reduce_mean at {{.*}}: no mean of integers; cast them to numbers first
// CHECK-NEXT: nn.reduce_mean at {{.*}}: no mean of integers; cast them to numbers first
func.func @f(%x: tensor<4x5xi32>) -> (tensor<4xi32>, tensor<5xi32>) {
  %r = "nn.reduce_mean"(%x) <{axes = array<i64: 1>, keepdims = false}> : (tensor<4x5xi32>) -> tensor<4xi32>
  %s = "nn.reduce_mean"(%x) <{axes = array<i64: 0>, keepdims = false}> : (tensor<4x5xi32>) -> tensor<5xi32>
  func.return %r, %s : tensor<4xi32>, tensor<5xi32>
}
