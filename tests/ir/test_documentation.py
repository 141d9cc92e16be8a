"""docs/ir.md lists every nn operation with its operands and attributes."""

from __future__ import annotations

from pathlib import Path

from pimc.ir import nn


def test_every_operation_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "ir.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `nn.")}
    assert set(rows) == {op.name for op in nn.Nn.operations}
    for op in nn.Nn.operations:
        definition = op.get_irdl_definition()
        names = [name for name, _ in definition.operands] + list(definition.properties)
        assert all(name in rows[op.name] for name in names), op.name
