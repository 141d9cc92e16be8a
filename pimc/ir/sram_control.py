"""The operations of the ``sram`` dialect for control: programs, loops and branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr, i64
from xdsl.ir import (
    Attribute,
    Block,
    BlockArgument,
    Operation,
    Region,
    SSAValue,
)
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsTerminator, NoTerminator
from xdsl.utils.exceptions import VerifyException

from pimc.ir.instruction_ops import (
    numbers,
    print_extra_attributes,
)
from pimc.ir.program_op import AgentProgramOp, parse_block
from pimc.ir.sram_structure import AddressOp, AllocOp, ConstOp, PortOp, RegisterType

#: The comparisons of ``sram.if``: the branch instructions, signed 32-bit.
PREDICATES = ("eq", "ne", "lt", "ge")


@irdl_op_definition
class YieldOp(IRDLOperation):
    """The end of a loop body: the carried values of the next iteration."""

    name = "sram.yield"

    arguments = var_operand_def(RegisterType())

    traits = traits_def(IsTerminator())

    def __init__(self, *arguments: SSAValue) -> None:
        super().__init__(operands=[list(arguments)])

    def print(self, printer: Printer) -> None:
        """Print the values."""
        if self.arguments:
            printer.print_string(" ")
            printer.print_list(self.arguments, printer.print_ssa_value)
        print_extra_attributes(printer, self)

    @classmethod
    def parse(cls, parser: Parser) -> YieldOp:
        """Parse what :meth:`print` prints."""
        values = parser.parse_optional_undelimited_comma_separated_list(
            parser.parse_optional_unresolved_operand, parser.parse_unresolved_operand
        )
        op = cls(*(parser.resolve_operand(value, RegisterType()) for value in values or ()))
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class ForOp(IRDLOperation):
    """``%r = sram.for %i = %lo to %hi step 2 iter_args(%c = %init) { ... sram.yield %next }``.

    Counts from ``lower`` (signed) by the positive ``step`` while below ``upper``; a loop may run no
    iteration.
    """

    name = "sram.for"

    lower = operand_def(RegisterType())
    upper = operand_def(RegisterType())
    initial = var_operand_def(RegisterType())
    step = prop_def(IntegerAttr)
    body = region_def("single_block")
    finals = var_result_def(RegisterType())

    def __init__(
        self,
        lower: SSAValue,
        upper: SSAValue,
        step: int = 1,
        initial: Sequence[SSAValue] = (),
        body: Region | None = None,
    ) -> None:
        register = RegisterType()
        region = Region(Block(arg_types=[register] * (1 + len(initial)))) if body is None else body
        super().__init__(
            operands=[lower, upper, list(initial)],
            properties={"step": IntegerAttr(step, i64)},
            regions=[region],
            result_types=[[register] * len(initial)],
        )

    @property
    def counter(self) -> BlockArgument:
        """The loop counter in the body."""
        return self.body.block.args[0]

    @property
    def carried(self) -> Sequence[BlockArgument]:
        """The carried values in the body."""
        return self.body.block.args[1:]

    @property
    def next_values(self) -> Sequence[SSAValue]:
        """What the body yields."""
        last = self.body.block.last_op
        return last.operands if isinstance(last, YieldOp) else ()

    def verify_(self) -> None:
        """The step fits ``addi`` and the carried values agree in number."""
        if not 0 < self.step.value.data < 2**15:
            raise VerifyException("sram.for: step must be in [1, 32767]")
        if not isinstance(self.body.block.last_op, YieldOp):
            raise VerifyException("sram.for: the body must end in sram.yield")
        carried = len(self.initial)
        if len(self.body.block.args) != 1 + carried or len(self.next_values) != carried:
            raise VerifyException("sram.for: body arguments, initial values and yielded values must agree")

    def print(self, printer: Printer) -> None:
        """Print the header and the region; an empty yield is left out."""
        printer.print_string(" ")
        printer.print_ssa_value(self.counter)
        printer.print_string(" = ")
        printer.print_ssa_value(self.lower)
        printer.print_string(" to ")
        printer.print_ssa_value(self.upper)
        printer.print_string(f" step {self.step.value.data}")
        if self.initial:
            printer.print_string(" iter_args(")
            for index, (inner, outer) in enumerate(zip(self.carried, self.initial, strict=True)):
                printer.print_string(", " if index else "")
                printer.print_ssa_value(inner)
                printer.print_string(" = ")
                printer.print_ssa_value(outer)
            printer.print_string(")")
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_entry_block_args=False, print_block_terminators=bool(self.initial))

    @classmethod
    def parse(cls, parser: Parser) -> ForOp:
        """Parse what :meth:`print` prints."""
        register = RegisterType()
        arguments = [parser.parse_argument(expect_type=False).resolve(register)]
        parser.parse_punctuation("=")
        lower = _parse_register(parser)
        parser.parse_keyword("to")
        upper = _parse_register(parser)
        parser.parse_keyword("step")
        step = parser.parse_integer()
        initial: list[SSAValue] = []

        def carried() -> None:
            arguments.append(parser.parse_argument(expect_type=False).resolve(register))
            parser.parse_punctuation("=")
            initial.append(parser.resolve_operand(parser.parse_unresolved_operand(), register))

        if parser.parse_optional_keyword("iter_args"):
            parser.parse_comma_separated_list(parser.Delimiter.PAREN, carried)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        body = parser.parse_region(arguments)
        if not isinstance(body.block.last_op, YieldOp):
            end = YieldOp()
            if body.block.last_op is not None:
                end.location = body.block.last_op.location
            body.block.add_op(end)
        op = cls(lower, upper, step, initial, body)
        if attributes is not None:
            op.attributes |= attributes.data
        return op


@irdl_op_definition
class IfOp(IRDLOperation):
    """``sram.if %a lt %b { ... } else { ... }``: branch on a signed comparison."""

    name = "sram.if"

    left = operand_def(RegisterType())
    right = operand_def(RegisterType())
    predicate = prop_def(StringAttr)
    then_region = region_def("single_block")
    else_region = region_def("single_block")

    traits = traits_def(NoTerminator())

    def __init__(self, left: SSAValue, predicate: str, right: SSAValue, regions: Sequence[Region] = ()) -> None:
        bodies = list(regions) or [Region(Block()), Region(Block())]
        super().__init__(operands=[left, right], properties={"predicate": StringAttr(predicate)}, regions=bodies)

    def verify_(self) -> None:
        """The predicate is a branch of the core."""
        if self.predicate.data not in PREDICATES:
            raise VerifyException(f"sram.if: predicate must be one of {', '.join(PREDICATES)}")

    def print(self, printer: Printer) -> None:
        """Print the condition and the regions; an empty else region is left out."""
        printer.print_string(" ")
        printer.print_ssa_value(self.left)
        printer.print_string(f" {self.predicate.data} ")
        printer.print_ssa_value(self.right)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.then_region, print_empty_block=False)
        if self.else_region.block.first_op is not None:
            printer.print_string(" else ")
            printer.print_region(self.else_region)

    @classmethod
    def parse(cls, parser: Parser) -> IfOp:
        """Parse what :meth:`print` prints."""
        left = _parse_register(parser)
        predicate = next((name for name in PREDICATES if parser.parse_optional_keyword(name)), None)
        if predicate is None:
            parser.raise_error(f"expected one of {', '.join(PREDICATES)}")
        right = _parse_register(parser)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        then_region = parse_block(parser)
        else_region = parse_block(parser) if parser.parse_optional_keyword("else") else Region(Block())
        op = cls(left, predicate, right, [then_region, else_region])
        if attributes is not None:
            op.attributes |= attributes.data
        return op


def _parse_register(parser: Parser) -> SSAValue:
    return parser.resolve_operand(parser.parse_unresolved_operand(), RegisterType())


@irdl_op_definition
class ProgramOp(AgentProgramOp):
    """The program of an entry for some cores, one text for all of them; a missing final ``sram.halt`` is added."""

    name = "sram.program"
    AGENTS: ClassVar[str] = "cores"

    cores = prop_def(DenseArrayBase)

    @property
    def core_numbers(self) -> tuple[int, ...]:
        """The cores that run the program."""
        return self.agents

    def verify_(self) -> None:
        """Cores are distinct; values given one a core are as many as the cores; buffer names are unique."""
        self.check_agents()
        cores = self.core_numbers
        names: set[str] = set()
        for op in self.body.walk():
            if isinstance(op, AllocOp):
                if op.sym_name.data in names:
                    raise VerifyException(f"sram.program: buffer {op.sym_name.data!r} is allocated twice")
                names.add(op.sym_name.data)
            per_core: tuple[Attribute, ...] = ()
            if isinstance(op, ConstOp):
                per_core = (op.values,)
            elif isinstance(op, AddressOp):
                per_core = (op.offset,)
            elif isinstance(op, PortOp):
                per_core = (op.start, op.offset, op.count)
            if any(len(numbers(values)) not in (1, len(cores)) for values in per_core):
                raise VerifyException(f"{op.name}: values must be one for all cores or one a core")


CONTROL_OPS: Sequence[type[Operation]] = (YieldOp, ForOp, IfOp, ProgramOp)
