"""The assembly text of a compiled binary, and back: the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from compiled import Compilation


def test_disassembled_and_assembled_again(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    text, again = tmp_path / "x.pasm", tmp_path / "y.pimx"
    result = pimc_cli("disasm", compilation.binary)
    assert result.code == 0, result.err
    text.write_text(result.out)
    assert pimc_cli("asm", text, "-o", again).code == 0
    assert again.read_bytes() == compilation.binary.read_bytes()


def test_a_changed_instruction_is_another_binary(pimc_cli: Callable, compilation: Compilation, tmp_path: Path) -> None:
    text, again = tmp_path / "x.pasm", tmp_path / "y.pimx"
    source = pimc_cli("disasm", compilation.binary).out
    assert source.count("vsilu.h") >= 2  # one an entry
    text.write_text(source.replace("vsilu.h", "vrelu.h", 1))
    assert pimc_cli("asm", text, "-o", again).code == 0
    assert again.read_bytes() != compilation.binary.read_bytes()
