"""The guarded build: finds an array that is smaller than its line in the table says, and nothing in hostile programs.

Each test runs in a process of its own, since ``PIMC_GUARD`` chooses the build when pimc is imported; the first one
compiles it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SMALLER = """
import sys
from dataclasses import replace
from math import prod

from sim.programs import program, run

from pimc.diagnostics import InternalError
from pimc.runtime_sim import memories
from pimc.runtime_sim.engine import arrays

name, text = sys.argv[1:]
table = dict(arrays.ARRAYS)
table[name] = replace(table[name], shape=lambda figures: (prod(arrays.ARRAYS[name].shape(figures)) - 1,))
memories.ARRAYS = table
try:
    run(program(text, "nop\\nhalt"), checks=False)
except InternalError as error:
    print(error)
"""


def _guarded(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PIMC_GUARD": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=3000, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("array", "text", "mnemonic"),
    [
        ("scratch_a", "vmov.h r0, r0, r2", "vmov.h"),
        ("scratch_b", "vadd.h r0, r0, r0, r2", "vadd.h"),
        ("scratch_c", "vfill.h r0, r0, r0, r2", "vfill.h"),
    ],
)
def test_an_array_that_is_too_small_is_found_by_name(array: str, text: str, mnemonic: str) -> None:
    done = _guarded("-c", SMALLER, array, f"li r2, {212_992}\n{text}\nhalt")  # all of local memory
    assert done.returncode == 0, done.stderr
    assert array in done.stdout
    assert mnemonic in done.stdout


@pytest.mark.slow
def test_hostile_programs_find_nothing() -> None:
    done = _guarded(str(TESTS / "hostile_programs.py"), "0", "300", "--batch", "100")
    assert done.returncode == 0, done.stdout + done.stderr
