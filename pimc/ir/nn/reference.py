"""The table of operators in docs/ir.md, from their definitions: ``python -m pimc.ir.nn.reference`` rewrites it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xdsl.irdl import OptOperandDef, VarOperandDef

from pimc.atomic import write_text
from pimc.ir import nn

#: What the test tells and this module is run as.
COMMAND = "python -m pimc.ir.nn.reference"
_HEAD = ("| operation | operands | attributes | meaning |", "| --- | --- | --- | --- |")


def default_path() -> Path:
    """docs/ir.md of the repository that this module is in."""
    return Path(__file__).resolve().parents[3] / "docs" / "ir.md"


def generate(page: str) -> str:
    """``page`` with its table as the operators are defined."""
    before, rest = page.split(f"{_HEAD[0]}\n", 1)
    after = rest.split("\n\n", 1)[1]
    return before + "\n".join((*_HEAD, *_rows())) + f"\n\n{after}"


def _rows() -> Iterator[str]:
    for op in nn.OPERATIONS:
        definition = op.get_irdl_definition()
        operands = [name + _mark(operand) for name, operand in definition.operands]
        cells = (", ".join(names) or "-" for names in (operands, list(definition.properties)))
        yield f"| `{op.name}` | {' | '.join(cells)} | {_meaning(op)} |"


def _mark(operand: object) -> str:
    return "?" if isinstance(operand, OptOperandDef) else "*" if isinstance(operand, VarOperandDef) else ""


def _meaning(op: type[nn.NnOp]) -> str:
    """The first paragraph of the docstring, on one line."""
    paragraph = (op.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


if __name__ == "__main__":
    write_text(default_path(), generate(default_path().read_text(encoding="utf-8")))
