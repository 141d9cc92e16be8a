// Work that needed the results of one product was moved before another's await, and with that before its own.
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x1x32xf32>, tensor<1x1x32xf32>) -> (tensor<1x32xf32>, tensor<1x32xf32>, tensor<1x1x32xf32>)}> ({
  ^bb0(%0: tensor<1x1x32xf32> loc(unknown), %1: tensor<1x1x32xf32> loc(unknown)):
    %2 = "nn.param"() <{name = "w.8.w"}> : () -> tensor<1x32xf32> loc("test.py":1:0)
    %3 = "nn.param"() <{name = "w.9.w"}> : () -> tensor<32x32xf32> loc("test.py":1:0)
    %4 = "nn.linear"(%2, %3) : (tensor<1x32xf32>, tensor<32x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %5 = "nn.cos"(%4) : (tensor<1x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %6 = "nn.atan"(%5) : (tensor<1x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %7 = "nn.add"(%2, %6) : (tensor<1x32xf32>, tensor<1x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %8 = "nn.param"() <{name = "w.14.w"}> : () -> tensor<32x32xf32> loc("test.py":1:0)
    %9 = "nn.linear"(%7, %8) : (tensor<1x32xf32>, tensor<32x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %10 = "nn.cos"(%9) : (tensor<1x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %11 = "nn.atan"(%10) : (tensor<1x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %12 = "nn.add"(%7, %11) : (tensor<1x32xf32>, tensor<1x32xf32>) -> tensor<1x32xf32> loc("test.py":1:0)
    %13 = "nn.param"() <{name = "w.22.w"}> : () -> tensor<8x32xf32> loc("test.py":1:0)
    %14 = "nn.linear"(%0, %13) : (tensor<1x1x32xf32>, tensor<8x32xf32>) -> tensor<1x1x8xf32> loc("test.py":1:0)
    %15 = "nn.param"() <{name = "w.24.w"}> : () -> tensor<8x32xf32> loc("test.py":1:0)
    %16 = "nn.linear"(%0, %15) : (tensor<1x1x32xf32>, tensor<8x32xf32>) -> tensor<1x1x8xf32> loc("test.py":1:0)
    %17 = "nn.attention_full"(%1, %14, %16) <{heads = 4 : i64, kv_heads = 1 : i64, head_dim = 8 : i64, scale = 0.353553385 : f32, causal = false}> : (tensor<1x1x32xf32>, tensor<1x1x8xf32>, tensor<1x1x8xf32>) -> tensor<1x1x32xf32> loc("test.py":1:0)
    "func.return"(%10, %12, %17) : (tensor<1x32xf32>, tensor<1x32xf32>, tensor<1x1x32xf32>) -> () loc("test.py":1:0)
  }) : () -> () loc("test.py":1:0)
}) : () -> () loc("test.py":1:0)
