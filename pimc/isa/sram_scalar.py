"""Control and scalar instructions of the SRAM-PIM core (unit ``scu``)."""

from __future__ import annotations

from pimc.isa.spec import Instruction, Operand, OperandKind
from pimc.isa.sram_fields import (
    CONFIG,
    CONTROLLER_SEMAPHORE,
    IMM,
    RD,
    RS1,
    RS2,
    SHIFT,
    ZERO_CONTROLLER_SEMAPHORE,
    ZERO_IMM,
    ZERO_RD,
    ZERO_RS1,
    ZERO_RS2,
    ZERO_RS3,
    ZERO_SHIFT,
    op,
    register,
)


def _scalar_rrr(funct: int, mnemonic: str, doc: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        (*op(1, funct), ZERO_RS3),
        (
            register("rd", RD, "result", True),
            register("rs1", RS1, "left"),
            register("rs2", RS2, "right"),
        ),
        "scalar",
        f"scalar_{mnemonic}",
        doc,
    )


def _scalar_rri(code: int, mnemonic: str, kind: OperandKind, doc: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        op(code),
        (
            register("rd", RD, "result", True),
            register("rs1", RS1, "left"),
            Operand("imm", kind, IMM, "right"),
        ),
        "scalar",
        f"scalar_{mnemonic}",
        doc,
    )


def _shift_imm(code: int, mnemonic: str, doc: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        (*op(code), ZERO_SHIFT),
        (
            register("rd", RD, "result", True),
            register("rs1", RS1, "left"),
            Operand("imm", OperandKind.UNSIGNED, SHIFT, "bits"),
        ),
        "scalar",
        f"scalar_{mnemonic}",
        doc,
    )


def _branch(code: int, mnemonic: str, condition: str) -> Instruction:
    return Instruction(
        mnemonic,
        "scu",
        op(code),
        (
            register("rs1", RD, "left"),
            register("rs2", RS1, "right"),
            Operand("target", OperandKind.LABEL, IMM, "words from this instruction"),
        ),
        "branch",
        f"branch_{mnemonic}",
        f"Branch if {condition} (signed 32-bit).",
    )


SCALAR = (
    _scalar_rrr(0, "add", "rd = rs1 + rs2, modulo 2^32."),
    _scalar_rrr(1, "sub", "rd = rs1 - rs2, modulo 2^32."),
    _scalar_rrr(2, "mul", "rd = low 32 bits of rs1 * rs2."),
    _scalar_rrr(3, "and", "Bitwise and."),
    _scalar_rrr(4, "or", "Bitwise or."),
    _scalar_rrr(5, "xor", "Bitwise exclusive or."),
    _scalar_rrr(6, "sll", "rd = rs1 << (rs2 mod 32)."),
    _scalar_rrr(7, "srl", "Logical right shift by rs2 mod 32."),
    _scalar_rrr(8, "sra", "Arithmetic right shift by rs2 mod 32."),
    _scalar_rrr(9, "slt", "rd = 1 if rs1 < rs2 (signed), else 0."),
    _scalar_rrr(10, "sltu", "rd = 1 if rs1 < rs2 (unsigned), else 0."),
    _scalar_rrr(11, "min", "Signed minimum."),
    _scalar_rrr(12, "max", "Signed maximum."),
    _scalar_rrr(13, "divu", "Unsigned quotient; division by zero stops the run with an error."),
    _scalar_rrr(14, "remu", "Unsigned remainder; division by zero stops the run with an error."),
    _scalar_rri(2, "addi", OperandKind.SIGNED, "rd = rs1 + imm, modulo 2^32."),
    _scalar_rri(3, "ori", OperandKind.UNSIGNED, "rd = rs1 | imm, imm zero-extended."),
    _scalar_rri(4, "andi", OperandKind.UNSIGNED, "rd = rs1 & imm, imm zero-extended."),
    _shift_imm(5, "slli", "rd = rs1 << imm (imm < 32)."),
    _shift_imm(6, "srli", "Logical right shift by imm (imm < 32)."),
    _shift_imm(7, "srai", "Arithmetic right shift by imm (imm < 32)."),
    Instruction(
        "lui",
        "scu",
        (*op(8), ZERO_RS1),
        (
            register("rd", RD, "result", True),
            Operand("imm", OperandKind.UNSIGNED, IMM, "upper half"),
        ),
        "scalar",
        "scalar_lui",
        "rd = imm << 16.",
    ),
    _scalar_rri(9, "lw", OperandKind.SIGNED, "rd = 32-bit word of local memory at rs1 + imm (4-aligned)."),
    Instruction(
        "sw",
        "scu",
        op(10),
        (
            register("rs2", RD, "value"),
            register("rs1", RS1, "base address"),
            Operand("imm", OperandKind.SIGNED, IMM, "byte offset"),
        ),
        "scalar",
        "scalar_sw",
        "Store the 32-bit word rs2 to local memory at rs1 + imm (4-aligned).",
    ),
    Instruction(
        "cid",
        "scu",
        (*op(11), ZERO_RS1, ZERO_IMM),
        (register("rd", RD, "core number", True),),
        "scalar",
        "scalar_cid",
        "rd = number of this core.",
    ),
    Instruction(
        "cfg",
        "scu",
        (*op(12), ZERO_IMM),
        (
            Operand("config", OperandKind.CONFIG, CONFIG, "configuration register"),
            register("rs1", RS1, "value"),
        ),
        "scalar",
        "scalar_cfg",
        "Set a configuration register; instructions capture it when they are dispatched.",
    ),
)

CONTROL = (
    Instruction("nop", "scu", (*op(0, 0), ZERO_RD, ZERO_RS1, ZERO_RS2, ZERO_RS3), (), "scalar", "nop", "Nothing."),
    Instruction(
        "halt",
        "scu",
        (*op(0, 1), ZERO_RD, ZERO_RS1, ZERO_RS2, ZERO_RS3),
        (),
        "scalar",
        "halt",
        "Stop this core when everything it dispatched has finished.",
    ),
    _branch(13, "beq", "rs1 == rs2"),
    _branch(14, "bne", "rs1 != rs2"),
    _branch(15, "blt", "rs1 < rs2"),
    _branch(16, "bge", "rs1 >= rs2"),
    Instruction(
        "wait",
        "scu",
        op(17),
        (
            Operand("sem", OperandKind.SEMAPHORE, RD, "semaphore"),
            register("rs1", RS1, "added to the count"),
            Operand("imm", OperandKind.UNSIGNED, IMM, "count"),
        ),
        "scalar",
        "wait",
        "Block dispatch until semaphore >= rs1 + imm, then subtract that.",
    ),
    Instruction(
        "sigh",
        "scu",
        (*op(18), ZERO_CONTROLLER_SEMAPHORE, ZERO_RS1, ZERO_IMM),
        (Operand("sem", OperandKind.SEMAPHORE, CONTROLLER_SEMAPHORE, "semaphore of the controllers"),),
        "signal",
        "signal_hbm",
        "When everything dispatched before has finished, add 1 to this semaphore of every controller of the tile.",
    ),
    Instruction(
        "hset",
        "scu",
        (*op(19), ZERO_IMM),
        (
            Operand("hreg", OperandKind.UNSIGNED, RD, "controller register"),
            register("rs1", RS1, "value"),
        ),
        "signal",
        "set_hbm_register",
        "Set a register of every controller of the tile (order it with sigh and the stream's wait).",
    ),
)
