"""The operations of the ``sram`` dialect for data: constants, buffers, their addresses and ports; and the types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr, UnitAttr, i64
from xdsl.ir import (
    Attribute,
    Operation,
    ParametrizedAttribute,
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
    result_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.instruction_ops import (
    numbers,
    numbers_attribute,
    parse_number,
    print_extra_attributes,
)

#: The memories of a core a buffer can be in.
MEMORIES = ("activation", "temp")


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
    makes it again.  ``%x = sram.const 4096 of "k_cache"``: a number that follows from where memory was laid out.
    So that the length of a program does not depend on such numbers, they always take two words, and are neither
    folded into immediates nor taken for other constants that happen to be equal.
    """

    name = "sram.const"

    values = prop_def(DenseArrayBase)
    origin = opt_prop_def(StringAttr)
    result = result_def(RegisterType())

    traits = traits_def(Pure())

    def __init__(self, values: int | Iterable[int], origin: str | None = None) -> None:
        properties: dict[str, Attribute | None] = {"values": _compact(values)}
        properties["origin"] = None if origin is None else StringAttr(origin)
        super().__init__(properties=properties, result_types=[RegisterType()])

    def verify_(self) -> None:
        """Values are 32-bit, signed or unsigned."""
        if not all(-(2**31) <= value < 2**32 for value in numbers(self.values)):
            raise VerifyException("sram.const: values must fit 32 bits")

    def print(self, printer: Printer) -> None:
        """Print the value or values, and the origin."""
        printer.print_string(" ")
        _print_values(printer, self.values)
        if self.origin is not None:
            printer.print_string(" of ")
            printer.print_string_literal(self.origin.data)
        print_extra_attributes(printer, self)

    @classmethod
    def parse(cls, parser: Parser) -> ConstOp:
        """Parse what :meth:`print` prints."""
        values = numbers(parse_number(parser))
        op = cls(values, parser.parse_str_literal() if parser.parse_optional_keyword("of") else None)
        op.attributes |= parser.parse_optional_attr_dict()
        return op


@irdl_op_definition
class AllocOp(IRDLOperation):
    """``%b = sram.alloc "x" {bytes = 1024 : i64, memory = "activation"}``: a buffer in a local memory of
    every core.

    ``sym_name`` is unique in the program.  ``remote``: other cores write it by messages, so it has one address in
    all programs of the entry (the ones of the same name are the same buffer).  ``address`` is set by ``allocate``.
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
class ArrivedOp(IRDLOperation):
    """``sram.arrived %b``: instructions before this place have waited for every transfer into the buffer; it emits
    nothing.

    A lowering says so of a loop that starts transfers for later iterations, which no analysis sees to end.
    """

    name = "sram.arrived"

    buffer = operand_def(BufferType())

    assembly_format = "$buffer attr-dict"

    def __init__(self, buffer: SSAValue) -> None:
        super().__init__(operands=[buffer])


@irdl_op_definition
class PortOp(IRDLOperation):
    """A buffer as a piece of an entry's input or output.

    ``start`` is the byte in the buffer where the piece starts; ``offset`` and ``count`` say which elements of the
    flat tensor it is (one value for all cores, or one a core; a count of 0: this core has none).  ``range`` are the
    least and the greatest value that the host may give.
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
    range = opt_prop_def(DenseArrayBase)

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
        range: tuple[int, int] | None = None,  # the word of the file format
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
                "range": None if range is None else numbers_attribute(range),
            },
        )

    def verify_(self) -> None:
        """The direction and the element type are known ones."""
        if self.direction.data not in ("input", "output"):
            raise VerifyException("sram.port: direction must be input or output")
        if self.dtype.data not in ("f16", "f32", "i32"):
            raise VerifyException("sram.port: dtype must be f16, f32 or i32")
        if self.range is not None and not self._has_range():
            raise VerifyException("sram.port: a range is the least and the greatest value of an i32 input")

    def _has_range(self) -> bool:
        values = () if self.range is None else numbers(self.range)
        whole = self.direction.data == "input" and self.dtype.data == "i32"
        return whole and len(values) == 2 and values[0] <= values[1]


DATA_OPS: Sequence[type[Operation]] = (ConstOp, AllocOp, AddressOp, KeepOp, ArrivedOp, PortOp)
