"""The xDSL context with all dialects, and the text format of modules.

Dumps are printed in MLIR's generic form with a location on every operation, so that MLIR's own tools read
them (``iree-opt --allow-unregistered-dialect``), and are deterministic: printing, parsing and printing again
gives the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import struct
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from typing_extensions import override
from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    ComplexType,
    FusedLoc,
    IndexType,
    IntegerType,
    LocationAttr,
    ModuleOp,
    NoneAttr,
)
from xdsl.ir import Dialect, Operation, TypeAttribute
from xdsl.parser import AttrParser, Parser, ParserState
from xdsl.printer import Printer
from xdsl.utils.exceptions import DiagnosticException, ParseError, UnregisteredConstructException
from xdsl.utils.lexer import Input
from xdsl.utils.mlir_lexer import MLIRLexer

from pimc.diagnostics import InputError, InternalError
from pimc.files import read_text
from pimc.ir.locations import is_unknown, where
from pimc.ir.source_map import SourceMap
from pimc.limits import TEXT_FILE_BYTES

_XDSL_DIALECTS = {name: f"xdsl.dialects.{name}" for name in ("builtin", "func", "arith", "tensor", "scf", "ml_program")}

_OWN_DIALECTS = {name: f"pimc.ir.{name}" for name in ("nn", "pim", "sram", "hbm")}


#: What xDSL raises beside its ParseError for a text that it cannot read: a number that no type holds, attributes of
#: other kinds than an operation's own parser expects.
UNREADABLE = (
    DiagnosticException, UnregisteredConstructException, ValueError, TypeError, LookupError, ArithmeticError,
    NotImplementedError, AttributeError, AssertionError, struct.error,
)  # fmt: skip


def make_context(*, allow_unregistered: bool = False) -> Context:
    """A context with our dialects and those we use of xDSL; each is imported when it is first needed."""
    context = Context(allow_unregistered=allow_unregistered)
    for name, module in {**_XDSL_DIALECTS, **_OWN_DIALECTS}.items():
        if name in _XDSL_DIALECTS or importlib.util.find_spec(module) is not None:
            context.register_dialect(name, _loader(name, module))
    context.load_registered_dialect("builtin")
    return context


def _loader(name: str, module: str) -> Callable[[], Dialect]:
    def load() -> Dialect:
        for value in vars(importlib.import_module(module)).values():
            if isinstance(value, Dialect) and value.name == name:
                return value
        raise InternalError(f"module {module} has no dialect {name}")

    return load


class _HexadecimalElement(AttrParser._TensorLiteralElement):
    """An element of a dense attribute written in hexadecimal: of a float type it is the bit pattern.

    NaN, infinities and floats with many digits are printed so; xDSL would read the pattern as a number.
    """

    @override
    def to_type(
        self, parser: AttrParser, type: AnyFloat | IntegerType | IndexType | ComplexType
    ) -> float | int | tuple[float, float] | tuple[int, int]:
        if not isinstance(type, AnyFloat):
            number: float | int | tuple[float, float] | tuple[int, int] = super().to_type(parser, type)
            return number
        size, bits = type.compile_time_size, self.to_int(parser, allow_negative=False)
        if bits >= 1 << 8 * size:
            parser.raise_error(f"the bit pattern is too long for {type}", at_position=self.span)
        value: float = next(type.iter_unpack(bits.to_bytes(size, "little")))
        return value


#: Bits of the widest integer type (MLIR's own limit): the range of a type is computed, which takes memory.
_WIDEST_INTEGER = (1 << 24) - 1


class _Lexer(MLIRLexer):
    """xDSL's lexer, whose time for a string that does not end grows with its length, not exponentially."""

    # xDSL's own pattern without going back into what it has taken (possessive quantifiers).
    _unescaped_characters_regex = re.compile(r'"(?:[^"\\\n\v\f]++|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+"')


