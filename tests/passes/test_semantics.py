"""Every pass keeps the meaning: the interpreter gives the same logits and caches after each."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import LLAMA, Shape, llama, run_pass, weights
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr

from pimc.ir import nn
from pimc.ir.context import parse_module, print_module, verify_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import check_locations
from pimc.ir.weights import InMemoryWeights, WeightStore
from pimc.passes.annotate import AnnotatePass
from pimc.passes.layout import LayoutPass
from pimc.passes.outline import OutlinePass
from pimc.passes.partition import PartitionPass
from pimc.passes.place import PlacePass
from pimc.passes.schedule import SchedulePass
from pimc.passes.tile import TilePass

SHAPES = {
    "llama": LLAMA,
    "biases": Shape(layers=2, biases=True),
    "9-heads": Shape(layers=2, hidden=144, heads=9, kv_heads=3, ffn=100, vocab=77),
    "window": Shape(layers=2, window=5, softcap=2.0),
    "one-head": Shape(layers=2, hidden=32, heads=1, kv_heads=1, ffn=40),
    "40-heads": Shape(layers=2, hidden=160, heads=40, kv_heads=40, ffn=64),
    "odd-groups": Shape(layers=1, hidden=24, heads=6, kv_heads=6, ffn=10),
}
PASSES = (OutlinePass(), AnnotatePass(), PlacePass(), PartitionPass(), LayoutPass(), TilePass(), SchedulePass())


def run(module: ModuleOp, shape: Shape, store: WeightStore) -> list[np.ndarray]:
    """Prefill of 5 + 8 tokens in chunks, three decode steps; logits and caches."""
    interpreter = Interpreter(module, store, "f32")
    rng = np.random.default_rng(1)
    results = []
    ids = rng.integers(0, shape.vocab, (1, shape.chunk)).astype(np.int32)
    for position, length in ((0, shape.chunk), (shape.chunk, 5)):
        inputs = {"tokens": ids, "position": np.array([position]), "length": np.array([length])}
        results.extend(interpreter.call("prefill", inputs).values())
    for step in range(3):
        inputs = {"tokens": ids[:, step : step + 1], "position": np.array([shape.chunk + 5 + step])}
        results.extend(interpreter.call("decode", inputs).values())
    return [*results, *interpreter.state.values()]


@pytest.mark.parametrize("name", SHAPES)
def test_passes_keep_the_meaning(name: str) -> None:
    shape = SHAPES[name]
    module = llama(shape)
    store = weights(module, shape)
    expected = run(module, shape, store)
    assert all(np.isfinite(value).all() for value in expected)
    for step in PASSES:
        run_pass(module, step)
        verify_module(module)
        check_locations(module)
        for have, want in zip(run(module, shape, store), expected, strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4, err_msg=step.name)
    text = print_module(module)
    assert print_module(parse_module(text)) == text


@pytest.mark.parametrize("skipped", [("outline",), ("place",), ("annotate", "place")], ids=" ".join)
def test_passes_do_not_need_each_other(skipped: tuple[str, ...]) -> None:
    module = llama(LLAMA)
    store = weights(module, LLAMA)
    expected = run(module, LLAMA, store)
    for step in PASSES:
        if step.name not in skipped:
            run_pass(module, step)
            module = parse_module(print_module(module))
    for have, want in zip(run(module, LLAMA, store), expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": False},
        {"prefetch": False},
        {"reorder": False},
        {"overlap": False, "prefetch": False, "reorder": False},
    ],
    ids=" ".join,
)
def test_every_option_of_schedule_keeps_the_meaning(options: dict[str, bool]) -> None:
    module = llama(LLAMA)
    store = weights(module, LLAMA)
    expected = run(module, LLAMA, store)
    for step in (*PASSES[:-1], SchedulePass(**options)):
        run_pass(module, step)
    for have, want in zip(run(module, LLAMA, store), expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


def test_layers_of_weights_with_any_names() -> None:
    """Names that say nothing of layers (an ONNX exporter's ``val_68``) get aliases, and the layers a loop."""
    shape = SHAPES["llama"]
    module = llama(shape)
    named = weights(module, shape)
    expected = run(module, shape, named)
    order = {name: number for number, name in enumerate(sorted(named.names(), reverse=True))}
    for op in module.walk():
        if isinstance(op, nn.ParamOp):
            op.properties["name"] = StringAttr(f"val_{order[op.weight_name.data] * 7}")
    store = InMemoryWeights({f"val_{number * 7}": named[name] for name, number in order.items()})
    run_pass(module, OutlinePass(), store=store)
    verify_module(module)
    functions = [op.sym_name.data for op in module.ops if isinstance(op, func.FuncOp)]
    assert functions == ["prefill_layer", "prefill", "decode_layer", "decode"]
    entries = [op for op in module.walk() if isinstance(op, nn.ParamOp) and "*" in op.weight_name.data]
    assert len({op.weight_name.data for op in entries}) * 2 == len(entries), "both entries name the families alike"
    for have, want in zip(run(module, shape, store), expected, strict=True):
        np.testing.assert_array_equal(have, want)
