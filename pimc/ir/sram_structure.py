"""The operations of the ``sram`` dialect that are not instructions: programs, constants, buffers, loops and
branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr, UnitAttr, i64
from xdsl.ir import (
    Attribute,
    Block,
    BlockArgument,
    Operation,
    ParametrizedAttribute,
    Region,
    SSAValue,
    TypeAttribute,
)
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove, IsTerminator, NoTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.instruction_ops import (
    numbers,
    numbers_attribute,
    parse_number,
    print_extra_attributes,
    print_number,
)

#: The memories of a core a buffer can be in.
MEMORIES = ("activation", "temp")
#: The comparisons of ``sram.if``: the branch instructions, signed 32-bit.
PREDICATES = ("eq", "ne", "lt", "ge")


@irdl_attr_definition
class RegisterType(ParametrizedAttribute, TypeAttribute):
    """``!sram.reg``: a 32-bit scalar register of a core."""

    name = "sram.reg"


@irdl_attr_definition
class BufferType(ParametrizedAttribute, TypeAttribute):
    """``!sram.buf``: a buffer in a local memory of a core."""

    name = "sram.buf"


def _print_values(printer: Printer, values: Attribute) -> None:
    """Print one value bare and several in brackets."""
    found = numbers(values)
    printer.print_string(str(found[0]) if len(found) == 1 else "[" + ", ".join(map(str, found)) + "]")


def _compact(values: int | Iterable[int]) -> Attribute:
    """An array of one value where all are equal."""
    found = [values] if isinstance(values, int) else [int(value) for value in values]
    return numbers_attribute(found[:1] if len(set(found)) == 1 else found)


@irdl_op_definition
class ConstOp(IRDLOperation):
    """``%x = sram.const 5`` or ``[1, 2, ...]``: an i32, one for all cores of the program or one a core.

    A pseudo-instruction (``addi``, ``ori``, ``lui`` or two of them); ``allocate`` keeps it in a register or
    makes it again.
    """

    name = "sram.const"

    values = prop_def(DenseArrayBase)
    result = result_def(RegisterType())

    traits = traits_def(Pure())

    def __init__(self, values: int | Iterable[int]) -> None:
        super().__init__(properties={"values": _compact(values)}, result_types=[RegisterType()])

    def verify_(self) -> None:
        """Values are 32-bit, signed or unsigned."""
        if not all(-(2**31) <= value < 2**32 for value in numbers(self.values)):
            raise VerifyException("sram.const: values must fit 32 bits")

    def print(self, printer: Printer) -> None:
        """Print the value or values."""
        printer.print_string(" ")
        _print_values(printer, self.values)
        print_extra_attributes(printer, self)

    @classmethod
    def parse(cls, parser: Parser) -> ConstOp:
        """Parse what :meth:`print` prints."""
        op = cls(numbers(parse_number(parser)))
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class AllocOp(IRDLOperation):
    """``%b = sram.alloc "x" {bytes = 1024 : i64, memory = "activation"}``: a buffer in a local memory of
    every core.

    ``sym_name`` is unique in the program.  ``remote``: other cores write it by messages, so it has one
    address in all
    programs of the entry (the ones of the same name are the same buffer).  ``address`` is set by
    ``allocate``.
    """

    name = "sram.alloc"

    sym_name = prop_def(StringAttr)
    bytes = prop_def(IntegerAttr)
    memory = prop_def(StringAttr)
    align = prop_def(IntegerAttr)
    remote = opt_prop_def(UnitAttr)
    address = opt_prop_def(IntegerAttr)
    buffer = result_def(BufferType())

    assembly_format = "$sym_name attr-dict"
    irdl_options = (ParsePropInAttrDict(),)

    def __init__(
        self, sym_name: str, size: int, *, memory: str = "activation", align: int = 32, remote: bool = False
    ) -> None:
        super().__init__(
            properties={
                "sym_name": StringAttr(sym_name),
                "bytes": IntegerAttr(size, i64),
                "memory": StringAttr(memory),
                "align": IntegerAttr(align, i64),
                "remote": UnitAttr() if remote else None,
            },
            result_types=[BufferType()],
        )

    def verify_(self) -> None:
        """Sizes are positive, alignments powers of two, memories those of a core."""
        if self.bytes.value.data <= 0:
            raise VerifyException("sram.alloc: bytes must be positive")
        align = self.align.value.data
        if align <= 0 or align & (align - 1):
            raise VerifyException("sram.alloc: align must be a power of two")
        if self.memory.data not in MEMORIES:
            raise VerifyException(f"sram.alloc: memory must be one of {', '.join(MEMORIES)}")


@irdl_op_definition
class AddressOp(IRDLOperation):
    """``%a = sram.address %b + 64`` (or ``+ [0, 32, ...]``, one a core): a byte address in a buffer; a
    constant later.
    """

    name = "sram.address"

    buffer = operand_def(BufferType())
    offset = prop_def(DenseArrayBase)
    result = result_def(RegisterType())

    traits = traits_def(Pure())

    def __init__(self, buffer: SSAValue, offset: int | Iterable[int] = 0) -> None:
        super().__init__(operands=[buffer], properties={"offset": _compact(offset)}, result_types=[RegisterType()])

    def print(self, printer: Printer) -> None:
        """Print ``%buffer + offset``."""
        printer.print_string(" ")
        printer.print_ssa_value(self.buffer)
        printer.print_string(" + ")
        _print_values(printer, self.offset)
        print_extra_attributes(printer, self)

    @classmethod
    def parse(cls, parser: Parser) -> AddressOp:
        """Parse what :meth:`print` prints."""
        buffer = parser.resolve_operand(parser.parse_unresolved_operand(), BufferType())
        parser.parse_punctuation("+")
        op = cls(buffer, numbers(parse_number(parser)))
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class KeepOp(IRDLOperation):
    """``sram.keep %b``: a use of the buffer at this place that emits nothing (another agent accesses it until
    here).
    """

    name = "sram.keep"

    buffer = operand_def(BufferType())

    assembly_format = "$buffer attr-dict"

    def __init__(self, buffer: SSAValue) -> None:
        super().__init__(operands=[buffer])


@irdl_op_definition
class PortOp(IRDLOperation):
    """A buffer as a piece of an entry's input or output.

    ``start`` is the byte in the buffer where the piece starts; ``offset`` and ``count`` say which elements of
    the flat
    tensor it is (one value for all cores, or one a core; a count of 0: this core has none).
    """

    name = "sram.port"

    buffer = operand_def(BufferType())
    port = prop_def(StringAttr)
    direction = prop_def(StringAttr)
    dtype = prop_def(StringAttr)
    shape = prop_def(DenseArrayBase)
    start = prop_def(DenseArrayBase)
    offset = prop_def(DenseArrayBase)
    count = prop_def(DenseArrayBase)

    assembly_format = "$buffer attr-dict"
    irdl_options = (ParsePropInAttrDict(),)

    def __init__(
        self,
        buffer: SSAValue,
        port: str,
        direction: str,
        dtype: str,
        shape: Sequence[int],
        *,
        start: int | Iterable[int] = 0,
        offset: int | Iterable[int] = 0,
        count: int | Iterable[int] | None = None,
    ) -> None:
        elements = 1
        for size in shape:
            elements *= size
        super().__init__(
            operands=[buffer],
            properties={
                "port": StringAttr(port),
                "direction": StringAttr(direction),
                "dtype": StringAttr(dtype),
                "shape": numbers_attribute(shape),
                "start": _compact(start),
                "offset": _compact(offset),
                "count": _compact(elements if count is None else count),
            },
        )

    def verify_(self) -> None:
        """The direction and the element type are known ones."""
        if self.direction.data not in ("input", "output"):
            raise VerifyException("sram.port: direction must be input or output")
        if self.dtype.data not in ("f16", "f32", "i32"):
            raise VerifyException("sram.port: dtype must be f16, f32 or i32")


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
        then_region = _parse_block(parser)
        else_region = _parse_block(parser) if parser.parse_optional_keyword("else") else Region(Block())
        op = cls(left, predicate, right, [then_region, else_region])
        if attributes is not None:
            op.attributes |= attributes.data
        return op


def _parse_register(parser: Parser) -> SSAValue:
    return parser.resolve_operand(parser.parse_unresolved_operand(), RegisterType())


def _parse_block(parser: Parser) -> Region:
    region = parser.parse_region()
    if not region.blocks:
        region.add_block(Block())
    return region


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """The program of an entry for some cores, one text for all of them; a missing final ``sram.halt`` is
    added.
    """

    name = "sram.program"

    entry = prop_def(StringAttr)
    cores = prop_def(DenseArrayBase)
    body = region_def("single_block")

    traits = traits_def(NoTerminator(), IsolatedFromAbove())

    def __init__(self, entry: str, cores: Iterable[int], body: Region | None = None) -> None:
        region = Region(Block()) if body is None else body
        super().__init__(properties={"entry": StringAttr(entry), "cores": numbers_attribute(cores)}, regions=[region])

    @property
    def core_numbers(self) -> tuple[int, ...]:
        """The cores that run the program."""
        return numbers(self.cores)

    def verify_(self) -> None:
        """Cores are distinct; values given one a core are as many as the cores; buffer names are unique."""
        cores = self.core_numbers
        if not cores or len(set(cores)) != len(cores) or min(cores) < 0:
            raise VerifyException("sram.program: cores must be distinct and not empty")
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

    def print(self, printer: Printer) -> None:
        """Print ``"entry" cores = [..] { ... }``."""
        printer.print_string(" ")
        printer.print_string_literal(self.entry.data)
        printer.print_string(" cores = ")
        print_number(printer, self.cores)
        printer.print_op_attributes(self.attributes, print_keyword=True)
        printer.print_string(" ")
        printer.print_region(self.body, print_empty_block=False)

    @classmethod
    def parse(cls, parser: Parser) -> ProgramOp:
        """Parse what :meth:`print` prints."""
        entry = parser.parse_str_literal()
        parser.parse_keyword("cores")
        parser.parse_punctuation("=")
        cores = numbers(parse_number(parser))
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = cls(entry, cores, _parse_block(parser))
        if attributes is not None:
            op.attributes |= attributes.data
        return op


STRUCTURE_OPS: Sequence[type[Operation]] = (
    ConstOp, AllocOp, AddressOp, KeepOp, PortOp, YieldOp, ForOp, IfOp, ProgramOp,
)  # fmt: skip
