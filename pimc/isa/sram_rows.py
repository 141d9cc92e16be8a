"""The many-rows form of vector instructions (suffix ``.r``): the same work on every row of two-dimensional operands.

A form is its instruction with another opcode and further configuration registers: ``vector_rows``, and the bytes
between the rows of each operand. It means what the instruction would, row after row; a stride of zero gives every row
the same operand (the weights of a norm, one number for all rows), and an instruction with an f32 result or an f32
number has one a row. Instructions that go over rows or elements at strides by themselves have no such form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pimc.isa.spec import Instruction
from pimc.isa.sram_fields import OPCODE

SUFFIX = ".r"
#: The configuration register with the bytes between the rows of an operand, by the operand's name.
STRIDES = {"dst": "vector_dst_stride", "a": "vector_a_stride", "b": "vector_b_stride", "s": "vector_b_stride"}
ROWS = "vector_rows"
_OPCODE_STEP = 20
#: Configuration registers of instructions that have rows or strides of their own.
_OWN_ROWS = frozenset({"rows", "stride_a"})


def is_rows_form(instruction: Instruction) -> bool:
    """Whether an instruction is the many-rows form of another one."""
    return ROWS in instruction.config


def moving_operands(instruction: Instruction) -> tuple[str, ...]:
    """The operands of a vector instruction that have rows: all addresses but the one that ``vfill`` does not read."""
    unread = "a" if instruction.mnemonic.startswith("vfill") else ""
    return tuple(operand.name for operand in instruction.operands if operand.name in STRIDES and operand.name != unread)


def rows_forms(instructions: Iterable[Instruction]) -> tuple[Instruction, ...]:
    """The many-rows forms of vector instructions."""
    return tuple(_rows_form(i) for i in instructions if not _OWN_ROWS.intersection(i.config))


def _rows_form(instruction: Instruction) -> Instruction:
    fixed = tuple((field, value + _OPCODE_STEP if field is OPCODE else value) for field, value in instruction.fixed)
    strides = tuple(STRIDES[name] for name in moving_operands(instruction))
    return replace(
        instruction,
        mnemonic=instruction.mnemonic + SUFFIX,
        fixed=fixed,
        config=(*instruction.config, ROWS, *strides),
        doc=f"{instruction.mnemonic} for each of vector_rows rows; the rows of an operand are its stride apart.",
    )
