"""The `raise` pass as a whole: reasons for what is left, options, attention without a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from pimc.diagnostics import UsageError
from pimc.ir.context import parse_module
from pimc.ir.interpreter import Interpreter
from pimc.passes.base import PassContext
from pimc.passes.raise_ops import RaisePass
from pimc.passes.raise_views import same_view

FILES = Path(__file__).parent / "filecheck"


def raised(text: str, only: tuple[str, ...] = ()) -> tuple[ModuleOp, list[str]]:
    module = parse_module(text)
    context = PassContext()
    RaisePass(precision="f32", only=only).run(module, context)
    return module, [decision.reason for decision in context.decisions]


def test_reason_why_a_norm_stays() -> None:
    text = (FILES / "raise_norms.mlir").read_text().replace('"nn.mul"(%w, %unit)', '"nn.sub"(%w, %unit)')
    _, reasons = raised(text)
    assert reasons == ["no norm: no weight of one number a feature follows"]


@pytest.mark.parametrize("name", ["raise_norms", "raise_activations", "raise_rope", "raise_linear", "raise_attention"])
def test_meaning_is_kept(name: str) -> None:
    text = (FILES / f"{name}.mlir").read_text()
    before, (after, _) = parse_module(text), raised(text)
    rng = np.random.default_rng(5)
    sizes = {"w": (24, 16), "b": (24,), "norm.weight": (8,), "norm.bias": (8,), "rope_table": (16, 16)}
    arrays = {key: rng.standard_normal(shape).astype(np.float32) for key, shape in sizes.items()}
    if name == "raise_linear":
        arrays |= {f"{key}[{a}:{b}]": arrays[key][a:b] for key in "wb" for a, b in ((0, 8), (8, 24))}
    from pimc.ir.weights import InMemoryWeights

    functions = {op.sym_name.data: op for op in before.ops if op.name == "func.func"}
    for function, op in functions.items():
        if function == "last_token":
            arrays["w"] = arrays["w"][0, :16]
        inputs = {}
        for index, type_ in enumerate(op.function_type.inputs):
            shape = type_.get_shape()
            data = np.array([2], np.int32) if "i32" in str(type_) else rng.standard_normal(shape)
            inputs[f"arg{index}"] = data.astype(np.int32 if "i32" in str(type_) else np.float32)
        results = [
            Interpreter(module, InMemoryWeights(arrays), "f32").call(function, inputs) for module in (before, after)
        ]
        for key, value in results[0].items():
            np.testing.assert_allclose(results[1][key], value, atol=1e-5)


ENCODER = """
func.func @encoder(%q: tensor<1x3x16xf32>, %k: tensor<1x5x16xf32>, %v: tensor<1x5x16xf32>, %mask: tensor<1x1x1x5xf32>)
    -> tensor<1x3x16xf32> {
  %eight = "nn.constant"() <{value = dense<2.8284271> : tensor<f32>}> : () -> tensor<f32>
  %q1 = "nn.reshape"(%q) : (tensor<1x3x16xf32>) -> tensor<1x3x2x8xf32>
  %q2 = "nn.transpose"(%q1) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x3x2x8xf32>) -> tensor<1x2x3x8xf32>
  %k1 = "nn.reshape"(%k) : (tensor<1x5x16xf32>) -> tensor<1x5x2x8xf32>
  %k2 = "nn.transpose"(%k1) <{permutation = array<i64: 0, 2, 3, 1>}> : (tensor<1x5x2x8xf32>) -> tensor<1x2x8x5xf32>
  %v1 = "nn.reshape"(%v) : (tensor<1x5x16xf32>) -> tensor<1x5x2x8xf32>
  %v2 = "nn.transpose"(%v1) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x5x2x8xf32>) -> tensor<1x2x5x8xf32>
  %s = "nn.matmul"(%q2, %k2) : (tensor<1x2x3x8xf32>, tensor<1x2x8x5xf32>) -> tensor<1x2x3x5xf32>
  %d = "nn.div"(%s, %eight) : (tensor<1x2x3x5xf32>, tensor<f32>) -> tensor<1x2x3x5xf32>
  %m = "nn.add"(%d, %mask) : (tensor<1x2x3x5xf32>, tensor<1x1x1x5xf32>) -> tensor<1x2x3x5xf32>
  %p = "nn.softmax"(%m) <{axis = -1 : i64}> : (tensor<1x2x3x5xf32>) -> tensor<1x2x3x5xf32>
  %o = "nn.matmul"(%p, %v2) : (tensor<1x2x3x5xf32>, tensor<1x2x5x8xf32>) -> tensor<1x2x3x8xf32>
  %t = "nn.transpose"(%o) <{permutation = array<i64: 0, 2, 1, 3>}> : (tensor<1x2x3x8xf32>) -> tensor<1x3x2x8xf32>
  %y = "nn.reshape"(%t) : (tensor<1x3x2x8xf32>) -> tensor<1x3x16xf32>
  func.return %y : tensor<1x3x16xf32>
}
"""


def test_attention_of_an_encoder() -> None:
    module, reasons = raised(ENCODER)
    assert reasons == []
    assert [op.name for op in module.body.block.first_op.body.block.ops] == ["nn.attention_full", "func.return"]
    rng = np.random.default_rng(2)
    shapes = [(1, 3, 16), (1, 5, 16), (1, 5, 16), (1, 1, 1, 5)]
    inputs = {f"arg{i}": rng.standard_normal(shape).astype(np.float32) for i, shape in enumerate(shapes)}
    (wanted,) = Interpreter(parse_module(ENCODER), None, "f32").call("encoder", inputs).values()
    (found,) = Interpreter(module, None, "f32").call("encoder", inputs).values()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_only_named_themes_run() -> None:
    module, _ = raised((FILES / "raise_activations.mlir").read_text(), only=("norms",))
    assert '"nn.silu"' not in str(module)
    with pytest.raises(UsageError, match="no theme 'mlp'"):
        raised(ENCODER, only=("mlp",))


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="f16 or f32"):
        RaisePass(precision="bf16").run(parse_module(ENCODER), PassContext())


def test_views_are_compared_by_what_they_do() -> None:
    root = (1, 6, 8)
    split = (("reshape", (1, 6, 2, 4)), ("transpose", (0, 2, 1, 3)))
    in_two = (("reshape", (6, 2, 4)), ("transpose", (1, 0, 2)), ("reshape", (1, 2, 6, 4)))
    assert same_view(root, in_two, split)
    assert not same_view(root, (("reshape", (1, 2, 6, 4)),), split)
