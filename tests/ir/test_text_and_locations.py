"""Text format: exact round trip, iree-opt reads it, errors with places; locations through rewrites; verifiers; cost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typing_extensions import override
from xdsl.dialects.builtin import TensorType, UnknownLoc, f16, i32
from xdsl.ir import Block, Operation
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

from pimc.diagnostics import InputError, InternalError
from pimc.ir import nn
from pimc.ir.context import make_context, parse_module, print_module, read_source
from pimc.ir.locations import (
    builder_at,
    check_locations,
    fuse_locations,
    location_text,
    missing_locations,
    rewrite_module,
    source_location,
    where,
    with_location,
)

MODULE = """"builtin.module"() ({
  ml_program.global private mutable @k_cache : tensor<2x16x1x8xf16>
  ml_program.global private mutable @v_cache : tensor<2x16x1x8xf16>
  func.func @decode(%tokens: tensor<1x1xi32> {pimc.name = "tokens"}, %position: tensor<1xi32>) -> tensor<1x1x16xf16> {
    %l = arith.constant 0 : index
    %w = "nn.param"() <{name = "embed.weight"}> : () -> tensor<32x16xf16>
    %x = "nn.embedding"(%w, %tokens) : (tensor<32x16xf16>, tensor<1x1xi32>) -> tensor<1x1x16xf16>
      loc(fused<"m">["a":1:0, "b"("c":2:3)])
    %kw = "nn.param"(%l) <{name = "layers.*.k"}> : (index) -> tensor<8x16xf16> loc(callsite("f" at "g":1:2))
    %k = "nn.linear"(%x, %kw) : (tensor<1x1x16xf16>, tensor<8x16xf16>) -> tensor<1x1x8xf16> loc("model.k":12:0)
    "nn.cache_write"(%l, %k, %position) <{cache = @k_cache}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
    "nn.cache_write"(%l, %k, %position) <{cache = @v_cache}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
    %a = "nn.attention"(%x, %l, %position) <{k = @k_cache, v = @v_cache, heads = 2 : i64, kv_heads = 1 : i64,
      head_dim = 8 : i64, scale = 0.35355338 : f32, causal = true}> {pim.reason = "a \\"why\\""}
      : (tensor<1x1x16xf16>, index, tensor<1xi32>) -> tensor<1x1x16xf16>
    %r = "nn.param"() <{name = "s"}> : () -> tensor<1x1x72xf16>
    %s = "pim.take"(%r) : (tensor<1x1x72xf16>) -> tensor<1x1x72xf16, #pim.layout<2 : [[0, 0, 32, 2], [64, 0, 8, 1]]>>
    %c = "nn.constant"() <{value = dense<[1.0, 6.1e-05]> : tensor<2xf16>}> : () -> tensor<2xf16>
    func.return %a : tensor<1x1x16xf16>
  }
}) {pimc.model = {layers = 2 : i64}} : () -> ()
"""


def test_printing_and_parsing_is_a_fixed_point() -> None:
    text = print_module(parse_module(MODULE, filename="m.mlir"))
    assert print_module(parse_module(text)) == text
    assert 'loc("m.mlir":6:5)' in text
    assert 'loc(fused["a":1:0, "b"("c":2:3)])' in text
    assert text.count("loc(") >= text.count('"nn.') + text.count('"func.')


def test_unknown_locations_stay_unknown() -> None:
    text = MODULE.replace('loc("model.k":12:0)', "loc(unknown)")
    module = parse_module(text)
    assert [op.name for op in missing_locations(module)] == ["nn.linear"]
    with pytest.raises(InternalError, match=r"1 operation.* nn\.linear"):
        check_locations(module)
    assert print_module(parse_module(print_module(module))) == print_module(module)
    check_locations(parse_module(MODULE))


def test_mlir_tools_read_our_dumps(tmp_path: Path, iree_opt: str) -> None:
    path = tmp_path / "m.mlir"
    path.write_text(print_module(parse_module(MODULE)))
    command = [iree_opt, "--allow-unregistered-dialect", "--mlir-print-op-generic", "--mlir-print-debuginfo"]
    done = subprocess.run(
        [*command, "--mlir-print-local-scope", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    again = parse_module(done.stdout)
    names = [op.name for op in again.walk()]
    assert names == [op.name for op in parse_module(MODULE).walk()]
    locations = [location_text(op.location) for op in again.walk() if op.name == "nn.linear"]
    assert locations == ["model.k:12"]


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("tensor<32x16xf16>, tensor<1x1xi32>)", "tensor<32x16xf16>)", "m.mlir:7:", "expected 1 operand types"),
        ("nn.linear", "nn.linaer", "m.mlir:10:", "not registered"),
        ("tensor<8x16xf16>", "tensor<8x15xf16>", "m.mlir:10:5", "weight must have shape [?]x16, is 8x15"),
        ("k = @k_cache", "k = @kk", "m.mlir:13:5", "no ml_program.global @kk"),
        ("mutable @k_cache", "@k_cache", "m.mlir:11:5", "@k_cache must be mutable"),
        ("tensor<1x1x8xf16>, tensor<1xi32>)", "tensor<1x1x8xf16>, tensor<2xi32>)", "m.mlir", "position|operand"),
        ("layers.*.k", "layers.0.k", "m.mlir:9:5", "has 0 '[*]' and 1 layer"),
        ("heads = 2", "heads = 3", "m.mlir:13:5", "q must have shape"),
    ],
)
def test_errors_have_a_place(old: str, new: str, place: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as info:
        parse_module(MODULE.replace(old, new), filename="m.mlir")
    assert str(info.value.where).startswith(place)


@pytest.mark.parametrize("text", ["foo", '"a.b"()', "{", "func.func @f() {", '"nn.param"() : () -> !x.y', "\x00"])
def test_what_is_no_module_is_an_input_error(text: str) -> None:
    with pytest.raises(InputError):
        parse_module(text)


def test_read_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_source(tmp_path / "none.mlir")
    path = tmp_path / "m.mlir"
    path.write_text(MODULE)
    assert read_source(path, make_context())[0].body.block.first_op is not None


def test_fusing_and_writing_of_locations() -> None:
    a, b = source_location("a", 3, 4), source_location("b")
    assert fuse_locations([a, UnknownLoc(), a]) == a
    both = fuse_locations([a, fuse_locations([b, a]), UnknownLoc()])
    assert location_text(both) == "a:3:4, b"
    assert fuse_locations([]) == UnknownLoc()


class SplitSilu(RewritePattern):
    """x * sigmoid(x) for silu(x)."""

    @override
    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if isinstance(op, nn.SiluOp):
            sigmoid = nn.SigmoidOp(op.x)
            rewriter.replace(op, [sigmoid, nn.MulOp(op.x, sigmoid)])


def test_rewrites_and_builders_hand_locations_on() -> None:
    module = parse_module(
        """func.func @main(%x: tensor<4xf16>) -> tensor<4xf16> {
          %a = "nn.silu"(%x) : (tensor<4xf16>) -> tensor<4xf16> loc("model.act":7:0)
          func.return %a : tensor<4xf16>
        }"""
    )
    assert rewrite_module(module, SplitSilu())
    found = [op for op in module.walk() if isinstance(op, nn.NnOp)]
    assert [(op.name, where(op)) for op in found] == [("nn.sigmoid", "model.act:7"), ("nn.mul", "model.act:7")]
    new = builder_at(InsertPoint.after(found[1]), found[1]).insert(nn.NegOp(found[1]))
    assert where(new) == "model.act:7"
    other = with_location(nn.NegOp(found[1]), [found[0], found[1]])
    assert where(other) == "model.act:7"


def value(*shape: int) -> Block:
    return Block(arg_types=[TensorType(f16, shape)])


def test_constructors_refuse_what_does_not_fit() -> None:
    x, ids = value(1, 2, 8).args[0], Block(arg_types=[TensorType(i32, [1, 2])]).args[0]
    cases = [
        (lambda: nn.LinearOp(x, value(4, 7).args[0]), r"weight must have shape \?x8, is 4x7"),
        (lambda: nn.AddOp(x, value(3).args[0]), "do not broadcast: 1x2x8, 3"),
        (lambda: nn.AddOp(x, ids), "element types differ"),
        (lambda: nn.SiluOp(ids), "must hold floats, holds i32"),
        (lambda: nn.EmbeddingOp(x, ids), r"table must have shape \?x\?"),
        (lambda: nn.SoftmaxOp(x, 3), "axis 3 is out of range for rank 3"),
        (lambda: nn.TransposeOp(x, [0, 0, 1]), "no permutation"),
        (lambda: nn.SliceOp(x, [0, 0, 0], [1, 3, 8]), "no slice of dimension 1 with 2 elements"),
        (lambda: nn.ConcatOp([x, value(1, 2, 9).args[0]], 1), "operand 1 has shape 1x2x9"),
        (lambda: nn.GeluOp(x, "sigmoid"), "approximate"),
        (lambda: nn.RopeOp(x, x, 3), "head_dim must be even"),
        (lambda: nn.ReduceSumOp(x, [0, 0]), "named twice"),
        (lambda: nn.CompareOp(x, x, "approximately"), "not one of eq"),
    ]
    for build, message in cases:
        with pytest.raises(VerifyException, match=message):
            build()
    assert not list(x.uses)


def test_reshape_and_cast_verify_their_result() -> None:
    x = value(1, 2, 8).args[0]
    with pytest.raises(VerifyException, match="differ in elements"):
        nn.ReshapeOp(x, [3, 5]).verify()
    nn.ReshapeOp(x, [16]).verify()


def test_cost_and_class() -> None:
    one, many = value(1, 1, 64).args[0], value(1, 8, 64).args[0]
    weight = nn.ParamOp("w", TensorType(f16, [32, 64]))
    gemv, gemm = nn.LinearOp(one, weight), nn.LinearOp(many, weight)
    assert (nn.op_class(gemv), nn.op_class(gemm)) == ("gemv", "gemm")
    assert nn.flops(gemv) == 2 * 32 * 64
    assert nn.bytes_moved(gemm) == 2 * (8 * 64 + 32 * 64 + 8 * 32)
    assert nn.cost(weight) == nn.Cost(0, 0)
    assert nn.cost(gemv).intensity == pytest.approx(4096 / 4288)
    table = nn.ParamOp("t", TensorType(f16, [1000, 64]))
    ids = Block(arg_types=[TensorType(i32, [1, 2])]).args[0]
    assert nn.bytes_moved(nn.EmbeddingOp(table, ids)) == 8 + 2 * 2 * 128
    attention = next(op for op in parse_module(MODULE).walk() if isinstance(op, nn.AttentionOp))
    assert nn.flops(attention, 4) == 2 * 4 * (4 * 8 + 5)
    assert nn.flops(attention) == nn.flops(attention, 16)
