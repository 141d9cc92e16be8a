"""A dump of any stage is a way in: ``pimc compile`` takes it up and makes the binary of the model itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import SIZES, Compilation
from safetensors.numpy import load_file, save_file

from pimc.driver.pipeline import DEFAULT
from pimc.isa.container import load_program

QUICK = ("outline", "layout", "lower")


@pytest.mark.parametrize(
    "stage", [stage if stage in QUICK else pytest.param(stage, marks=pytest.mark.slow) for stage in ("input", *DEFAULT)]
)
def test_every_dump_makes_the_same_bytes(
    pimc_cli: Callable, compilation: Compilation, tmp_path: Path, stage: str
) -> None:
    dump = compilation.dumps[compilation.names.index(stage)]
    result = pimc_cli("compile", dump, "-o", tmp_path / "again.pimx")
    assert result.code == 0, result.err
    assert (tmp_path / "again.pimx").read_bytes() == compilation.binary.read_bytes()


def test_an_edited_dump_makes_another_program(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    """One figure changed by hand; the folder's weights and tokenizer go with it."""
    dump = compilation.dumps[compilation.names.index("outline")]
    text = dump.read_text()
    edited = dump.parent / "edited.mlir"
    edited.write_text(re.sub(r"eps = [0-9.e-]+", "eps = 2.000000e-03", text))
    assert edited.read_text() != text
    result = pimc_cli("compile", edited, "-o", tmp_path / "m.pimx")
    edited.unlink()
    assert result.code == 0, result.err
    assert (tmp_path / "m.pimx").read_bytes() != compilation.binary.read_bytes()
    made, direct = load_program(tmp_path / "m.pimx"), load_program(compilation.binary)
    assert (made.model, made.tokenizer) == (direct.model, direct.tokenizer)
    assert all((made.images[pch] == image).all() for pch, image in direct.images.items())


def test_weights_stand_where_they_are_named(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    dump = compilation.dumps[compilation.names.index("schedule")]
    stored = dump.parent / "model.safetensors"
    assert stored.stat().st_mode == dump.stat().st_mode
    alone = tmp_path / "x.mlir"
    alone.write_bytes(dump.read_bytes())
    missing = pimc_cli("compile", alone, "-o", tmp_path / "m.pimx")
    assert missing.code == 1
    assert "there is no weight" in missing.error_lines[0]
    assert "--weights" in missing.error_lines[-1]
    assert pimc_cli("compile", alone, "--weights", stored, "-o", tmp_path / "m.pimx").code == 0
    assert (tmp_path / "m.pimx").read_bytes() == compilation.binary.read_bytes()
    arrays = load_file(stored)
    name = next(name for name in arrays if name.endswith("norm.weight"))
    save_file({**arrays, name: np.zeros(3, np.float16)}, tmp_path / "x.safetensors")
    wrong = pimc_cli("compile", alone, "-o", tmp_path / "m.pimx")
    assert wrong.code == 1
    assert "has the shape (3,)" in wrong.err
    assert f"{alone}:" in wrong.err
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 100)
    assert "is no safetensors file" in pimc_cli("compile", alone, "-o", tmp_path / "m.pimx").error_lines[0]


def test_weights_can_be_left_out_of_a_dump(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    words = ("-o", tmp_path / "m.pimx", "--dump-ir", tmp_path / "ir", "--no-dump-weights")
    dump = compilation.dumps[compilation.names.index("layout")]
    assert pimc_cli("compile", dump, *words).code == 0
    left = {path.name for path in (tmp_path / "ir").iterdir()}
    assert "00-input.mlir" in left
    kept = tmp_path / "ir" / "model.safetensors"
    assert not kept.exists() or not load_file(kept)


def test_what_does_not_go_with_ir_is_refused(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    dump = compilation.dumps[0]
    for words in (SIZES[:2], ("--bind", "x=1"), ("--shape", "x=1")):
        assert pimc_cli("compile", dump, "-o", tmp_path / "m.pimx", *words).code == 2, words
    assert pimc_cli("compile", compilation.folder, "-o", tmp_path / "m.pimx", "--weights", dump).code == 2
    result = pimc_cli("opt", dump, "-o", tmp_path / "m.pimx")
    assert result.code == 2
    assert "pimc compile" in result.error_lines[1]


def test_a_map_of_other_banks_is_refused(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    """The figures of a late dump lead to memory accesses: they are checked against the target."""
    dump = compilation.dumps[compilation.names.index("allocate")]
    text = dump.read_text()
    for old, new in (
        ("tiles = 32", "tiles = 31"),
        ("columns = 32", "columns = 0"),
        ("row_base = ", "row_base = 9999999"),
    ):
        assert old in text
        edited = dump.parent / "edited.mlir"
        edited.write_text(text.replace(old, new))
        result = pimc_cli("compile", edited, "-o", tmp_path / "m.pimx")
        edited.unlink()
        assert result.code == 1, result.err
    assert list(tmp_path.iterdir()) == []


def test_ports_of_code_are_checked(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    """Code in IR, as ``emit`` leaves it, is as untrusted as that of a binary."""
    dump = compilation.dumps[compilation.names.index("emit")]
    text = dump.read_text()
    for old, new in (('dtype = "i32"', 'dtype = "sram.code"'), ("pieces = array<i64: ", "pieces = array<i64: -1, ")):
        assert old in text
        edited = dump.parent / "edited.mlir"
        edited.write_text(text.replace(old, new))
        result = pimc_cli("compile", edited, "-o", tmp_path / "m.pimx")
        edited.unlink()
        assert result.code == 1, result.err
        assert "malformed" in result.error_lines[0]
