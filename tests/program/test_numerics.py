"""What a program computes on the simulated machine is what its IR means: lower, allocate, emit and link."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tiny_models import LLAMA, Shape, llama, weights
from xdsl.dialects.builtin import ModuleOp

from pimc.backends.link import link_program
from pimc.ir.interpreter import Interpreter
from pimc.ir.weights import WeightStore
from pimc.isa.validate import validate_program
from pimc.passes.base import PassContext
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.runtime import Executable
from pimc.targets import load_target

SHAPES = {
    "llama": LLAMA,
    "biases": Shape(layers=2, biases=True),
    "one-head": Shape(layers=2, hidden=32, heads=1, kv_heads=1, ffn=40),
    "one-layer": Shape(layers=1),
    "9-heads": Shape(layers=2, hidden=144, heads=9, kv_heads=3, ffn=100, vocab=77),  # 48 features on 32 cores
    "15-heads": Shape(layers=2, hidden=240, heads=15, kv_heads=5, ffn=33, vocab=51),
    "40-heads": Shape(layers=2, hidden=640, heads=40, kv_heads=40, ffn=64),  # two rounds of heads
    "heads-of-4": Shape(layers=1, hidden=24, heads=6, kv_heads=6, ffn=10),  # a quarter of a column
    "odd-groups": Shape(layers=1, hidden=96, heads=6, kv_heads=6, ffn=10),
}
REST = "tile,schedule,lower,allocate,emit,link"
#: |difference| of logits of about 3: both round to fp16 after every operation, the order of sums differs.
BOUND = 0.02


def program_of(module: ModuleOp, store: WeightStore, rest: str = REST) -> Executable:
    """The module compiled, with ``rest`` from the tiling on."""
    target = load_target("hpim", ())
    passes = parse_pipeline(f"outline,annotate,place,partition,layout,{rest}")
    PassManager(passes).run(module, PassContext(machine=target, weights=store, target_name="hpim"))
    return Executable(validate_program(link_program(module, store, target)), target)


def runs(shape: Shape) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """A prompt of a whole and a padded chunk, then three tokens."""
    ids = np.random.default_rng(1).integers(0, shape.vocab, (1, shape.chunk)).astype(np.int32)
    for position, length in ((0, shape.chunk), (shape.chunk, 5)):
        yield "prefill", {"tokens": ids, "position": _one(position), "length": _one(length)}
    for step in range(3):
        yield "decode", {"tokens": ids[:, step : step + 1], "position": _one(shape.chunk + 5 + step)}


def _one(value: int) -> np.ndarray:
    return np.array([value], np.int32)


def compare(shape: Shape, rest: str = REST) -> None:
    """Logits of the simulated machine against the interpreter's in fp16."""
    store = weights(llama(shape), shape)
    interpreter = Interpreter(llama(shape), store, "f16")
    executable = program_of(llama(shape), store, rest)
    for entry, inputs in runs(shape):
        (expected,) = interpreter.call(entry, inputs).values()
        (logits,) = executable.run(inputs, entry=entry).outputs.values()
        difference = np.abs(logits.reshape(-1).astype(np.float32) - np.asarray(expected, np.float32).reshape(-1))
        assert difference.max() < BOUND, f"{entry} at {inputs['position'][0]}: {difference.max()}"


@pytest.mark.parametrize("name", SHAPES)
def test_the_machine_computes_what_the_ir_means(name: str) -> None:
    compare(SHAPES[name])


@pytest.mark.parametrize(
    "rest",
    [
        REST.replace("schedule", "schedule{overlap=false}"),
        REST.replace("schedule", "schedule{overlap=false prefetch=false reorder=false}"),
        REST.replace("allocate", "allocate{share=false}"),
        REST.replace("tile", "tile{share=1 buffers=1}"),
        REST.replace("tile", "tile{share=2 buffers=3}"),
    ],
)
def test_options_keep_the_meaning(rest: str) -> None:
    compare(Shape(layers=2, hidden=128, heads=4, kv_heads=2, ffn=384), rest)
