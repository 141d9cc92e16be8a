"""The binary is enough: without metadata, in a fresh process that cannot import the compiler, the same outputs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pimc.isa.container import load_program, write_program
from pimc.isa.program import strip

RUN = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    names = ("torch", "transformers", "xdsl", "gguf", "tokenizers", "pimc.ir", "pimc.passes", "pimc.frontends",
             "pimc.backends")
    def find_spec(self, name, path=None, target=None):
        if any(name == refused or name.startswith(refused + ".") for refused in self.names):
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Refuse())
import numpy as np
from pimc.isa.container import load_program
from pimc.runtime_sim import Machine
from pimc.targets import load_target
program = load_program(sys.argv[1])
assert program.model is None and program.tokenizer is None and not program.locations
result = Machine(program, load_target("hpim")).run("decode", dict(np.load(sys.argv[2])))
np.savez(sys.argv[3], cycles=result.cycles, **result.outputs)
"""


def test_same_outputs_without_compiler_and_metadata(compiled: Callable, tmp_path: Path) -> None:
    executable = compiled("llama-gqa-9-3").executable
    executable.reset()
    full, bare, inputs, outputs = (tmp_path / name for name in ("full.pimx", "bare.pimx", "in.npz", "out.npz"))
    executable.save(full)
    write_program(bare, strip(load_program(full), keep=()))
    assert bare.stat().st_size < full.stat().st_size
    given = {"tokens": np.array([[11]], np.int32), "position": np.array([0], np.int32)}
    np.savez(inputs, **given)
    subprocess.run([sys.executable, "-c", RUN, str(bare), str(inputs), str(outputs)], check=True)
    expected = executable.run(given, entry="decode")
    found = np.load(outputs)
    assert int(found["cycles"]) == expected.cycles
    np.testing.assert_array_equal(found["logits"].view(np.uint16), expected.outputs["logits"].view(np.uint16))


def test_same_input_same_bytes(compiled: Callable, tmp_path: Path) -> None:
    import pimc

    case = compiled("llama-mha-4")
    case.executable.save(tmp_path / "a.pimx")
    pimc.compile(case.model, max_seq=64, prefill_chunk=8).save(tmp_path / "b.pimx")
    first, second = load_program(tmp_path / "a.pimx"), load_program(tmp_path / "b.pimx")
    assert {n: w.tobytes() for n, w in first.code.items()} == {n: w.tobytes() for n, w in second.code.items()}
    for pch, image in first.images.items():
        np.testing.assert_array_equal(image, second.images[pch])
