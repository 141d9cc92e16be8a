"""What the command line says of results that leave the range of fp16 though their operands were finite."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sim.programs import port, program, target

import pimc
from pimc.diagnostics import NumericsError
from pimc.isa.container import write_program
from pimc.runtime_sim.results import Overflow, overflow_message

TEXT = "li r1, 0x1000\nli r3, 0x3000\nli r4, 4\nvmul.h r3, r1, r1, r4\nhalt"
WARNING = "2 results left the range of fp16 though the operands were finite: vmul.h: 2"


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A binary that squares four numbers."""
    path = tmp_path / "squares.pimx"
    made = program(TEXT, inputs=[port("a", "f16", 4, 0x1000)], outputs=[port("b", "f16", 4, 0x3000)])
    write_program(path, replace(made, target_digest=target().digest))
    return path


def test_warning(pimc_cli: Callable, squares: Path) -> None:
    result = pimc_cli("run", squares, "--input", "a=300,-300,2,3")
    assert (result.code, result.error_lines) == (0, [f"pimc: warning: {WARNING}"])
    result = pimc_cli("run", squares, "--input", "a=300,-300,2,3", "--json")
    assert json.loads(result.out)["overflows"] == [{"instruction": "vmul.h", "source": None, "count": 2}]
    assert pimc_cli("run", squares, "--input", "a=1,2,3,4").err == ""


def test_strict(pimc_cli: Callable, squares: Path, tmp_path: Path) -> None:
    words = ("run", squares, "--strict-numerics", "--outputs", tmp_path / "out.npz")
    result = pimc_cli(*words, "--input", "a=300,-300,2,3")
    assert (result.code, result.out, result.error_lines) == (1, "", [f"pimc: error: main: {WARNING}"])
    assert not (tmp_path / "out.npz").exists()
    assert pimc_cli(*words, "--input", "a=1,2,3,4").code == 0


def test_python(squares: Path) -> None:
    values = np.array([300, 1, 1, 1], np.float16)
    assert pimc.load(squares).run(values).overflows == (Overflow("vmul.h", None, 1),)
    with pytest.raises(NumericsError, match="1 result left"):
        pimc.load(squares, strict_numerics=True).run(values)


def test_message_names_the_first_few() -> None:
    message = overflow_message([Overflow(f"v{i}", "net.py:1", 10) for i in range(8)])
    assert message.startswith("80 results left")
    assert "v4 of net.py:1: 10; and 3 more operations" in message
    assert "v5" not in message
