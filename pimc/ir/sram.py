"""The ``sram`` dialect: one operation an instruction of the SRAM-PIM cores, made from ``pimc.isa.sram``.

A program (``sram.program``) is one text for all its cores.  Scalars are SSA values of type ``!sram.reg``; after
``allocate`` the operation that defines one carries the register number in its attribute ``register``
(``sram.for``: ``registers``, for the counter and the carried values).  Register operands of an instruction are SSA
operands in the order of the table; an operand the instruction writes is its result; immediates and semaphores are
number properties named as in the table.  Configuration registers an instruction reads are further SSA operands
(``sram.vredp %d, %a, %b, %n, parts = %p``), until ``allocate`` makes ``sram.cfg`` operations of them.

Constants and buffers are in ``pimc.ir.sram_structure``, programs and loops in ``pimc.ir.sram_control``; this
module joins them to the dialect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import Parser, UnresolvedOperand
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.code_ops import SramCodeOp
from pimc.ir.instruction_ops import (
    Number,
    class_name,
    identifier,
    number_attribute,
    number_error,
    parse_number,
    print_extra_attributes,
    print_number,
)
from pimc.ir.sram_control import CONTROL_OPS, ForOp, IfOp, ProgramOp, YieldOp
from pimc.ir.sram_structure import (
    DATA_OPS,
    AddressOp,
    AllocOp,
    ArrivedOp,
    BufferType,
    ConstOp,
    KeepOp,
    PortOp,
    RegisterType,
)
from pimc.isa.spec import Instruction, Operand, OperandKind
from pimc.isa.sram import SRAM_ISA

__all__ = [
    "INSTRUCTION_OPS", "AddressOp", "AllocOp", "ArrivedOp", "BufferType", "ConstOp", "ForOp", "IfOp", "KeepOp",
    "PortOp", "ProgramOp", "RegisterType", "Sram", "SramInstruction", "YieldOp",
]  # fmt: skip

#: Instructions that only the emitter writes: branches come from ``sram.for`` and ``sram.if``, ``lui`` from
#: constants.
STRUCTURED = ("beq", "bne", "blt", "bge")
#: Register-to-register arithmetic without side effects.
_TRAPS = ("divu", "remu")


class SramInstruction(IRDLOperation):
    """An instruction of a core; subclasses are made from the table."""

    INSTRUCTION: ClassVar[Instruction]

    @classmethod
    def read_operands(cls) -> tuple[Operand, ...]:
        """The register operands the instruction reads, in table order."""
        return tuple(o for o in cls.INSTRUCTION.operands if o.kind is OperandKind.REGISTER and not o.writes)

    @classmethod
    def immediate_operands(cls) -> tuple[Operand, ...]:
        """The operands that are properties, in table order."""
        return tuple(o for o in cls.INSTRUCTION.operands if o.kind is not OperandKind.REGISTER)

    @classmethod
    def has_result(cls) -> bool:
        """Whether the instruction writes a scalar register."""
        return any(operand.writes for operand in cls.INSTRUCTION.operands)

    @property
    def config_values(self) -> tuple[SSAValue, ...]:
        """The values of the configuration registers the instruction reads, in table order; empty after
        ``allocate``.
        """
        return tuple(self.operands[len(self.read_operands()) :])

    @classmethod
    def build_op(
        cls, registers: Sequence[SSAValue], immediates: Mapping[str, Number], config: Mapping[str, SSAValue]
    ) -> SramInstruction:
        """An operation with these register operands (in table order), immediates and configuration values (by
        name).

        ``config`` is complete or empty.  Raises ``TypeError`` for what is missing or not the instruction's.
        """
        reads, names = cls.read_operands(), [operand.name for operand in cls.immediate_operands()]
        if len(registers) != len(reads):
            raise TypeError(f"{cls.name} reads {', '.join(o.name for o in reads)}; {len(registers)} values given")
        if set(immediates) != set(names):
            raise TypeError(f"{cls.name} takes immediates ({', '.join(names)}), not ({', '.join(immediates)})")
        if config and set(config) != set(cls.INSTRUCTION.config):
            expected = ", ".join(cls.INSTRUCTION.config)
            raise TypeError(f"{cls.name} takes configuration ({expected}), not ({', '.join(config)})")
        ordered = [config[name] for name in cls.INSTRUCTION.config] if config else []
        return cls.create(
            operands=[*registers, *ordered],
            result_types=[RegisterType()] if cls.has_result() else [],
            properties={name: number_attribute(immediates[name]) for name in names},
        )

    def verify_(self) -> None:
        """Every number must fit its field; configuration values are all given or none."""
        for operand in self.immediate_operands():
            error = number_error(self.INSTRUCTION, operand.name, self.properties[operand.name])
            if error is not None:
                raise VerifyException(f"{self.name}: {error}")
        if len(self.config_values) not in (0, len(self.INSTRUCTION.config)):
            raise VerifyException(f"{self.name}: needs values for {', '.join(self.INSTRUCTION.config)}")

    def print(self, printer: Printer) -> None:
        """Print ``%a, %b, imm = 5, parts = %p {register = 3 : i64}``."""
        reads = len(self.read_operands())
        separator = " "
        for value in self.operands[:reads]:
            printer.print_string(separator)
            printer.print_ssa_value(value)
            separator = ", "
        for operand in self.immediate_operands():
            printer.print_string(f"{separator}{operand.name} = ")
            print_number(printer, self.properties[operand.name])
            separator = ", "
        if self.config_values:
            for name, value in zip(self.INSTRUCTION.config, self.config_values, strict=True):
                printer.print_string(f"{separator}{name} = ")
                printer.print_ssa_value(value)
                separator = ", "
        print_extra_attributes(printer, self)

    @classmethod
    def parse(cls, parser: Parser) -> SramInstruction:
        """Parse what :meth:`print` prints; named operands in any order."""
        registers: list[UnresolvedOperand] = []
        immediates: dict[str, Number] = {}
        config: dict[str, UnresolvedOperand] = {}
        names = [operand.name for operand in cls.immediate_operands()]
        while True:
            value = parser.parse_optional_unresolved_operand()
            if value is not None:
                registers.append(value)
            else:
                name = parser.parse_optional_keyword_in([*names, *cls.INSTRUCTION.config])
                if name is None:
                    break
                parser.parse_punctuation("=")
                if name in names:
                    immediates[name] = parse_number(parser)
                else:
                    config[name] = parser.parse_unresolved_operand()
            if parser.parse_optional_punctuation(",") is None:
                break
        position = parser.pos
        register = RegisterType()
        values = [parser.resolve_operand(value, register) for value in registers]
        configured = {name: parser.resolve_operand(value, register) for name, value in config.items()}
        try:
            op = cls.build_op(values, immediates, configured)
        except TypeError as error:
            parser.raise_error(str(error), position)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


def _is_pure(instruction: Instruction) -> bool:
    writes = any(operand.writes for operand in instruction.operands)
    return writes and instruction.mnemonic != "lw" and instruction.mnemonic not in _TRAPS


def _instruction_op(instruction: Instruction) -> type[SramInstruction]:
    """The operation class of one table entry."""
    fields: dict[str, object] = {
        "__module__": __name__,
        "__doc__": instruction.doc,
        "__annotations__": {"INSTRUCTION": ClassVar[Instruction]},
        "name": f"sram.{identifier(instruction.mnemonic)}",
        "INSTRUCTION": instruction,
    }
    for operand in instruction.operands:
        if operand.kind is not OperandKind.REGISTER:
            fields[operand.name] = prop_def(Attribute)
        else:
            fields[operand.name] = result_def(RegisterType) if operand.writes else operand_def(RegisterType)
    fields["config_operands"] = var_operand_def(RegisterType)
    if _is_pure(instruction):
        fields["traits"] = traits_def(Pure())
    return irdl_op_definition(type(class_name(instruction.mnemonic), (SramInstruction,), fields))


#: The operation classes of the instructions, by mnemonic.
INSTRUCTION_OPS: dict[str, type[SramInstruction]] = {
    instruction.mnemonic: _instruction_op(instruction)
    for instruction in SRAM_ISA.instructions
    if instruction.mnemonic not in STRUCTURED
}

OPERATIONS: Sequence[type[Operation]] = (*INSTRUCTION_OPS.values(), *DATA_OPS, *CONTROL_OPS, SramCodeOp)

Sram = Dialect("sram", list(OPERATIONS), [RegisterType, BufferType])
