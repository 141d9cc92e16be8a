// RUN: raise
// One product whose parts are used alone, on flattened tokens; and the last token before what works by token.
// CHECK-LABEL: func.func @parts
// CHECK: %[[W:.*]] = "nn.param"() <{name = "w[0:8]"}> : () -> tensor<8x16xf16>
// CHECK: %[[B:.*]] = "nn.param"() <{name = "b[0:8]"}> : () -> tensor<8xf16>
// CHECK: "nn.linear"(%x, %[[W]], %[[B]]) : (tensor<1x4x16xf16>, tensor<8x16xf16>, tensor<8xf16>) -> tensor<1x4x8xf16>
// CHECK: "nn.param"() <{name = "w[8:24]"}> : () -> tensor<16x16xf16>
// CHECK-NOT: nn.reshape
// CHECK-NOT: nn.slice
func.func @parts(%x: tensor<1x4x16xf32>) -> (tensor<1x4x8xf32>, tensor<1x4x16xf32>) {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<24x16xf32>
  %b = "nn.param"() <{name = "b"}> : () -> tensor<24xf32>
  %flat = "nn.reshape"(%x) : (tensor<1x4x16xf32>) -> tensor<4x16xf32>
  %product = "nn.linear"(%flat, %w) : (tensor<4x16xf32>, tensor<24x16xf32>) -> tensor<4x24xf32>
  %biased = "nn.add"(%product, %b) : (tensor<4x24xf32>, tensor<24xf32>) -> tensor<4x24xf32>
  %back = "nn.reshape"(%biased) : (tensor<4x24xf32>) -> tensor<1x4x24xf32>
  %one = "nn.slice"(%back) <{starts = array<i64: 0, 0, 0>, stops = array<i64: 1, 4, 8>, steps = array<i64: 1, 1, 1>}> : (tensor<1x4x24xf32>) -> tensor<1x4x8xf32>
  %two = "nn.slice"(%back) <{starts = array<i64: 0, 0, 8>, stops = array<i64: 1, 4, 24>, steps = array<i64: 1, 1, 1>}> : (tensor<1x4x24xf32>) -> tensor<1x4x16xf32>
  func.return %one, %two : tensor<1x4x8xf32>, tensor<1x4x16xf32>
}
// CHECK-LABEL: func.func @last_token
// CHECK: %[[T:.*]] = "nn.select_token"(%x, %length) : (tensor<1x4x16xf16>, tensor<1xi32>) -> tensor<1x1x16xf16>
// CHECK-NEXT: %[[N:.*]] = "nn.rms_norm"(%[[T]], %{{.*}}) {{.*}} -> tensor<1x1x16xf16>
// CHECK-NEXT: func.return %[[N]]
func.func @last_token(%x: tensor<1x4x16xf32>, %length: tensor<1xi32>) -> tensor<1x1x16xf32> {
  %w = "nn.param"() <{name = "w"}> : () -> tensor<16xf32>
  %one = "nn.constant"() <{value = dense<1> : tensor<i32>}> : () -> tensor<i32>
  %n = "nn.rms_norm"(%x, %w) <{eps = 1.0e-5 : f32}> : (tensor<1x4x16xf32>, tensor<16xf32>) -> tensor<1x4x16xf32>
  %index = "nn.sub"(%length, %one) : (tensor<1xi32>, tensor<i32>) -> tensor<1xi32>
  %y = "nn.gather"(%n, %index) <{axis = 1 : i64}> : (tensor<1x4x16xf32>, tensor<1xi32>) -> tensor<1x1x16xf32>
  func.return %y : tensor<1x1x16xf32>
}
