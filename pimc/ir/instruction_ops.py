"""Operation classes made from an ISA table: what the ``sram`` and ``hbm`` dialects have in common.

Immediates, semaphore and register numbers are i64 properties named as in the table.  A property may be one value
for all agents of a program (``IntegerAttr``), one value an agent (``DenseArrayBase``), or the address of a buffer
that is known after ``allocate`` (:class:`LocalAddressAttr`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr, i64
from xdsl.ir import Attribute, Operation, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer

from pimc.isa.spec import Instruction


@irdl_attr_definition
class LocalAddressAttr(ParametrizedAttribute):
    """``#hbm.local<@buffer, 64>``: byte 64 of the ``sram.alloc`` of that name on the core of the same tile."""

    name = "hbm.local"

    buffer: StringAttr
    offset: IntegerAttr

    @classmethod
    def get(cls, buffer: str, offset: int = 0) -> LocalAddressAttr:
        """The address of byte ``offset`` of ``buffer``."""
        return cls(StringAttr(buffer), IntegerAttr(offset, i64))

    def print_parameters(self, printer: Printer) -> None:
        """Print ``<@buffer, offset>``."""
        with printer.in_angle_brackets():
            printer.print_symbol_name(self.buffer.data)
            printer.print_string(f", {self.offset.value.data}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Parse ``<@buffer, offset>``."""
        with parser.in_angle_brackets():
            buffer = parser.parse_symbol_name()
            parser.parse_punctuation(",")
            return (buffer, IntegerAttr(parser.parse_integer(), i64))


#: What a caller may give for a number: one value, one an agent, or an address.
Number: TypeAlias = "int | Iterable[int] | Attribute"


def number_attribute(value: Number) -> Attribute:
    """``value`` as a property: an i64, an array of i64 (one an agent), or the attribute itself."""
    if isinstance(value, Attribute):
        return value
    if isinstance(value, Iterable):
        return numbers_attribute(value)
    return IntegerAttr(int(value), i64)


def numbers_attribute(values: Iterable[int]) -> Attribute:
    """``array<i64: ...>`` of the values."""
    return DenseArrayBase.from_list(i64, [int(value) for value in values])


def numbers(attribute: Attribute) -> tuple[int, ...]:
    """The values of a number property: one, or one an agent.

    Raises ``ValueError`` for an address that ``allocate`` has not resolved.
    """
    if isinstance(attribute, IntegerAttr):
        return (attribute.value.data,)
    if isinstance(attribute, DenseArrayBase):
        return tuple(int(value) for value in attribute.iter_values())
    raise ValueError(f"not a number: {attribute}")


def print_number(printer: Printer, attribute: Attribute) -> None:
    """Print ``5``, ``[1, 2]`` or ``@buffer + 64``."""
    if isinstance(attribute, LocalAddressAttr):
        printer.print_symbol_name(attribute.buffer.data)
        printer.print_string(f" + {attribute.offset.value.data}")
    elif isinstance(attribute, DenseArrayBase):
        values = ", ".join(str(value) for value in attribute.iter_values())
        printer.print_string(f"[{values}]")
    elif isinstance(attribute, IntegerAttr):
        printer.print_string(str(attribute.value.data))
    else:
        printer.print_attribute(attribute)


def parse_number(parser: Parser) -> Attribute:
    """Parse what :func:`print_number` prints."""
    buffer = parser.parse_optional_symbol_name()
    if buffer is not None:
        offset = parser.parse_integer() if parser.parse_optional_punctuation("+") else 0
        return LocalAddressAttr.get(buffer.data, offset)
    values = parser.parse_optional_comma_separated_list(parser.Delimiter.SQUARE, parser.parse_integer)
    return number_attribute(parser.parse_integer() if values is None else values)


def number_error(instruction: Instruction, name: str, attribute: Attribute) -> str | None:
    """Why the property ``name`` cannot be encoded, or None; unresolved addresses pass."""
    operand = next(operand for operand in instruction.operands if operand.name == name)
    if isinstance(attribute, LocalAddressAttr):
        return None
    if not isinstance(attribute, IntegerAttr | DenseArrayBase):
        return f"{name} must be an integer, an array of integers or the address of a buffer"
    for value in numbers(attribute):
        if not operand.minimum <= value <= operand.maximum:
            return f"{name} = {value} is out of range [{operand.minimum}, {operand.maximum}]"
    return None


def identifier(mnemonic: str) -> str:
    """The mnemonic as a Python and IR name: ``vadd.h`` is ``vadd_h``."""
    return mnemonic.replace(".", "_")


def class_name(mnemonic: str) -> str:
    """The name of the operation class of a mnemonic: ``vadd.h`` is ``VaddHOp``."""
    return "".join(part.capitalize() for part in mnemonic.split(".")) + "Op"


def print_extra_attributes(printer: Printer, op: Operation) -> None:
    """Print the discardable attributes of an operation with a custom format."""
    printer.print_op_attributes(op.attributes)
