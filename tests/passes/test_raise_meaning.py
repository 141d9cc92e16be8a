"""What `raise` makes of the forms that model families and exporters write computes what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.context import parse_module, verify_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.nn.base import as_tensor
from pimc.passes.base import PassContext
from pimc.passes.raise_ops import RaisePass

FILES = Path(__file__).parent / "filecheck"
#: Of each file, the operator that must be there afterwards (None: the form is not raised, and nothing may change).
RAISED: dict[str, str | None] = {
    "raise_attention_alibi": "nn.attention",
    "raise_attention_scaled_key": "nn.attention",
    "raise_heads_in_turn": "nn.linear",
    "raise_norm_by_reciprocal": "nn.rms_norm",
    "raise_rope_behind_tokens": "nn.rope",
    "raise_rope_in_part": "nn.rope",
    "raise_scaled_mask": None,
}


def random_weights(module: ModuleOp) -> ModelWeights:
    """Every weight that ``module`` names."""
    rng = np.random.default_rng(3)
    params = [op for op in module.walk() if isinstance(op, nn.ParamOp)]
    shapes = {op.weight_name.data: nn.tensor_of(op.result).get_shape() for op in params}
    return ModelWeights({name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})


def run(module: ModuleOp, store: ModelWeights, position: int) -> list[np.ndarray]:
    """Results of the one function, and the state, on random inputs and random caches."""
    (function,) = (op for op in module.walk() if isinstance(op, FuncOp))
    rng = np.random.default_rng(4)
    inputs: dict[str, np.ndarray] = {}
    for index, type_ in enumerate(function.function_type.inputs):
        tensor = as_tensor(type_, "an input")
        integer = "i32" in str(tensor)
        data = np.full(tensor.get_shape(), position) if integer else rng.standard_normal(tensor.get_shape())
        inputs[f"arg{index}"] = data.astype(np.int32 if integer else np.float32)
    interpreter = Interpreter(module, store, "f32")
    for cache in interpreter.state.values():
        cache[...] = rng.standard_normal(cache.shape)
    results = interpreter.call(function.sym_name.data, inputs)
    return [*results.values(), *interpreter.state.values()]


@pytest.mark.parametrize("position", [0, 3])
@pytest.mark.parametrize("name", RAISED)
def test_meaning_is_kept(name: str, position: int) -> None:
    text = (FILES / f"{name}.mlir").read_text()
    before, after = parse_module(text), parse_module(text)
    RaisePass(precision="f32").run(after, PassContext())
    verify_module(after)
    wanted = RAISED[name]
    assert wanted is None or wanted in {op.name for op in after.walk()}
    store = random_weights(before)
    for have, want in zip(run(after, store, position), run(before, store, position), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
