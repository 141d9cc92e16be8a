"""``legalize`` keeps the meaning, and leaves decoders alone."""

from __future__ import annotations

import numpy as np
from graphs import floats, ids, module_of, number, weight
from tiny_models import LLAMA, llama, run_pass
from xdsl.dialects.builtin import TensorType, f32, i1, i64
from xdsl.ir import SSAValue

from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.context import print_module, verify_module
from pimc.ir.interpreter import Interpreter
from pimc.passes.base import PassContext
from pimc.passes.legalize import LegalizePass
from pimc.passes.pipeline import PassManager

W, TABLE = floats(4, 6), floats(5, 3)


def build(x: SSAValue, w: SSAValue, b: SSAValue, indices: SSAValue, q: SSAValue) -> list[SSAValue]:
    """Everything that the pass rewrites."""
    full = nn.AttentionFullOp(q, q, q, heads=2, kv_heads=2, head_dim=4, scale=0.5, causal=True)
    mask = nn.ConstantOp.from_array(np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]]).astype(bool), i1).result
    hidden = nn.AttentionFullOp(q, q, q, mask, heads=1, kv_heads=1, head_dim=8, scale=0.5)
    folded = nn.MulOp(number(2.0), nn.CastOp(nn.IotaOp(TensorType(i64, (3,))), f32))
    return [
        nn.LinearOp(x, w, b).result,
        nn.LinearOp(x, weight("w", W), b).result,
        nn.EmbeddingOp(w, indices).result,
        nn.CastOp(x, i1).result,
        nn.ReshapeOp(x, (2, 6)).result,
        full.result,
        hidden.result,
        folded.result,
        nn.MatmulOp(nn.SliceOp(x, (0, 0), (2, 5)), weight("t", TABLE)).result,
        nn.LogOp(nn.ReduceSumOp(nn.ExpOp(x), (1,))).result,
    ]


def test_the_meaning_stays() -> None:
    arrays = [floats(2, 6), floats(4, 6), floats(4), ids(0, 4, 2, 3), floats(1, 3, 8)]
    weights = ModelWeights({"w": W, "t": TABLE})
    module = module_of(arrays, build)
    inputs = {f"arg{index}": array for index, array in enumerate(arrays)}
    expected = Interpreter(module, weights, "f32").call("main", inputs)
    PassManager((LegalizePass(),)).run(module, PassContext(weights=weights))
    verify_module(module)
    for (name, want), got in zip(
        expected.items(), Interpreter(module, weights, "f32").call("main", inputs).values(), strict=True
    ):
        if name != "result6":  # the mask of booleans: added in one form, a condition in the other
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=name)
    kinds = {op.name for op in module.walk()}
    assert "nn.iota" not in kinds
    assert "nn.cast" not in kinds
    names = {op.weight_name.data for op in module.walk() if isinstance(op, nn.ParamOp)}
    assert names == {"w", "t^T"}


def test_a_bias_by_the_difference_of_key_and_query_is_no_table_of_pairs() -> None:
    """T5: rows of a table, chosen for each pair of query and key by how far they are apart."""
    queries, keys, table = 5, 7, floats(6, 2)
    pairs = np.clip(np.arange(keys)[None, :] - np.arange(queries)[:, None] + 2, 0, 5)
    sizes = {"heads": 2, "kv_heads": 1, "head_dim": 4, "scale": 0.5}

    def attend(q: SSAValue, k: SSAValue) -> list[SSAValue]:
        rows = nn.EmbeddingOp(weight("t", table), nn.ConstantOp.from_array(pairs, i64))
        bias = nn.ReshapeOp(nn.TransposeOp(rows, (2, 0, 1)), (1, 2, queries, keys))
        return [nn.AttentionFullOp(q, k, k, bias, **sizes).result]

    arrays, store = [floats(1, queries, 8), floats(1, keys, 4)], ModelWeights({"t": table})
    module = module_of(arrays, attend)
    inputs = {"arg0": arrays[0], "arg1": arrays[1]}
    (expected,) = Interpreter(module, store, "f32").call("main", inputs).values()
    PassManager((LegalizePass(),)).run(module, PassContext(weights=store))
    verify_module(module)
    (op,) = (op for op in module.walk() if isinstance(op, nn.AttentionFullOp))
    assert op.relative is not None
    assert op.mask is not None
    assert nn.tensor_of(op.mask).get_shape() == (1, 2, 1, queries + keys - 1)
    (got,) = Interpreter(module, store, "f32").call("main", inputs).values()
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_folding_is_an_option() -> None:
    module = module_of([floats(2)], lambda x: [x, nn.IotaOp(TensorType(i64, (3,))).result])
    PassManager((LegalizePass(fold=False),)).run(module, PassContext())
    assert any(isinstance(op, nn.IotaOp) for op in module.walk())


