"""Random small decoders with caches, run in chunks and token by token, beside the reference interpreter."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from tiny_models import Shape, llama, weights

from pimc.diagnostics import TargetError, UnsupportedModelError
from pimc.driver.compile import Options, compile_imported
from pimc.frontends.model import ImportedModel
from pimc.frontends.weights import ModelWeights
from pimc.ir.interpreter import Interpreter
from pimc.ir.weights import InMemoryWeights
from pimc.runtime import Executable
from random_graphs.case import Outcome

#: Bound on the difference of any logit from the interpreter's in fp32; logits are around 1.
BOUND = 1 / 32


def draw_decoder(seed: int, *, wide: bool = False) -> tuple[Shape, int]:
    """Sizes of a decoder, and how many tokens go through it one by one; ``wide``: larger chunks and networks, too."""
    r = random.Random(seed)
    heads = r.choice((1, 2, 4, 6, 9))
    kv_heads = r.choice([n for n in (1, 2, 3, 4, 9) if heads % n == 0])
    hidden = heads * r.choice((8, 16, 32))
    shape = Shape(
        r.choice((1, 2, 3)), hidden, heads, kv_heads, r.choice((24, 64, 96)), r.choice((40, 100)),
        r.choice((16, 40)), r.choice((2, 5, 8)), r.random() < 0.5, r.choice((None, 1, 3, 7)), r.choice((None, 2.0)),
    )  # fmt: skip
    steps = r.randrange(2, 5)
    if wide:
        shape = replace(
            shape, ffn=r.choice((24, 100, 512)), vocab=r.choice((40, 100, 700)), max_seq=r.choice((40, 100, 300)),
            chunk=r.choice((2, 8, 33, 40)), window=r.choice((None, None, 1, 7, 30)),
        )  # fmt: skip
    return shape, steps


def describe_decoder(seed: int) -> str:
    """The sizes of a seed's decoder."""
    return str(draw_decoder(seed))


def attempt_decoder(seed: int, overrides: tuple[str, ...] = (), *, wide: bool = False) -> Outcome:
    """Compile a decoder, run prefill and some steps of decode with all checks, and compare the logits."""
    shape, steps = draw_decoder(seed, wide=wide)
    store = weights(llama(shape), shape, seed)
    reference = Interpreter(llama(shape), store, precision="f32")
    try:
        executable = _executable(shape, store, overrides)
        for entry, inputs in _calls(shape, steps, seed):
            got = executable.run(inputs, entry=entry).outputs
            want = reference.call(entry, inputs)
            (logits,), (expected,) = got.values(), want.values()
            error = float(np.abs(logits.astype(np.float64) - expected.reshape(logits.shape)).max())
            if not error <= BOUND * max(1.0, float(np.abs(expected).max())):
                return Outcome("failed", f"logits of {entry} are wrong by {error:.4g}")
    except UnsupportedModelError as error:
        return Outcome("refused", str(error).splitlines()[0])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        refused = isinstance(error, TargetError) and "does not fit" in str(error)
        return Outcome("refused" if refused else "failed", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    return Outcome("right")


def _executable(shape: Shape, store: InMemoryWeights, overrides: tuple[str, ...]) -> Executable:
    arrays = {name: np.asarray(store[name], np.float32) for name in store.names()}
    model = ImportedModel(llama(shape), ModelWeights(arrays), None, None, [], {}, "decoder")
    options = Options(max_seq=shape.max_seq, prefill_chunk=shape.chunk, overrides=overrides)
    compiled = compile_imported(model, options=options)
    return Executable(compiled.program, compiled.target)


def _calls(shape: Shape, steps: int, seed: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    """A chunk that is full or not, then tokens one by one; or tokens from the start."""
    rng = np.random.default_rng(seed)
    calls: list[tuple[str, dict[str, np.ndarray]]] = []
    position = 0
    if rng.random() < 0.7:
        length = int(rng.integers(1, shape.chunk + 1))
        chunk = rng.integers(0, shape.vocab, (1, shape.chunk)).astype(np.int32)
        calls.append(
            ("prefill", {"tokens": chunk, "position": np.array([0], np.int32), "length": np.array([length], np.int32)})
        )
        position = length
    for step in range(steps):
        token = rng.integers(0, shape.vocab, (1, 1)).astype(np.int32)
        calls.append(("decode", {"tokens": token, "position": np.array([position + step], np.int32)}))
    return calls
