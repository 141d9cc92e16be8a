// RUN: partition,layout
// A convolution's output channels are cut over the cores; its weights lie where they are used, by output channel.
// CHECK: #pim.region<kernels, "w", base = {{.*}}, rows = 2, row_bytes = 1152, round = 0, cores = 0>
// CHECK-LABEL: func.func @main
func.func @main(%x: tensor<1x64x8x8xf16>, %v: tensor<64x64x3x3xf16>) -> (tensor<1x64x4x4xf16>, tensor<1x64x4x4xf16>) {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<64x64x3x3xf16>
  %b = "nn.param"() <{name = "b"}> : () -> tensor<64xf16>
  // CHECK: %[[Y:.*]] = pim.conv %{{.*}}, %{{.*}} bias %{{.*}} : tensor<64xf16> {{.*}} -> tensor<1x1024xf16, #pim.layout<1 : {{\[\[}}0, 0, 32, 32]]>>
  // CHECK-NEXT: %[[W:.*]] = pim.all_gather %[[Y]]
  // CHECK-NEXT: %{{.*}} = "nn.reshape"(%[[W]]) : (tensor<1x1024xf16>) -> tensor<1x64x4x4xf16>
  %y = "nn.conv"(%x, %w, %b) <{strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, low = array<i64: 1, 1>, high = array<i64: 1, 1>, groups = 1 : i64}> : (tensor<1x64x8x8xf16>, tensor<64x64x3x3xf16>, tensor<64xf16>) -> tensor<1x64x4x4xf16>
  // One with computed weights stays whole.
  // CHECK: "nn.conv"
  %z = "nn.conv"(%x, %v) <{strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, low = array<i64: 1, 1>, high = array<i64: 1, 1>, groups = 1 : i64}> : (tensor<1x64x8x8xf16>, tensor<64x64x3x3xf16>) -> tensor<1x64x4x4xf16>
  func.return %y, %z : tensor<1x64x4x4xf16>, tensor<1x64x4x4xf16>
}
