"""Partition: verifiers, fusion across entries, and that errors of a partition show in the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from filecheck_runner import run_passes
from tiny_models import llama, run_pass, weights
from xdsl.utils.exceptions import VerifyException

from pimc.diagnostics import InputError, UsageError
from pimc.ir import pim
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.context import parse_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.pim import HeadRound, ShardAttr, ShardRound, reference
from pimc.passes.machine import Machine
from pimc.passes.partition import PartitionPass


def test_one_gather_a_value() -> None:
    module = llama()
    run_pass(module, PartitionPass())
    gathered = [op.input for op in module.walk() if isinstance(op, pim.AllGatherOp)]
    assert len(gathered) == len(set(gathered))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"algorithm": "x"}, "algorithm 'x'"), ({"rounds": "x"}, "rounds 'x'"), ({"context": 0}, "context 0")],
)
def test_options_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run_pass(llama(), PartitionPass(**options))


def test_weights_fused_differently_stay_alone() -> None:
    linear = '"nn.linear"(%x, %{0}) : (tensor<1x{1}x8xf16>, tensor<8x8xf16>) -> tensor<1x{1}x8xf16>'
    params = "".join(f'%{n} = "nn.param"() <{{name = "{n}"}}> : () -> tensor<8x8xf16>\n' for n in "abc")
    one = "func.func @f(%x: tensor<1x1x8xf16>) {\n" + params
    one += f"%0 = {linear.format('a', 1)}\n%1 = {linear.format('b', 1)}\nfunc.return }}\n"
    two = one.replace("@f", "@g").replace("%b)", "%c)")
    same = run_passes(one + one.replace("@f", "@g"), "partition")
    assert same.count("pim.gemv") == 2
    assert run_passes(one + two, "partition").count("pim.gemv") == 4


def test_several_rows_in_the_banks_are_an_error() -> None:
    text = """func.func @f(%x: tensor<1x2x8xf16>) {
      %w = "nn.param"() <{name = "w"}> : () -> tensor<8x8xf16>
      %0 = "nn.linear"(%x, %w) {pim.domain = "hbm"} : (tensor<1x2x8xf16>, tensor<8x8xf16>) -> tensor<1x2x8xf16>
      func.return
    }"""
    assert "in domain 'hbm': it takes one row at a time, and there are 2" in run_passes(text, "partition")


def test_a_lone_cache_write_is_an_error() -> None:
    text = """ml_program.global private mutable @k : tensor<1x16x2x4xf16>
    ml_program.global private mutable @v : tensor<1x16x2x4xf16>
    func.func @f(%x: tensor<1x1x8xf16>, %p: tensor<1xi32>) {
      %l = arith.constant 0 : index
      "nn.cache_write"(%l, %x, %p) <{cache = @k}> : (index, tensor<1x1x8xf16>, tensor<1xi32>) -> ()
      %a = "nn.attention"(%x, %l, %p) <{k = @k, v = @v, heads = 2 : i64, kv_heads = 2 : i64, head_dim = 4 : i64, scale = 1.0 : f32, causal = true}> : (tensor<1x1x8xf16>, index, tensor<1xi32>) -> tensor<1x1x8xf16>
      func.return
    }"""  # noqa: E501
    assert "keys and values written together" in run_passes(text, "partition")


def test_a_computed_weight_is_an_error() -> None:
    text = """func.func @f(%x: tensor<1x2x8xf16>, %w: tensor<8x8xf16>) {
      %0 = "nn.linear"(%x, %w) : (tensor<1x2x8xf16>, tensor<8x8xf16>) -> tensor<1x2x8xf16>
      func.return
    }"""
    assert "computed weight" in run_passes(text, "partition")


def test_attention_without_a_cache_works_on_whole_tensors() -> None:
    text = """func.func @f(%x: tensor<1x3x64xf16>) -> tensor<1x3x64xf16> {
      %wq = "nn.param"() <{name = "q"}> : () -> tensor<64x64xf16>
      %wk = "nn.param"() <{name = "k"}> : () -> tensor<64x64xf16>
      %wv = "nn.param"() <{name = "v"}> : () -> tensor<64x64xf16>
      %q = "nn.linear"(%x, %wq) : (tensor<1x3x64xf16>, tensor<64x64xf16>) -> tensor<1x3x64xf16>
      %k = "nn.linear"(%x, %wk) : (tensor<1x3x64xf16>, tensor<64x64xf16>) -> tensor<1x3x64xf16>
      %v = "nn.linear"(%x, %wv) : (tensor<1x3x64xf16>, tensor<64x64xf16>) -> tensor<1x3x64xf16>
      %a = "nn.attention_full"(%q, %k, %v) <{heads = 4 : i64, kv_heads = 4 : i64, head_dim = 16 : i64, scale = 0.25 : f32, causal = false}> : (tensor<1x3x64xf16>, tensor<1x3x64xf16>, tensor<1x3x64xf16>) -> tensor<1x3x64xf16>
      func.return %a : tensor<1x3x64xf16>
    }"""  # noqa: E501
    module = parse_module(text)
    store = weights(module)
    inputs = {"arg0": np.random.default_rng(2).random((1, 3, 64), np.float32)}
    before = Interpreter(module, store, "f32").call("f", inputs)["result0"]
    run_pass(module, PartitionPass())
    assert sum(isinstance(op, pim.GemmOp) for op in module.walk()) == 1
    after = Interpreter(module, store, "f32").call("f", inputs)["result0"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "rounds", ["[[0, 0, 32, 1]]", "[[0, 0, 4, 8], [40, 0, 32, 1]]", "[[1, 0, 32, 2]]", "[[0, 0, 32, 0]]"]
)
def test_a_shard_that_does_not_cover_is_rejected(rounds: str) -> None:
    text = f"""func.func @f(%x: tensor<1x1x64xf16, #pim.layout<2 : {rounds}>>) {{
      %0 = pim.all_gather %x : tensor<1x1x64xf16, #pim.layout<2 : {rounds}>> -> tensor<1x1x64xf16>
      func.return
    }}"""
    with pytest.raises((InputError, VerifyException)):
        parse_module(text)


def test_lost_features_are_nan() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.random((1, 1, 8), np.float32), rng.random((6, 8), np.float32)
    good = ShardAttr.of([ShardRound(0, 0, 3, 2)])
    bad = ShardAttr.of([ShardRound(0, 0, 2, 2)])
    assert np.allclose(reference.matrix(x, [w], [None], [good], None)[0], x @ w.T)
    assert np.isnan(reference.matrix(x, [w], [None], [bad], None)[0][0, 0]).tolist() == [False] * 4 + [True] * 2


def test_heads_on_cores_of_another_group_are_nan() -> None:
    rng = np.random.default_rng(0)
    q = rng.random((1, 1, 8), np.float32)
    k, v = rng.random((2, 5, 2, 4), np.float32)
    rounds = [HeadRound(0, 2, 2)]
    good, bad = (ShardAttr.of([ShardRound(0, first, 4, 2)]) for first in (0, 1))
    assert np.isfinite(reference.attention(q, k, v, 3, 0.5, True, rounds, good)).all()
    assert np.isnan(reference.attention(q, k, v, 3, 0.5, True, rounds, bad)).any()


@pytest.mark.parametrize("ksplit", [1, 2, 4])
@pytest.mark.parametrize(("n", "k"), [(1, 16), (18, 576), (70, 100), (33, 1100)])
def test_banks_give_back_what_was_stored(n: int, k: int, ksplit: int) -> None:
    layout = GemvLayout(Machine.load("hpim").geometry, k, n, ksplit)
    stack = np.random.default_rng(0).random((n, k), np.float32)
    assert np.array_equal(reference.through_banks(stack, layout), stack)


def test_fp16_results_stay_close() -> None:
    module = llama()
    store = weights(module)
    inputs = {"tokens": np.array([[3]]), "position": np.array([0])}
    before = Interpreter(module, store).call("decode", inputs)["result0"].astype(np.float32)
    run_pass(module, PartitionPass())
    after = Interpreter(module, store).call("decode", inputs)["result0"].astype(np.float32)
    np.testing.assert_allclose(after, before, rtol=2e-2, atol=2e-2)
