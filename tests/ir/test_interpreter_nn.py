"""Every nn operator against torch or a formula; state, freeing and errors of the interpreter."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from xdsl.dialects.builtin import ModuleOp, TensorType, f16, f32, i1, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.context import parse_module
from pimc.ir.interpreter import Interpreter, Precision
from pimc.ir.weights import InMemoryWeights

Array = npt.NDArray[Any]
Reference = Callable[..., Any]
RNG = np.random.default_rng(7)
F = torch.nn.functional


def half(*shape: int, low: float = -2.0, high: float = 2.0) -> Array:
    """fp16 numbers held as float32."""
    return RNG.uniform(low, high, shape).astype(np.float16).astype(np.float32)


def element(array: Array) -> Attribute:
    return {"f": f16, "i": i32, "b": i1}[array.dtype.kind]


def run(build: Callable[..., Operation], *inputs: Array, precision: Precision = "f32") -> Array:
    """Build a one-operator function over ``inputs`` and run it."""
    types = [TensorType(element(array), array.shape) for array in inputs]
    block = Block(arg_types=types)
    op = build(*block.args)
    block.add_ops([op, ReturnOp(op.results[0])])
    function = FuncOp("main", (types, [op.results[0].type]), Region(block))
    module = ModuleOp([function])
    module.verify()
    result = Interpreter(module, precision=precision).call("main", {f"arg{i}": array for i, array in enumerate(inputs)})
    return result["result0"]


def t(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


UNARY: list[tuple[Callable[[SSAValue], Operation], Callable[[torch.Tensor], torch.Tensor], float]] = [
    (nn.SiluOp, F.silu, -8),
    (nn.GeluOp, F.gelu, -8),
    (lambda x: nn.GeluOp(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"), -8),
    (nn.ReluOp, F.relu, -8),
    (nn.TanhOp, torch.tanh, -8),
    (nn.SigmoidOp, torch.sigmoid, -8),
    (nn.ExpOp, torch.exp, -8),
    (nn.LogOp, torch.log, 0.01),
    (nn.ErfOp, torch.erf, -8),
    (nn.SqrtOp, torch.sqrt, 0),
    (nn.RsqrtOp, torch.rsqrt, 0.01),
    (nn.NegOp, torch.neg, -8),
    (nn.AbsOp, torch.abs, -8),
    (nn.RecipOp, torch.reciprocal, 0.01),
]


@pytest.mark.parametrize(("build", "reference", "low"), UNARY)
def test_unary(build: Callable[[SSAValue], Operation], reference: Reference, low: float) -> None:
    x = half(1, 3, 50, low=low, high=8)
    expected = reference(t(x)).numpy()
    np.testing.assert_allclose(run(build, x), expected, rtol=2e-5, atol=2e-6)
    rounded = run(build, x, precision="f16")
    assert rounded.dtype == np.float16
    np.testing.assert_allclose(rounded.astype(np.float32), expected, rtol=2**-10, atol=1e-6)


BINARY = [
    (nn.AddOp, torch.add),
    (nn.SubOp, torch.sub),
    (nn.MulOp, torch.mul),
    (nn.DivOp, torch.div),
    (nn.MaximumOp, torch.maximum),
    (nn.MinimumOp, torch.minimum),
    (nn.PowOp, torch.pow),
]


@pytest.mark.parametrize(("build", "reference"), BINARY)
def test_binary_broadcasts(build: Callable[..., Operation], reference: Reference) -> None:
    a, b = half(1, 4, 6, low=0.1), half(6, low=0.1)
    np.testing.assert_allclose(run(build, a, b), reference(t(a), t(b).expand(1, 4, 6)).numpy(), rtol=1e-5)


def test_integer_division_is_towards_zero() -> None:
    a, b = np.array([7, -7, 7, -7], np.int32), np.array([2, 2, -2, -2], np.int32)
    assert run(nn.DivOp, a, b).tolist() == [3, -3, -3, 3]


@pytest.mark.parametrize("predicate", nn.PREDICATES)
def test_compare(predicate: str) -> None:
    a, b = np.array([1, 2, 3], np.int32), np.array([2, 2, 2], np.int32)
    expected = getattr(torch, predicate)(t(a), t(b)).numpy()
    np.testing.assert_array_equal(run(lambda x, y: nn.CompareOp(x, y, predicate), a, b), expected)


def test_select_and_cast() -> None:
    condition, a, b = np.array([True, False]), half(3, 2), half(2)
    np.testing.assert_array_equal(run(nn.SelectOp, condition, a, b), np.where(condition, a, b))
    x = np.array([1.75, -1.75, 0.0], np.float32)
    assert run(lambda v: nn.CastOp(v, i32), x).tolist() == [1, -1, 0]
    assert run(lambda v: nn.CastOp(v, i1), x).tolist() == [True, True, False]
    assert run(lambda v: nn.CastOp(v, f32), x, precision="f16").dtype == np.float32


def test_linear_and_matmul() -> None:
    x, w, b = half(1, 5, 24), half(7, 24), half(7)
    np.testing.assert_allclose(run(nn.LinearOp, x, w, b), F.linear(t(x), t(w), t(b)).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(nn.LinearOp, x, w), F.linear(t(x), t(w)).numpy(), rtol=1e-4, atol=1e-5)
    a, c = half(2, 1, 3, 8), half(4, 8, 5)
    np.testing.assert_allclose(run(nn.MatmulOp, a, c), (t(a) @ t(c)).numpy(), rtol=1e-4, atol=1e-5)


def test_norms_and_softmax() -> None:
    x, w, b = half(1, 4, 32), half(32), half(32)
    expected = F.rms_norm(t(x), (32,), t(w), 1e-5).numpy()
    np.testing.assert_allclose(run(lambda a, c: nn.RmsNormOp(a, c, 1e-5), x, w), expected, rtol=1e-5, atol=1e-6)
    expected = F.layer_norm(t(x), (32,), t(w), t(b), 1e-12).numpy()
    got = run(lambda a, c, d: nn.LayerNormOp(a, c, d, 1e-12), x, w, b)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    got = run(lambda a, c: nn.LayerNormOp(a, c, None, 1e-12), x, w)
    np.testing.assert_allclose(got, F.layer_norm(t(x), (32,), t(w), None, 1e-12).numpy(), rtol=1e-4, atol=1e-5)
    for axis in (-1, 1):
        got = run(lambda a, axis=axis: nn.SoftmaxOp(a, axis), x)
        np.testing.assert_allclose(got, torch.softmax(t(x), axis).numpy(), rtol=1e-5, atol=1e-7)


def test_shape_operators() -> None:
    x = half(2, 3, 8)
    np.testing.assert_array_equal(run(lambda a: nn.ReshapeOp(a, [6, 8]), x), x.reshape(6, 8))
    np.testing.assert_array_equal(run(lambda a: nn.TransposeOp(a, [2, 0, 1]), x), x.transpose(2, 0, 1))
    got = run(lambda a: nn.SliceOp(a, [0, 1, 1], [2, 3, 8], [1, 1, 3]), x)
    np.testing.assert_array_equal(got, x[0:2, 1:3, 1:8:3])
    np.testing.assert_array_equal(run(lambda a: nn.ConcatOp([a, a], -1), x), np.concatenate([x, x], -1))
    y = half(3, 1)
    np.testing.assert_array_equal(run(lambda a: nn.BroadcastToOp(a, [2, 3, 4]), y), np.broadcast_to(y, (2, 3, 4)))


@pytest.mark.parametrize(
    ("build", "reference"),
    [(nn.ReduceSumOp, np.sum), (nn.ReduceMeanOp, np.mean), (nn.ReduceMaxOp, np.max)],
)
def test_reductions(build: Callable[..., Operation], reference: Reference) -> None:
    x = half(2, 3, 8)
    for axes, keep in (((-1,), False), ((0, 2), True)):
        got = run(lambda a, axes=axes, keep=keep: build(a, axes, keep), x)
        np.testing.assert_allclose(got, reference(x, axis=axes, keepdims=keep), rtol=1e-5)


def test_sources() -> None:
    table, ids = half(10, 4), np.array([[3, 9]], np.int32)
    np.testing.assert_array_equal(run(nn.EmbeddingOp, table, ids), table[ids])
    got = run(lambda a, b: nn.GatherOp(a, b, 1), table, ids % 4)
    np.testing.assert_array_equal(got, np.take(table, ids % 4, 1))
    assert run(lambda p: nn.PositionsOp(p, 3), np.array([5], np.int32)).tolist() == [[5, 6, 7]]
    assert run(lambda p: nn.IotaOp(TensorType(i32, [2, 3]), 1), ids).tolist() == [[0, 1, 2], [0, 1, 2]]
    x = half(1, 4, 6)
    np.testing.assert_array_equal(run(nn.SelectTokenOp, x, np.array([3], np.int32)), x[:, 2:3])
    got = run(lambda p: nn.ConstantOp.from_array([[1.5, 2.0]], f16), ids, precision="f16")
    assert got.tolist() == [[1.5, 2.0]]


def test_ids_out_of_range_are_an_error() -> None:
    with pytest.raises(InputError, match=r"id 10 is out of range \[0, 10\)"):
        run(nn.EmbeddingOp, half(10, 4), np.array([[10]], np.int32))
    with pytest.raises(InputError, match="token 4 is out of range"):
        run(nn.SelectTokenOp, half(1, 4, 6), np.array([5], np.int32))


def rope_table(positions: int, size: int) -> Array:
    angles = np.outer(np.arange(positions), 1 / 10000 ** (np.arange(0, size, 2) / size))
    both = np.concatenate([angles, angles], -1)
    return np.concatenate([np.cos(both), np.sin(both)], -1).astype(np.float16).astype(np.float32)


def test_rope_is_a_rotation_of_pairs() -> None:
    x, table = half(1, 3, 2 * 8), rope_table(3, 8)[None]
    got = run(lambda a, b: nn.RopeOp(a, b, 8), x, table).reshape(3, 2, 8)
    heads = x.reshape(3, 2, 8)
    pairs = heads[..., :4] + 1j * heads[..., 4:]
    expected = pairs * (table[0, :, :4] + 1j * table[0, :, 8:12])[:, None]
    np.testing.assert_allclose(got[..., :4], expected.real, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[..., 4:], expected.imag, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_full(causal: bool, masked: bool) -> None:
    q, k, v, mask = half(1, 5, 4 * 8), half(1, 5, 2 * 8), half(1, 5, 2 * 8), half(1, 1, 1, 5)
    inputs: Sequence[Array] = (q, k, v, mask) if masked else (q, k, v)
    got = run(lambda *a: nn.AttentionFullOp(*a, heads=4, kv_heads=2, head_dim=8, scale=0.25, causal=causal), *inputs)
    bias = torch.from_numpy(np.broadcast_to(mask, (1, 4, 5, 5)).copy()) if masked else torch.zeros(1, 4, 5, 5)
    if causal:
        bias = bias + torch.full((5, 5), -torch.inf).triu(1)
    tq, tk, tv = (t(a).reshape(1, 5, -1, 8).transpose(1, 2) for a in (q, k, v))
    expected = F.scaled_dot_product_attention(tq, tk, tv, bias, scale=0.25, enable_gqa=True)
    np.testing.assert_allclose(got, expected.transpose(1, 2).reshape(1, 5, 32).numpy(), rtol=1e-4, atol=1e-5)


CACHED = """
"builtin.module"() ({
  ml_program.global private mutable @k : tensor<3x8x2x4xf16>
  ml_program.global private mutable @v : tensor<3x8x2x4xf16>
  func.func @step(%q: tensor<1xMx16xf16> {pimc.name = "q"}, %k: tensor<1xMx8xf16> {pimc.name = "k"},
                  %v: tensor<1xMx8xf16> {pimc.name = "v"}, %position: tensor<1xi32> {pimc.name = "position"})
      -> (tensor<1xMx16xf16> {pimc.name = "out"}) {
    %layer = arith.constant 1 : index
    "nn.cache_write"(%layer, %k, %position) <{cache = @k}> : (index, tensor<1xMx8xf16>, tensor<1xi32>) -> ()
    "nn.cache_write"(%layer, %v, %position) <{cache = @v}> : (index, tensor<1xMx8xf16>, tensor<1xi32>) -> ()
    %o = "nn.attention"(%q, %layer, %position) <{k = @k, v = @v, heads = 4 : i64, kv_heads = 2 : i64,
      head_dim = 4 : i64, scale = 5.0e-01 : f32, causal = true}>
      : (tensor<1xMx16xf16>, index, tensor<1xi32>) -> tensor<1xMx16xf16>
    func.return %o : tensor<1xMx16xf16>
  }
}) : () -> ()
"""


def test_cached_attention_token_by_token_equals_one_chunk_and_torch() -> None:
    q, k, v = half(1, 6, 16), half(1, 6, 8), half(1, 6, 8)
    whole = Interpreter(parse_module(CACHED.replace("xMx", "x6x")), precision="f32")
    chunk = whole.call("step", {"q": q, "k": k, "v": v, "position": np.array([0])})["out"]
    single = Interpreter(parse_module(CACHED.replace("xMx", "x1x")), precision="f32")
    rows = [
        single.call("step", {"q": q[:, i : i + 1], "k": k[:, i : i + 1], "v": v[:, i : i + 1], "position": [i]})["out"]
        for i in range(6)
    ]
    np.testing.assert_allclose(np.concatenate(rows, 1), chunk, rtol=1e-5, atol=1e-6)
    tq, tk, tv = (t(a).reshape(1, 6, -1, 4).transpose(1, 2) for a in (q, k, v))
    expected = F.scaled_dot_product_attention(tq, tk, tv, is_causal=True, scale=0.5, enable_gqa=True)
    np.testing.assert_allclose(chunk, expected.transpose(1, 2).reshape(1, 6, 16).numpy(), rtol=1e-4, atol=1e-5)
    assert not single.state["k"][0].any()
    single.reset()
    assert not single.state["k"].any()
    with pytest.raises(InputError, match="outside a cache"):
        single.call("step", {"q": q[:, :1], "k": k[:, :1], "v": v[:, :1], "position": [8]})


LOOP = """
"builtin.module"() ({
  func.func @layer(%layer: index, %x: tensor<1x1x4xf16>) -> tensor<1x1x4xf16> {
    %w = "nn.param"(%layer) <{name = "layers.*.w"}> : (index) -> tensor<4x4xf16>
    %y = "nn.linear"(%x, %w) : (tensor<1x1x4xf16>, tensor<4x4xf16>) -> tensor<1x1x4xf16>
    func.return %y : tensor<1x1x4xf16>
  }
  func.func @main(%x: tensor<1x1x4xf16> {pimc.name = "x"}) -> tensor<1x1x4xf16> {
    %zero = arith.constant 0 : index
    %one = arith.constant 1 : index
    %n = arith.constant 3 : index
    %r = scf.for %i = %zero to %n step %one iter_args(%c = %x) -> (tensor<1x1x4xf16>) {
      %y = func.call @layer(%i, %c) : (index, tensor<1x1x4xf16>) -> tensor<1x1x4xf16>
      scf.yield %y : tensor<1x1x4xf16>
    }
    func.return %r : tensor<1x1x4xf16>
  }
}) : () -> ()
"""


def test_loop_over_an_outlined_layer() -> None:
    weights = {f"layers.{i}.w": half(4, 4) for i in range(3)}
    x = half(1, 1, 4)
    got = Interpreter(parse_module(LOOP), InMemoryWeights(weights), "f32").call("main", {"x": x})["result0"]
    expected = x
    for weight in weights.values():
        expected = expected @ weight.T
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_weight_errors_name_the_weight() -> None:
    module = parse_module(LOOP)
    x = {"x": half(1, 1, 4)}
    with pytest.raises(InputError, match=r"no weight 'layers\.0\.w'"):
        Interpreter(module, InMemoryWeights({"layers.1.w": half(4, 4)})).call("main", x)
    with pytest.raises(InputError, match=r"layers\.0\.w.* has shape"):
        Interpreter(module, InMemoryWeights({"layers.0.w": half(4, 5)})).call("main", x)
    with pytest.raises(InputError, match=r"layers\.0\.w.* beyond the range of f16"):
        Interpreter(module, InMemoryWeights({"layers.0.w": half(4, 4) * 1e6})).call("main", x)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs the input 'x'"),
        ({"x": half(1, 1, 4), "y": half(1)}, "no input 'y'"),
        ({"x": half(1, 4)}, "has shape"),
    ],
)
def test_input_errors(inputs: dict[str, Array], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Interpreter(parse_module(LOOP)).call("main", inputs)
    with pytest.raises(InputError, match="no function 'nope'"):
        Interpreter(parse_module(LOOP)).call("nope", {})


def test_intermediates_are_freed() -> None:
    type_ = TensorType(f16, [1, 1, 1 << 18])  # 1 MiB held as float32
    block = Block(arg_types=[type_])
    ops: list[Operation] = []
    value: SSAValue = block.args[0]
    for _ in range(40):
        ops.append(nn.NegOp(value))
        value = ops[-1].results[0]
    block.add_ops([*ops, ReturnOp(value)])
    module = ModuleOp([FuncOp("main", ([type_], [type_]), Region(block))])
    interpreter = Interpreter(module, precision="f32")
    x = np.ones((1, 1, 1 << 18), np.float32)
    tracemalloc.start()
    interpreter.call("main", {"arg0": x})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_every_nn_operator_has_a_meaning() -> None:
    from pimc.ir.interpreter.tables import default_table

    assert set(nn.Nn.operations) <= set(default_table())
