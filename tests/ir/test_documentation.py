"""docs/ir.md lists every nn operation with its operands and attributes."""

from __future__ import annotations

from pathlib import Path

from pimc.ir import nn
from pimc.ir.nn.reference import COMMAND, generate


def test_every_operation_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ir.md").read_text(encoding="utf-8")
    assert page == generate(page), f"docs/ir.md is out of date: run `{COMMAND}`"
    assert all(f"| `{op.name}` |" in page for op in nn.Nn.operations)
