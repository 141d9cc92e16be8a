"""The ``hbm`` dialect: one operation a command of the HBM-PIM controllers, made from ``pimc.isa.hbm``.

Every operand of a command (registers included: a stream has 32 of them and few are needed) is a number property.
Loops are structured: ``hbm.loop`` with a region stands for ``loop`` and ``endl``.  Local addresses (``wrgb``,
``rdres``, ``set``) may name a buffer of the tile's core: ``address = @x + 64``; ``allocate`` resolves them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Attribute, Block, Dialect, Operation, Region
from xdsl.irdl import IRDLOperation, irdl_op_definition, prop_def, region_def, traits_def
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import NoTerminator
from xdsl.utils.exceptions import VerifyException

from pimc.ir.code_ops import HbmCodeOp
from pimc.ir.instruction_ops import (
    LocalAddressAttr,
    Number,
    class_name,
    identifier,
    number_attribute,
    number_error,
    numbers,
    parse_number,
    print_extra_attributes,
    print_number,
)
from pimc.ir.program_op import AgentProgramOp, parse_block
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import Instruction

#: Commands that the dialect writes as a structured operation.
STRUCTURED = ("loop", "endl")
#: Loops may be nested this deep (the controller's loop stack).
MAX_LOOP_DEPTH = 8


class HbmCommand(IRDLOperation):
    """A command of a stream; subclasses are made from the table."""

    INSTRUCTION: ClassVar[Instruction]

    @classmethod
    def build_op(cls, **values: Number) -> HbmCommand:
        """An operation with these operands; ``mask`` is all pseudo-channels unless given.

        Raises ``TypeError`` for an operand that is missing or that the command does not have.
        """
        names = [operand.name for operand in cls.INSTRUCTION.operands]
        if "mask" in names:
            values.setdefault("mask", 0b1111)
        if unknown := set(values) - set(names):
            raise TypeError(f"{cls.name} has no operand {', '.join(sorted(unknown))}")
        if missing := [name for name in names if name not in values]:
            raise TypeError(f"{cls.name} needs {', '.join(missing)}")
        return cls.create(properties={name: number_attribute(values[name]) for name in names})

    def verify_(self) -> None:
        """Every number must fit its field."""
        for operand in self.INSTRUCTION.operands:
            error = number_error(self.INSTRUCTION, operand.name, self.properties[operand.name])
            if error is not None:
                raise VerifyException(f"{self.name}: {error}")

    def print(self, printer: Printer) -> None:
        """Print ``name = number`` for every operand in table order; a full mask is left out."""
        separator = " "
        for operand in self.INSTRUCTION.operands:
            value = self.properties[operand.name]
            if operand.name == "mask" and value == number_attribute(0b1111):
                continue
            printer.print_string(f"{separator}{operand.name} = ")
            print_number(printer, value)
            separator = ", "
        print_extra_attributes(printer, self)

    @classmethod
    def parse(cls, parser: Parser) -> HbmCommand:
        """Parse what :meth:`print` prints, in any order of the operands."""
        names = [operand.name for operand in cls.INSTRUCTION.operands]
        values: dict[str, Number] = {}
        more = bool(names)
        while more:
            name = parser.parse_optional_keyword_in(names)
            if name is None:
                break
            parser.parse_punctuation("=")
            values[name] = parse_number(parser)
            more = parser.parse_optional_punctuation(",") is not None
        position = parser.pos
        try:
            op = cls.build_op(**values)
        except TypeError as error:
            parser.raise_error(str(error), position)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


def _command_op(instruction: Instruction) -> type[HbmCommand]:
    """The operation class of one table entry."""
    fields: dict[str, object] = {
        "__module__": __name__,
        "__doc__": instruction.doc,
        "__annotations__": {"INSTRUCTION": ClassVar[Instruction]},
        "name": f"hbm.{identifier(instruction.mnemonic)}",
        "INSTRUCTION": instruction,
    }
    for operand in instruction.operands:
        fields[operand.name] = prop_def(Attribute)
    return irdl_op_definition(type(class_name(instruction.mnemonic), (HbmCommand,), fields))


#: The operation classes of the commands, by mnemonic.
COMMAND_OPS: dict[str, type[HbmCommand]] = {
    instruction.mnemonic: _command_op(instruction)
    for instruction in HBM_ISA.instructions
    if instruction.mnemonic not in STRUCTURED
}


@irdl_op_definition
class LoopOp(IRDLOperation):
    """``hbm.loop rs = 1, imm = 4 { ... }``: run the region h[rs] + imm times (a missing ``rs`` is h0)."""

    name = "hbm.loop"

    rs = prop_def(Attribute)
    imm = prop_def(Attribute)
    body = region_def("single_block")

    traits = traits_def(NoTerminator())

    def __init__(self, imm: Number, rs: int = 0, body: Region | None = None) -> None:
        region = Region(Block()) if body is None else body
        super().__init__(properties={"rs": number_attribute(rs), "imm": number_attribute(imm)}, regions=[region])

    def verify_(self) -> None:
        """The numbers fit their fields and the nesting the controller's loop stack."""
        instruction = HBM_ISA.by_mnemonic()["loop"]
        for name in ("rs", "imm"):
            error = number_error(instruction, name, self.properties[name])
            if error is not None:
                raise VerifyException(f"{self.name}: {error}")
        depth, parent = 1, self.parent_op()
        while isinstance(parent, LoopOp):
            depth, parent = depth + 1, parent.parent_op()
        if depth > MAX_LOOP_DEPTH:
            raise VerifyException(f"{self.name}: loops are nested more than {MAX_LOOP_DEPTH} deep")

    def print(self, printer: Printer) -> None:
        """Print ``rs = r, imm = n { ... }``."""
        printer.print_string(" rs = ")
        print_number(printer, self.rs)
        printer.print_string(", imm = ")
        print_number(printer, self.imm)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_empty_block=False)

    @classmethod
    def parse(cls, parser: Parser) -> LoopOp:
        """Parse what :meth:`print` prints."""
        parser.parse_keyword("rs")
        parser.parse_punctuation("=")
        rs = parse_number(parser)
        parser.parse_punctuation(",")
        parser.parse_keyword("imm")
        parser.parse_punctuation("=")
        imm = parse_number(parser)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(imm, body=parse_block(parser))
        op.properties["rs"] = rs
        if attributes is not None:
            op.attributes |= attributes.data
        return op


@irdl_op_definition
class ProgramOp(AgentProgramOp):
    """The stream of an entry for the controllers of some groups (tiles); a missing final ``hbm.halt`` is added."""

    name = "hbm.program"
    AGENTS: ClassVar[str] = "groups"

    groups = prop_def(Attribute)

    @property
    def group_numbers(self) -> tuple[int, ...]:
        """The groups that run the stream."""
        return self.agents

    def verify_(self) -> None:
        """Groups are distinct, and numbers given one a group are as many as the groups."""
        self.check_agents()
        groups = self.group_numbers
        for op in self.body.walk():
            for name, value in op.properties.items():
                if isinstance(value, LocalAddressAttr | StringAttr):
                    continue
                if len(numbers(value)) not in (1, len(groups)):
                    raise VerifyException(f"{op.name}: {name} must have one value or one a group")


OPERATIONS: Sequence[type[Operation]] = (*COMMAND_OPS.values(), LoopOp, ProgramOp, HbmCodeOp)

Hbm = Dialect("hbm", list(OPERATIONS), [LocalAddressAttr])