def test_decoders_stay_as_they_are() -> None:
    module = llama(LLAMA)
    before = print_module(module)
    run_pass(module, LegalizePass())
    assert print_module(module) == before


def test_sums_of_exponentials_are_shifted_by_the_largest() -> None:
    arrays = [np.array([[40.0, 41.0], [-np.inf, -np.inf], [np.inf, 1.0], [-1e4, -1e4]], np.float16)]
    module = module_of(arrays, lambda x: [nn.LogOp(nn.ReduceSumOp(nn.ExpOp(x), (1,), keepdims=True)).result])
    PassManager((LegalizePass(),)).run(module, PassContext(weights=ModelWeights({})))
    (got,) = Interpreter(module, precision="f16").call("main", {"arg0": arrays[0]}).values()
    np.testing.assert_allclose(got[:, 0], [41.3133, -np.inf, np.inf, -1e4], rtol=1e-3)


def test_products_over_nothing_are_zero() -> None:
    """A stored weight with K = 0 (or no rows) has no place in the banks; the sum of nothing is 0."""

    def products(x: SSAValue, b: SSAValue) -> list[SSAValue]:
        return [
            nn.LinearOp(x, weight("w", np.zeros((4, 0), np.float32)), b).result,
            nn.LinearOp(x, weight("w", np.zeros((4, 0), np.float32))).result,
            nn.MatmulOp(x, weight("t", np.zeros((0, 5), np.float32))).result,
        ]

    weights = ModelWeights({"w": np.zeros((4, 0), np.float32), "t": np.zeros((0, 5), np.float32)})
    module = module_of([floats(2, 0), floats(4)], products)
    PassManager((LegalizePass(),)).run(module, PassContext(weights=weights))
    verify_module(module)
    assert not [op for op in module.walk() if isinstance(op, nn.ParamOp | nn.LinearOp | nn.MatmulOp)]
    bias = np.arange(4, dtype=np.float32)
    first, second, third = (
        Interpreter(module).call("main", {"arg0": np.zeros((2, 0), np.float32), "arg1": bias}).values()
    )
    np.testing.assert_array_equal(first, np.broadcast_to(bias, (2, 4)))
    assert (second.shape, third.shape) == ((2, 4), (2, 5))
    assert not second.any()
    assert not third.any()


def test_a_constant_mask_says_as_little_as_it_can() -> None:
    """One that hides nothing goes; one that is the same for all queries has one row."""
    visible = np.ones((2, 1, 3, 3), bool)
    rows = np.broadcast_to(np.array([0.0, -1e4, 0.0], np.float32), (2, 1, 3, 3))
    sizes = {"heads": 2, "kv_heads": 2, "head_dim": 4, "scale": 0.5}

    def attend(q: SSAValue) -> list[SSAValue]:
        masks = nn.ConstantOp.from_array(visible, i1), nn.ConstantOp.from_array(rows, f32)
        return [nn.AttentionFullOp(q, q, q, mask.result, **sizes).result for mask in masks]

    module = module_of([floats(2, 3, 8)], attend)
    run_pass(module, LegalizePass())
    first, second = (op for op in module.walk() if isinstance(op, nn.AttentionFullOp))
    assert first.mask is None
    assert second.mask is not None
    assert nn.tensor_of(second.mask).get_shape() == (1, 1, 1, 3)
