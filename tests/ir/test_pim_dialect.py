"""The pim dialect: text round trip, verifiers, records of its attributes."""

from __future__ import annotations

import numpy as np
import pytest

from pimc.diagnostics import InputError
from pimc.ir import pim
from pimc.ir.bank_layout import GemvLayout, TileGeometry
from pimc.ir.context import parse_module, print_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.pim import Piece, ShardAttr, ShardRound

CUT = "tensor<1x1x64xf16, #pim.layout<2 : [[0, 0, 32, 2]]>>"
MODULE = f"""
ml_program.global private mutable @k : tensor<2x8x4x16xf16>
ml_program.global private mutable @v : tensor<2x8x4x16xf16>
func.func @f(%x: tensor<1x1x64xf16>, %w: tensor<64x64xf16>, %b: tensor<64xf16>, %l: index,
    %p: tensor<1xi32>) -> {CUT} {{
  %q, %k = pim.gemv %x, [%w, %w] bias[%b : tensor<64xf16>] {{bias_of = array<i64: 1>}} : tensor<1x1x64xf16>,
    [tensor<64x64xf16>, tensor<64x64xf16>] -> {CUT}, {CUT}
  %g = pim.all_gather %k : {CUT} -> tensor<1x1x64xf16>
  pim.kv_append %g, %g, %l, %p {{k = @k, v = @v, rounds = #pim.heads<[[0, 4, 8]]>}} : tensor<1x1x64xf16>,
    tensor<1x1x64xf16>, tensor<1xi32>
  %t, %y = pim.async "hbm" -> tensor<1x1x64xf16> {{
    pim.yield %g : tensor<1x1x64xf16>
  }}
  %u = pim.async "vcu" after %t {{
    pim.yield
  }}
  pim.await %t, %u
  %a = pim.attention %y, %l, %p {{k = @k, v = @v, heads = 4 : i64, kv_heads = 4 : i64, head_dim = 16 : i64,
    scale = 0.25 : f32, causal = true, rounds = #pim.heads<[[0, 4, 8]]>}} : tensor<1x1x64xf16>, tensor<1xi32> -> {CUT}
  func.return %a : {CUT}
}}
"""


def test_text_round_trip() -> None:
    module = parse_module(MODULE)
    custom = str(module)
    assert str(parse_module(custom)) == custom
    generic = print_module(module)
    assert print_module(parse_module(generic)) == generic
    op = next(op for op in module.walk() if isinstance(op, pim.GemvOp))
    assert op.bias(0) is None
    assert op.bias(1) is op.biases[0]
    assert op.local_offsets == (0, 2, 4)


def test_attribute_texts_round_trip() -> None:
    layout = GemvLayout(TileGeometry(4, 16, 32, 16, 32, 32), 576, 18, 2, 7, 12)
    attribute = pim.GemvLayoutAttr.of(layout)
    assert attribute.layout == layout
    region = '#pim.region<cache, "k", base = 0, size = 64, layer_stride = 64, layers = 2, first_layer = 0, rows = 2, '
    text = f"builtin.module attributes {{a = {attribute}, b = {region}row_bytes = 32, round = 1, cores = 2>}} {{}}"
    assert str(parse_module(str(parse_module(text)))) == str(parse_module(text))


def test_pieces_of_a_core() -> None:
    shard = ShardAttr.of([ShardRound(0, 0, 32, 16), ShardRound(512, 0, 32, 2)])
    assert shard.pieces(0, 576) == (Piece(0, 0, 16), Piece(16, 512, 514))
    assert shard.pieces(31, 576) == (Piece(0, 496, 512), Piece(16, 574, 576))
    clipped = ShardAttr.of([ShardRound(0, 0, 3, 4)])
    assert clipped.pieces(2, 9) == (Piece(0, 8, 9),)
    assert clipped.local_size(2) == 4
    assert clipped.pieces(3, 9) == ()


def test_async_runs_and_attention_attends() -> None:
    module = parse_module(MODULE)
    x = np.random.default_rng(0).random((1, 1, 64), np.float32)
    inputs = [x, np.eye(64), np.ones(64), 1, [0]]
    result = Interpreter(module, None, "f32").call("f", {f"arg{i}": v for i, v in enumerate(inputs)})
    np.testing.assert_allclose(result["result0"], x + 1, rtol=1e-6)  # one slot: attention gives its value


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[[0, 0, 32, 2]]", "[[0, 0, 16, 2]]", "does not cover"),
        ("[[0, 0, 32, 2]]", "[[0, 0, 32]]", "not a shard round"),
        ("[[0, 0, 32, 2]]", "[[0, 0, 16, 2], [32, 8, 32, 1]]", "begins at different places"),
        ("array<i64: 1>", "array<i64: 2>", "does not fit weight 2"),
        ("heads<[[0, 4, 8]]>", "heads<[[0, 2, 8]]>", "cover 2 of 4 heads"),
        ("kv_heads = 4 : i64", "kv_heads = 3 : i64", "evenly"),
    ],
)
def test_verifiers(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_module(MODULE.replace(old, new))
