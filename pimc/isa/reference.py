"""The reference page of the instruction sets, docs/isa.md, from the tables.

``python -m pimc.isa.reference`` rewrites it; a test compares it with the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pimc.atomic import write_text
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import Instruction, InstructionSet, OperandKind
from pimc.isa.sram import CONFIG_REGISTERS, SRAM_ISA
from pimc.isa.sram_rows import SUFFIX, is_rows_form

#: What the test tells and this module is run as.
COMMAND = "python -m pimc.isa.reference"

_TITLES = {"sram": "SRAM-PIM cores", "hbm": "HBM-PIM controllers"}
_INTRODUCTIONS = {
    "sram": (
        "One 32-bit word an instruction; scalar registers `r0` to `r31` of 32 bits (`r0` is always 0), semaphores "
        "`s0` to `s31`. Addresses are byte addresses in the core's local memory (activation memory first, temporary "
        "memory behind it); lengths of vector instructions are elements, lengths of transfers are bytes. `f16` and "
        "`f32` are IEEE binary16 and binary32; an instruction ending in `.h` reads and writes f16, in `.f` f32, and "
        "computes in f32 either way, unless its line says otherwise.\n\n"
        "Vector instructions have a form for many rows, with the suffix `.r`: the instruction on each of "
        "`vector_rows` rows, in one dispatch. Row i of an operand is at its address + i * its stride "
        "(`vector_dst_stride`, `vector_a_stride`, and `vector_b_stride` for `b` or the scalar `s`), so that a "
        "result or scalar is one f32 a row. Strides are bytes, may be negative, and for what is only read zero: "
        "every row reads the same. Rows of the destination may meet neither each other nor another row of a "
        "source."
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
    rows = {i.mnemonic.removesuffix(SUFFIX): i for i in isa.instructions if is_rows_form(i)}
    listed = [i for i in isa.instructions if not is_rows_form(i)]
    for instruction in listed:
        anchor = f"{isa.name}-{instruction.mnemonic.replace('.', '-')}"
        yield f"| [`{instruction.mnemonic}`](#{anchor}) | {instruction.unit} | {_cell(instruction.doc)} |"
    for instruction in listed:
        yield from _instruction(isa, instruction)
        if instruction.mnemonic in rows:
            form = rows[instruction.mnemonic]
            yield ""
            yield f"Many rows: `{form.mnemonic}`, {_word(isa, form)}, reads {_names(form.config)}."


def _word(isa: InstructionSet, instruction: Instruction) -> str:
    """What tells an instruction's words from others."""
    digits = isa.word_bits // 4 + 2
    return f"word & `{instruction.match_mask:#0{digits}x}` = `{instruction.match:#0{digits}x}`"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _instruction(isa: InstructionSet, instruction: Instruction) -> Iterator[str]:
    anchor = f"{isa.name}-{instruction.mnemonic.replace('.', '-')}"
    operands = ", ".join(operand.name for operand in instruction.operands)
    yield ""
    yield f'### <a id="{anchor}"></a>`{f"{instruction.mnemonic} {operands}".rstrip()}`'
    yield ""
    yield instruction.doc
    yield ""
    facts = [
        f"Unit `{instruction.unit}`",
        f"latency `{instruction.latency}`",
        f"semantics `{instruction.semantics}`",
        _word(isa, instruction),
    ]
    if instruction.config:
        facts.append(f"reads {_names(instruction.config)}")
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
