"""One of each nn operator: it verifies, its text is read back alike, and it has a cost and a class."""

from __future__ import annotations

import math

import pytest
from one_operator import ELEMENTS, module_of, value
from xdsl.dialects.builtin import TensorType, f16, f32
from xdsl.ir import SSAValue

from pimc.ir import nn
from pimc.ir.nn.base import Cost

X, Y = value("f32", 2, 3), value("f32", 3)
IDS, BYTES = value("i64", 2, 3), value("ui8", 2, 3)
B, W = value("i1", 2, 3), value("f32", 4, 3)
TOKENS, TABLE, POSITION = value("f16", 1, 2, 8), value("f16", 1, 2, 8), value("i32", 1)

CACHED = (nn.AttentionOp, nn.CacheReadOp, nn.CacheWriteOp)
"""These need a global; they are in test_text_and_locations.py."""

EXAMPLES: list[nn.NnOp] = [
    *(op(X) for op in nn.Nn.operations if issubclass(op, nn.UnaryOp) and not issubclass(op, nn.BitsOp)),
    *(op(X) for op in (nn.IsNanOp, nn.IsInfOp, nn.SoftmaxOp)),
    *(op(X, Y) for op in (nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp, nn.MaximumOp, nn.MinimumOp, nn.ModOp)),
    *(op(BYTES, BYTES) for op in (nn.AndOp, nn.OrOp, nn.XorOp, nn.ShiftLeftOp, nn.ShiftRightOp)),
    *(op(X, [0, 1]) for op in (nn.ReduceSumOp, nn.ReduceMeanOp, nn.ReduceMaxOp, nn.ReduceMinOp, nn.ReduceProdOp)),
    *(op(X, 1) for op in (nn.ArgMaxOp, nn.ArgMinOp, nn.CumSumOp, nn.CumProdOp)),
    nn.NotOp(B),
    nn.BitNotOp(BYTES),
    nn.PowOp(X, IDS),
    nn.CompareOp(BYTES, BYTES, "le"),
    nn.SelectOp(B, BYTES, BYTES),
    nn.CastOp(X, ELEMENTS["ui64"]),
    nn.TopKOp(X, 2, 1, False),
    nn.ReshapeOp(IDS, [6, 1]),
    nn.TransposeOp(B, [1, 0]),
    nn.SliceOp(BYTES, [1, 2], [-1, -1], [-1, -2]),
    nn.PadOp(X, [1, 0], [0, 2], "constant", -math.inf),
    nn.ConcatOp([BYTES, BYTES], 0),
    nn.BroadcastToOp(Y, [0, 3]),
    nn.ParamOp("w", TensorType(f16, [4, 3])),
    nn.ConstantOp.from_array([math.nan, 1.0], f32),
    nn.EmbeddingOp(W, value("i32", 1, 2)),
    nn.GatherOp(X, BYTES, -1),
    nn.GatherElementsOp(X, IDS, 1),
    nn.GatherNdOp(X, value("i32", 5, 2)),
    nn.ScatterElementsOp(X, IDS, X, 1, "max"),
    nn.ScatterNdOp(X, value("i32", 5, 1), value("f32", 5, 3), "add"),
    nn.PositionsOp(POSITION, 4),
    nn.IotaOp(TensorType(ELEMENTS["ui16"], [2, 3]), 1),
    nn.SelectTokenOp(TOKENS, POSITION),
    nn.LinearOp(X, W, value("f32", 4)),
    nn.MatmulOp(IDS, value("i64", 3, 2)),
    nn.ConvOp(TOKENS, value("f16", 4, 1, 3), value("f16", 4), nn.Window((2,), (1,), (1,), (0,)), 2),
    nn.MaxPoolOp(value("i64", 1, 2, 8), (3,), nn.Window((2,), (1,), (1,), (0,))),
    nn.RmsNormOp(X, Y, 1e-6),
    nn.LayerNormOp(X, Y, Y, 1e-6),
    nn.RopeOp(TOKENS, TABLE, 4),
    nn.AttentionFullOp(TOKENS, TOKENS, TOKENS, heads=2, kv_heads=2, head_dim=4, scale=0.5, causal=True),
]


def test_the_examples_are_complete() -> None:
    assert {type(op) for op in EXAMPLES} | set(CACHED) == set(nn.Nn.operations)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda op: op.name)
def test_text_cost_and_class(example: nn.NnOp) -> None:
    """``module_of`` verifies, prints, parses, and compares the texts."""

    operands = list(dict.fromkeys(example.operands))

    def build(*arguments: SSAValue) -> nn.NnOp:
        return example.clone(dict(zip(operands, arguments, strict=True)))

    module = module_of([operand.type for operand in operands], build)
    (again,) = (op for op in module.walk() if isinstance(op, nn.NnOp))
    assert type(again) is type(example)
    assert again.properties == example.properties
    assert again.result_types == example.result_types
    cost = nn.cost(example)
    assert (cost.bytes > 0) == (not isinstance(example, nn.ParamOp | nn.ConstantOp))
    assert cost.flops >= 0
    assert nn.op_class(example) in ("gemm", "gemv", "nonlinear", "layout", "memory")


def test_costs() -> None:
    """Bytes of what is read and written; of a table only the rows used."""
    assert nn.cost(nn.SinOp(X)) == Cost(6, 2 * 24)
    assert nn.cost(nn.IsNanOp(X)) == Cost(6, 24 + 6)
    assert nn.cost(nn.ModOp(IDS, IDS)) == Cost(6, 3 * 48)
    assert nn.cost(nn.ReduceMinOp(X, [1])) == Cost(6, 24 + 8)
    assert nn.cost(nn.ArgMaxOp(X, 1)) == Cost(6, 24 + 16)
    assert nn.cost(nn.CumSumOp(X, 1)) == Cost(6, 48)
    assert nn.cost(nn.TopKOp(X, 2)) == Cost(12, 24 + 16 + 32)
    assert nn.cost(nn.PadOp(X, [1, 0], [0, 0])) == Cost(0, 24 + 36)
    assert nn.cost(nn.GatherElementsOp(value("f32", 1000, 3), IDS)) == Cost(0, 48 + 2 * 24)
    assert nn.cost(nn.GatherNdOp(value("f32", 1000, 3), value("i64", 5, 1))) == Cost(0, 40 + 2 * 60)
    assert nn.cost(nn.ScatterElementsOp(X, IDS, X)) == Cost(0, 3 * 24 + 48)
    assert nn.cost(nn.CastOp(X, ELEMENTS["ui8"])) == Cost(0, 24 + 6)
