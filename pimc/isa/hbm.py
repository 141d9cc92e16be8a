"""The HBM-PIM controllers' 64-bit command set, after Newton (GWRITE, G_ACT, COMP, READRES) and GDDR6-AiM.

Each pseudo-channel controller of a group runs the group's stream; a command with the controller's bit clear
in ``mask`` is skipped by it.  The controller expands a command to DRAM commands that obey the timing
constraints of the target.  ``h`` registers are 32-bit scalars of the controller; a core sets them with
``hset``.
"""

from __future__ import annotations

from pimc.isa.spec import Field, Instruction, InstructionSet, Operand, OperandKind

_OPCODE = Field("opcode", 58, 6)
MASK = Operand(
    "mask", OperandKind.MASK, Field("mask", 54, 4), "pseudo-channels of the group, bit q for pseudo-channel q"
)
"""Operand of the commands that some pseudo-channels of a group may skip; its width is the most a group has."""
_REG = Field("reg", 49, 5)
_REG2 = Field("reg2", 44, 5)
_IMM32 = Field("imm32", 0, 32)
_OFFSET = Field("offset", 29, 20)


def _imm(name: str, low: int, width: int, doc: str) -> Operand:
    return Operand(name, OperandKind.UNSIGNED, Field(name, low, width), doc)


#: The unit in the banks, of commands that a memory without it has not.
BANK_UNIT = "bank_pu"
#: Units of commands that every target has.
CONTROLLER_UNITS = frozenset({"control", "dram"})


def _register(name: str, field: Field, doc: str, writes: bool = False) -> Operand:
    return Operand(name, OperandKind.REGISTER, field, doc, writes)


def _command(
    code: int, mnemonic: str, operands: tuple[Operand, ...], latency: str, doc: str, *, unit: str = "dram"
) -> Instruction:
    masked = operands if unit == "control" else (MASK, *operands)
    used = _OPCODE.mask | sum(operand.field.mask for operand in masked)
    zeros: list[tuple[Field, int]] = []
    bit = 0
    while bit < 64:  # every bit without a meaning must be zero
        if used >> bit & 1:
            bit += 1
            continue
        low = bit
        while bit < 64 and not used >> bit & 1:
            bit += 1
        zeros.append((Field(f"zero{low}", low, bit - low), 0))
    return Instruction(mnemonic, unit, ((_OPCODE, code), *zeros), masked, latency, mnemonic, doc)


_ROW = (
    _register("base", _REG, "register added to the row"),
    Operand("row", OperandKind.SIGNED, _OFFSET, "row offset"),
)
_BURST = (
    _imm("bank", 16, 4, "bank of the pseudo-channel"),
    _imm("column", 11, 5, "first column"),
    _imm("count", 5, 6, "columns of 32 bytes, within the row"),
    _register(
        "local",
        Field("local", 0, 5),
        "register with the local address in the tile's core; pseudo-channel q adds q * 32 * count",
    ),
)

HBM_ISA = InstructionSet(
    "hbm",
    64,
    "h",
    (
        _command(0, "nop", (), "control", "Nothing.", unit="control"),
        _command(1, "halt", (), "control", "End of the stream.", unit="control"),
        _command(
            2,
            "set",
            (_register("rd", _REG, "result", True), Operand("imm", OperandKind.SIGNED, _IMM32, "value")),
            "control",
            "rd = imm.",
            unit="control",
        ),
        _command(
            3,
            "add",
            (
                _register("rd", _REG, "result", True),
                _register("rs", _REG2, "left"),
                Operand("imm", OperandKind.SIGNED, _IMM32, "right"),
            ),
            "control",
            "rd = rs + imm.",
            unit="control",
        ),
        _command(
            4,
            "loop",
            (
                _register("rs", _REG, "added to the count"),
                Operand("imm", OperandKind.SIGNED, _IMM32, "count"),
            ),
            "control",
            "Run the commands up to the matching endl rs + imm times (0 skips them; at most 8 deep).",
            unit="control",
        ),
        _command(5, "endl", (), "control", "End of the innermost loop.", unit="control"),
        _command(
            6,
            "wait",
            (
                Operand("sem", OperandKind.SEMAPHORE, Field("sem", 49, 4), "semaphore of the controller"),
                _imm("count", 0, 16, "count"),
            ),
            "control",
            "Block until the semaphore >= count, then subtract count.",
            unit="control",
        ),
        _command(
            7,
            "sig",
            (Operand("sem", OperandKind.SEMAPHORE, _REG, "semaphore of the core"),),
            "control",
            "When every earlier command of this controller has completed, add 1 to the core's semaphore.",
            unit="control",
        ),
        _command(
            8,
            "addr",
            (
                _register("rd", _REG, "result", True),
                _register("rs", _REG2, "left"),
                _register("rt", Field("reg3", 39, 5), "right"),
            ),
            "control",
            "rd = rs + rt.",
            unit="control",
        ),
        _command(
            16,
            "wrgb",
            (
                _register("base", _REG, "register added to the local address"),
                _imm("address", 29, 20, "local byte address in the tile's core"),
                _imm("column", 24, 5, "first column of the global buffer"),
                _imm("count", 18, 6, "columns of 32 bytes"),
                _imm("stride", 0, 18, "bytes between the sources of consecutive pseudo-channels"),
            ),
            "global_buffer_write",
            "Global buffer[column : column + count] of pseudo-channel q = local memory at base + address + q * stride.",
            unit=BANK_UNIT,
        ),
        _command(17, "act", _ROW, "activate", "Ganged activation of row base + row in all banks.", unit=BANK_UNIT),
        _command(
            18,
            "mac",
            (
                _imm("column", 24, 5, "first column of the open rows"),
                _imm("buffer", 19, 5, "first column of the global buffer"),
                _imm("count", 13, 6, "columns"),
                _imm("result", 7, 6, "result register"),
                _imm("clear", 6, 1, "1: the result register starts from zero"),
                _register("base", _REG, "register added to the number of the result register"),
            ),
            "mac",
            "In every bank: result (+)= sum over the columns of open row . global buffer (16 products a column).",
            unit=BANK_UNIT,
        ),
        _command(19, "pre", (), "precharge", "Precharge all banks."),
        _command(
            20,
            "rdres",
            (
                _register("base", _REG, "register added to the local address"),
                _imm("address", 29, 20, "local byte address in the tile's core"),
                _imm("result", 23, 6, "first result register"),
                _imm("count", 17, 6, "result registers"),
            ),
            "read_results",
            "Local f32[(i * P + q) * 16 + bank] at base + address = result register (result + i) of that "
            "bank, for i < count; P is the number of set bits of mask and q this controller's rank among "
            "them.",
            unit=BANK_UNIT,
        ),
        _command(21, "rd", (*_ROW, *_BURST), "read", "Read columns of one bank's row to local memory."),
        _command(22, "wr", (*_ROW, *_BURST), "write", "Write columns of one bank's row from local memory."),
        _command(23, "ref", (), "refresh", "Refresh all banks now."),
    ),
)
