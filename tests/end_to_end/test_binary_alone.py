"""The binary is enough: without metadata, in a fresh process that cannot import the compiler, the same outputs."""

from __future__ import annotations

import os
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
machine = Machine(program, load_target("hpim"))
given, found = np.load(sys.argv[2]), {}
for step in ("prefill", "decode"):
    names = [port.name for port in program.entries[step].inputs]
    result = machine.run(step, {name: given[f"{step}.{name}"] for name in names})
    found |= {f"{step}.cycles": result.cycles, f"{step}.logits": result.outputs["logits"]}
np.savez(sys.argv[3], **found)
assert not set(Refuse.names) & set(sys.modules)
"""

COMPILE = """
import sys, pimc
pimc.compile(sys.argv[1], max_seq=int(sys.argv[2]), prefill_chunk=int(sys.argv[3])).save(sys.argv[4])
"""


def test_same_outputs_without_compiler_and_metadata(compiled: Callable, tmp_path: Path) -> None:
    """A padded prefill, then a decode step on the state it left."""
    executable = compiled("llama-gqa-9-3").executable
    executable.reset()
    full, bare, inputs, outputs = (tmp_path / name for name in ("full.pimx", "bare.pimx", "in.npz", "out.npz"))
    executable.save(full)
    write_program(bare, strip(load_program(full), keep=()))
    assert bare.stat().st_size < full.stat().st_size
    given = {
        "prefill": {
            "tokens": np.array([[11, 5, 90, 3, 41, 0, 0, 0]], np.int32),
            "position": np.array([0], np.int32),
            "length": np.array([5], np.int32),
        },
        "decode": {"tokens": np.array([[17]], np.int32), "position": np.array([5], np.int32)},
    }
    np.savez(inputs, **{f"{step}.{name}": value for step, named in given.items() for name, value in named.items()})
    subprocess.run([sys.executable, "-c", RUN, str(bare), str(inputs), str(outputs)], check=True)
    found = np.load(outputs)
    for step, named in given.items():
        expected = executable.run(named, entry=step)
        assert int(found[f"{step}.cycles"]) == expected.cycles
        same = found[f"{step}.logits"].view(np.uint16) == expected.outputs["logits"].view(np.uint16)
        assert same.all()


def test_same_input_same_bytes(compiled: Callable, tmp_path: Path) -> None:
    """Compiled here and in another process whose strings hash otherwise: the same file."""
    case = compiled("llama-mha-4")
    here, there = tmp_path / "here.pimx", tmp_path / "there.pimx"
    case.executable.save(here)
    command = [sys.executable, "-c", COMPILE, str(case.folder), "64", "8", str(there)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "12345"})
    assert here.read_bytes() == there.read_bytes()
