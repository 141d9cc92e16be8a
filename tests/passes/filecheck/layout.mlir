// RUN: partition,layout{ksplit=4}
// CHECK: pim.memory = {tiles = 32 : i64, gemv = [{weights = ["head"]
// CHECK-SAME: #pim.region<rows, "embed", base = 0, size = 512,
// CHECK-SAME: image_rows = 2 : i64, rows = 2 : i64
// CHECK-LABEL: func.func @f
func.func @f(%ids: tensor<1x1xi32>) -> tensor<1x1x100xf16> {
  // CHECK: "nn.param"() <{name = "embed"}> {pim.region = [#pim.region<rows, "embed"
  %t = "nn.param"() <{name = "embed"}> : () -> tensor<100x64xf16>
  %x = "nn.embedding"(%t, %ids) : (tensor<100x64xf16>, tensor<1x1xi32>) -> tensor<1x1x64xf16>
  %w = "nn.param"() <{name = "head"}> : () -> tensor<100x64xf16>
  // CHECK: pim.gemv {{.*}}layout = #pim.gemv_layout<k = 64, n_local = 4, ksplit = 4, row_base = 1, row_stride = 0
  %y = "nn.linear"(%x, %w) : (tensor<1x1x64xf16>, tensor<100x64xf16>) -> tensor<1x1x100xf16>
  func.return %y : tensor<1x1x100xf16>
}