class LocatingParser(Parser):
    """xDSL's parser; operations without ``loc(...)`` get the file, line and column they stand at.

    It also reads what xDSL prints but does not read alike: fused locations with metadata (which is dropped), and
    floats of dense attributes in hexadecimal.
    """

    def __init__(self, context: Context, source: SourceMap) -> None:
        super().__init__(context, "", source.name)
        self._parser_state = ParserState(_Lexer(Input(source.text, source.name)))
        self.source = source
        self._after_location = -1

    @property
    def position(self) -> int:
        """The offset of the token that is read next."""
        return self._current_token.span.start

    @override
    def parse_operation(self) -> Operation:
        """Parse one operation and give it the place in the text unless it states its location."""
        start = self._current_token.span.start
        op = super().parse_operation()
        stated = self._after_location == self._current_token.span.start
        self.source.add(op, start)
        if not stated and is_unknown(op.location):
            op.location = self.source.location(start)
        return op

    @override
    def parse_optional_location(self) -> LocationAttr | None:
        """Parse ``loc(...)`` if it is there, and note where it ended."""
        location = super().parse_optional_location()
        if location is not None:
            self._after_location = self._current_token.span.start
        return location

    @override
    def _parse_optional_integer_or_float_type(self) -> TypeAttribute | None:
        span = self._current_token.span
        found = super()._parse_optional_integer_or_float_type()
        if isinstance(found, IntegerType) and found.width.data > _WIDEST_INTEGER:
            self.raise_error(f"integer types have at most {_WIDEST_INTEGER} bits", at_position=span)
        return found

    @override
    def _parse_tensor_literal_element(self) -> AttrParser._TensorLiteralElement:
        hexadecimal = self._current_token.text[:2] in ("0x", "0X")
        element = super()._parse_tensor_literal_element()
        if not hexadecimal:
            return element
        return _HexadecimalElement(element.is_negative, element.value, element.span)

    @override
    def _parse_location(self) -> LocationAttr:
        if self._current_token.text != "fused":
            return super()._parse_location()
        self.parse_identifier("fused")
        if self.parse_optional_punctuation("<") is not None:
            self.parse_attribute()
            self.parse_punctuation(">")
        parts = self.parse_comma_separated_list(self.Delimiter.SQUARE, self._parse_location)
        return FusedLoc(ArrayAttr(parts), NoneAttr())


def parse_module(
    text: str, context: Context | None = None, filename: str = "<text>", *, verify: bool = True
) -> ModuleOp:
    """The module written in ``text`` (generic or custom form); see :func:`parse_source`."""
    return parse_source(text, context, filename, verify=verify)[0]


def parse_source(
    text: str, context: Context | None = None, filename: str = "<text>", *, verify: bool = True
) -> tuple[ModuleOp, SourceMap]:
    """The module written in ``text`` (generic or custom form), and where its operations stand.

    Raises InputError with ``filename:line:column`` where the text is no module, or, with ``verify``, has an operation
    that does not verify.
    """
    context = make_context() if context is None else context
    source = SourceMap(filename, text)
    try:
        parser = LocatingParser(context, source)
        module = parser.parse_module()
    except ParseError as error:
        start, width = error.span.start, error.span.end - error.span.start
        raise InputError(error.msg.strip(), where=source.where(start), excerpt=source.excerpt(start, width)) from error
    except UNREADABLE as error:
        start = parser.position
        raise InputError(one_line(error), where=source.where(start), excerpt=source.excerpt(start)) from error
    except RecursionError as error:
        raise InputError("the text is nested too deeply", where=filename) from error
    if verify:
        verify_module(module, source)
    return module, source


def read_source(path: Path, context: Context | None = None) -> tuple[ModuleOp, SourceMap]:
    """Parse and verify the module in a file; InputError if it cannot be read or parsed."""
    return parse_source(read_text(path, TEXT_FILE_BYTES), context, str(path))


def print_module(module: Operation) -> str:
    """The module as text: generic form, a location on every operation, one newline at the end."""
    stream = StringIO()
    Printer(stream, print_generic_format=True, print_debuginfo=True).print_op(module)
    return stream.getvalue().rstrip("\n") + "\n"


def find_invalid(module: Operation) -> tuple[Operation, str] | None:
    """The first operation (inner ones first) that does not verify, with the reason; None if all do."""
    for op in module.walk(region_first=True):
        try:
            op.verify(verify_nested_ops=False)
        except UNREADABLE as error:
            return op, _reason(error)
    return None


def verify_module(module: Operation, source: SourceMap | None = None) -> None:
    """Raise InputError if an operation of the module does not verify: with its line of the text where that is known,
    else with its location.
    """
    invalid = find_invalid(module)
    if invalid is not None:
        op, reason = invalid
        error = InputError(f"{op.name} does not verify: {reason}", where=where(op))
        raise error if source is None else source.point(error, op, operands=True)


def _reason(error: Exception) -> str:
    """xDSL wraps the reason in a print of the operation; the reason is what it was raised from, or its last
    line.
    """
    cause = error.__cause__
    return one_line(cause if isinstance(cause, Exception) else error)


def one_line(error: Exception) -> str:
    """The last line of what an exception says; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
