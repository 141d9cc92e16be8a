"""A table with a conflict must never load."""

from __future__ import annotations

import pytest

from pimc.isa.spec import Field, Instruction, InstructionSet, Operand, OperandKind

OPCODE = Field("opcode", 4, 4)
LOW = Field("low", 0, 4)


def instruction(
    mnemonic: str, *fixed: tuple[Field, int], operands: tuple[Operand, ...] = (), semantics: str = ""
) -> Instruction:
    return Instruction(mnemonic, "unit", fixed, operands, "latency", semantics, "")


def operand(field: Field) -> Operand:
    return Operand(field.name, OperandKind.UNSIGNED, field, "")


@pytest.mark.parametrize(
    ("message", "table"),
    [
        ("appears twice", [instruction("a", (OPCODE, 0), (LOW, 0)), instruction("a", (OPCODE, 1), (LOW, 0))]),
        (
            "a and b cannot be told apart",
            [
                instruction("a", (OPCODE, 1), operands=(operand(LOW),)),
                instruction("b", (OPCODE, 1), (LOW, 3)),
            ],
        ),
        ("field wide leaves the word", [instruction("a", (Field("wide", 4, 5), 0), (LOW, 0))]),
        ("field low overlaps", [instruction("a", (OPCODE, 0), (LOW, 0), operands=(operand(LOW),))]),
        ("16 does not fit field opcode", [instruction("a", (OPCODE, 16), (LOW, 0))]),
        ("bits 0xf are neither fixed nor an operand", [instruction("a", (OPCODE, 1))]),
    ],
)
def test_conflicts(message: str, table: list[Instruction]) -> None:
    with pytest.raises(ValueError, match=message):
        InstructionSet("test", 8, "r", tuple(table))


def test_too_many_operands() -> None:
    bits = tuple(operand(Field(f"b{i}", i, 1)) for i in range(9))
    with pytest.raises(ValueError, match="more than 8 operands"):
        InstructionSet("test", 13, "r", (instruction("a", (Field("opcode", 9, 4), 0), operands=bits),))


def test_index() -> None:
    isa = InstructionSet(
        "test", 8, "r", (instruction("a", (OPCODE, 0), (LOW, 0)), instruction("b", (OPCODE, 1), (LOW, 0)))
    )
    assert dict(isa.index) == {"a": 0, "b": 1}
    assert list(isa.by_mnemonic()) == ["a", "b"]
