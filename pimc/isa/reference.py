"""The reference page of the instruction sets, docs/isa.md, from the tables.

``python -m pimc.isa.reference`` rewrites it; a test compares it with the tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pimc.atomic import write_text
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import Instruction, InstructionSet, OperandKind
from pimc.isa.sram import CONFIG_REGISTERS, SRAM_ISA

#: What the test tells and this module is run as.
COMMAND = "python -m pimc.isa.reference"

_TITLES = {"sram": "SRAM-PIM cores", "hbm": "HBM-PIM controllers"}
_INTRODUCTIONS = {
    "sram": (
        "One 32-bit word an instruction; scalar registers `r0` to `r31` of 32 bits (`r0` is always 0), semaphores "
        "`s0` to `s31`. Addresses are byte addresses in the core's local memory (activation memory first, temporary "
        "memory behind it); lengths of vector instructions are elements, lengths of transfers are bytes. `f16` and "
        "`f32` are IEEE binary16 and binary32; an instruction ending in `.h` reads and writes f16, in `.f` f32, and "
        "computes in f32 either way, unless its line says otherwise."
    ),
    "hbm": (
        "One 64-bit word a command; registers `h0` to `h31` of 32 bits, semaphores `s0` to `s15`. Each "
        "pseudo-channel controller of a group runs the group's stream and skips a command whose `mask` has its bit "
        "clear."
    ),
}
_KINDS = {
    OperandKind.REGISTER: "register",
    OperandKind.CONFIG: "configuration register",
    OperandKind.SEMAPHORE: "semaphore",
    OperandKind.UNSIGNED: "unsigned",
    OperandKind.SIGNED: "signed",
    OperandKind.LABEL: "label",
    OperandKind.MASK: "mask",
}


def generate() -> str:
    """The text of docs/isa.md."""
    return "\n".join(_page()) + "\n"


def default_path() -> Path:
    """docs/isa.md of the repository that this module is in."""
    return Path(__file__).resolve().parents[2] / "docs" / "isa.md"


def _page() -> Iterator[str]:
    yield f"<!-- Generated from the tables in pimc/isa by `{COMMAND}`: change those. -->"
    yield "# Instruction sets"
    yield ""
    yield "How the words travel is in [binary.md](binary.md)."
    for isa in (SRAM_ISA, HBM_ISA):
        yield from _instruction_set(isa)
    yield ""
    yield "## Configuration registers"
    yield ""
    yield "`cfg` sets them; an instruction captures those it reads when it is dispatched."
    yield ""
    yield "| number | name | holds |"
    yield "| ---: | --- | --- |"
    for name, (number, doc) in CONFIG_REGISTERS.items():
        yield f"| {number} | `{name}` | {_cell(doc)} |"


def _instruction_set(isa: InstructionSet) -> Iterator[str]:
    yield ""
    yield f"## {_TITLES[isa.name]}"
    yield ""
    yield _INTRODUCTIONS[isa.name]
    yield ""
    yield "| instruction | unit | meaning |"
    yield "| --- | --- | --- |"
    for instruction in isa.instructions:
        anchor = f"{isa.name}-{instruction.mnemonic.replace('.', '-')}"
        yield f"| [`{instruction.mnemonic}`](#{anchor}) | {instruction.unit} | {_cell(instruction.doc)} |"
    for instruction in isa.instructions:
        yield from _instruction(isa, instruction)


def _instruction(isa: InstructionSet, instruction: Instruction) -> Iterator[str]:
    anchor = f"{isa.name}-{instruction.mnemonic.replace('.', '-')}"
    operands = ", ".join(operand.name for operand in instruction.operands)
    yield ""
    yield f'### <a id="{anchor}"></a>`{f"{instruction.mnemonic} {operands}".rstrip()}`'
    yield ""
    yield instruction.doc
    yield ""
    digits = isa.word_bits // 4
    facts = [
        f"Unit `{instruction.unit}`",
        f"latency `{instruction.latency}`",
        f"semantics `{instruction.semantics}`",
        f"word & `{instruction.match_mask:#0{digits + 2}x}` = `{instruction.match:#0{digits + 2}x}`",
    ]
    if instruction.config:
        facts.append("reads " + ", ".join(f"`{name}`" for name in instruction.config))
    yield "; ".join(facts) + "."
    if instruction.operands:
        yield ""
        yield "| operand | bits | kind | range | |"
        yield "| --- | --- | --- | --- | --- |"
    for operand in instruction.operands:
        bits = f"{operand.field.low + operand.field.width - 1}:{operand.field.low}"
        kind = _KINDS[operand.kind] + (", written" if operand.writes else "")
        limits = f"{operand.minimum} .. {operand.maximum}"
        yield f"| `{operand.name}` | {bits} | {kind} | {limits} | {_cell(operand.doc)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write_text(default_path(), generate())
