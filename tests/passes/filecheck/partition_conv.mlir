// RUN: partition,layout
// A convolution is cut over the cores where it is estimated fastest: one of few rows by output channels, whose weights
// lie where they are used; one of many rows by them, each core with the rows around its own that the window reaches
// (the parts overlap), and with all weights.  An input that is large is cut where it comes in.
// CHECK-DAG: #pim.region<kernels, "w", base = {{.*}}, rows = 2, row_bytes = 1152, round = 0, cores = 0>
// CHECK-DAG: #pim.region<all_kernels, "u", base = {{.*}}, rows = 64, row_bytes = 1152, round = 0, cores = 0>
// CHECK-LABEL: func.func @main
// CHECK-SAME: tensor<1x64x56x56xf16, #pim.layout<1 : {{\[\[}}0, 0, 32, 2]]>>
func.func @main(%x: tensor<1x64x8x8xf16>, %v: tensor<64x64x3x3xf16>, %large: tensor<1x64x56x56xf16>) -> (tensor<1x64x4x4xf16>, tensor<1x64x4x4xf16>, tensor<1x64x28x28xf16>) {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<64x64x3x3xf16>
  %u = "nn.param"() <{name = "u"}> : () -> tensor<64x64x3x3xf16>
  %b = "nn.param"() <{name = "b"}> : () -> tensor<64xf16>
  // CHECK: pim.conv %{{.*}}, %{{.*}} bias %{{.*}} : tensor<64xf16> {{.*}}2 of 64 output channels a core{{.*}} : tensor<1x64x8x8xf16>, {{.*}} -> tensor<1x64x4x4xf16, #pim.layout<1 : {{\[\[}}0, 0, 32, 2]]>>
  %y = "nn.conv"(%x, %w, %b) <{strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, low = array<i64: 1, 1>, high = array<i64: 1, 1>, groups = 1 : i64}> : (tensor<1x64x8x8xf16>, tensor<64x64x3x3xf16>, tensor<64xf16>) -> tensor<1x64x4x4xf16>
  // One with computed weights stays whole.
  // CHECK: "nn.conv"
  %z = "nn.conv"(%x, %v) <{strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, low = array<i64: 1, 1>, high = array<i64: 1, 1>, groups = 1 : i64}> : (tensor<1x64x8x8xf16>, tensor<64x64x3x3xf16>) -> tensor<1x64x4x4xf16>
  // CHECK: %[[C:.*]] = pim.conv %{{.*}} : tensor<1x64x56x56xf16, #pim.layout<2 : {{\[\[}}-1, 0, 28, 4, 1, 1, 2]]>>, {{.*}} -> tensor<1x64x56x56xf16, #pim.layout<2 : {{\[\[}}0, 0, 28, 2]]>>
  // CHECK-NEXT: %[[H:.*]] = pim.all_to_all %[[C]] : tensor<1x64x56x56xf16, #pim.layout<2 : {{\[\[}}0, 0, 28, 2]]>> -> tensor<1x64x56x56xf16, #pim.layout<2 : {{\[\[}}-1, 0, 28, 3, 1, 1, 2]]>>
  // CHECK-NEXT: "nn.max_pool"(%[[H]]) {{.*}} -> tensor<1x64x28x28xf16, #pim.layout<2 : {{\[\[}}0, 0, 28, 1]]>>
  %c = "nn.conv"(%large, %u) <{strides = array<i64: 1, 1>, dilations = array<i64: 1, 1>, low = array<i64: 1, 1>, high = array<i64: 1, 1>, groups = 1 : i64}> : (tensor<1x64x56x56xf16>, tensor<64x64x3x3xf16>) -> tensor<1x64x56x56xf16>
  %p = "nn.max_pool"(%c) <{places = array<i64: 3, 3>, strides = array<i64: 2, 2>, dilations = array<i64: 1, 1>, low = array<i64: 1, 1>, high = array<i64: 0, 0>}> : (tensor<1x64x56x56xf16>) -> tensor<1x64x28x28xf16>
  func.return %y, %z, %p : tensor<1x64x4x4xf16>, tensor<1x64x4x4xf16>, tensor<1x64x28x28xf16>
}
