"""The syntax of assembly text: lines to tokens, operands to and from their written form."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from lark import Lark, Token, Tree, UnexpectedCharacters, UnexpectedEOF, UnexpectedToken

from pimc.diagnostics import Excerpt, IsaError
from pimc.isa.spec import InstructionSet, Operand, OperandKind
from pimc.isa.sram import CONFIG_REGISTERS

#: Directives, for suggestions and for the checks of the assembler.
DIRECTIVES = (
    ".pimx", ".target", ".rows", ".images", ".absent", ".tokenizer", ".model", ".cache", ".entry", ".input",
    ".output", ".range", ".piece", ".stream", ".same", ".location", ".loc",
)  # fmt: skip

#: Characters of the longest integer that is read; Python itself refuses some thousands of digits.
_LONGEST = 128

_CONFIG_NAMES = {number: name for name, (number, _) in CONFIG_REGISTERS.items()}


class AssemblyError(IsaError):
    """An error in assembly text; ``excerpt`` shows the line with a caret under the place."""


class Place(NamedTuple):
    """A line of a file, to point at its tokens."""

    file: str
    number: int
    text: str

    def error(self, message: str, *, column: int = 1, width: int = 1, hint: str | None = None) -> AssemblyError:
        """An error at ``column`` (from 1), ``width`` characters wide."""
        where = f"{self.file}:{self.number}:{column}"
        return AssemblyError(message, hint=hint, where=where, excerpt=Excerpt(self.text, column, width))

    def at(self, token: Token, message: str, *, hint: str | None = None) -> AssemblyError:
        """An error at a token of this line."""
        return self.error(message, column=token.column or 1, width=len(token), hint=hint)


class Line(NamedTuple):
    """A parsed line: its label (without colon), its mnemonic or directive, the arguments.

    A shape among the arguments is the tuple of its INTEGER tokens.
    """

    label: Token | None
    head: Token | None
    arguments: tuple[Token | tuple[Token, ...], ...]


@lru_cache(maxsize=8)
def _parser(isa: InstructionSet) -> Lark:
    grammar = files("pimc.isa").joinpath("assembly.lark").read_text(encoding="utf-8")
    names = sorted((instruction.mnemonic for instruction in isa.instructions), key=len, reverse=True)
    alternatives = "|".join(re.escape(name) for name in names)
    grammar += f"\nMNEMONIC.2: /({alternatives})(?![A-Za-z0-9_.])/\n"
    return Lark(grammar, start="line", parser="lalr", lexer="contextual")


def suggestion(word: str, known: list[str]) -> str | None:
    """A hint with the nearest of the known words, if one is near."""
    close = get_close_matches(word, known, 1, 0.6)
    return f"did you mean '{close[0]}'?" if close else None


def parse_line(isa: InstructionSet, place: Place) -> Line:
    """Parse one line; raises :class:`AssemblyError` that points at what is wrong."""
    try:
        tree = _parser(isa).parse(place.text)
    except UnexpectedToken as error:
        raise _syntax_error(isa, place, error.token, error.accepts or error.expected) from None
    except UnexpectedCharacters as error:
        word = re.match(r"[A-Za-z_][\w.]*|\S|", place.text[error.column - 1 :])
        token = Token("TEXT", word[0] if word else "", column=error.column)
        raise _syntax_error(isa, place, token, error.allowed or set()) from None
    except UnexpectedEOF:
        raise place.error("the line ends too early", column=len(place.text) + 1) from None
    label: Token | None = None
    head: Token | None = None
    arguments: list[Token | tuple[Token, ...]] = []
    for child in tree.children:
        if isinstance(child, Token):
            label = child.update(value=child[:-1])
            continue
        head, *rest = (item for item in child.children if isinstance(item, Token))
        arguments.extend(rest)
        arguments.extend(_argument(item) for item in child.children if isinstance(item, Tree))
    return Line(label, head, tuple(arguments))


def _argument(tree: Tree[Token]) -> Token | tuple[Token, ...]:
    child = tree.children[0]
    if isinstance(child, Token):
        return child
    return tuple(item for item in child.children if isinstance(item, Token))


def _syntax_error(isa: InstructionSet, place: Place, token: Token, expected: set[str]) -> AssemblyError:
    if token.type == "$END":
        return place.error("the line ends too early", column=len(place.text.rstrip()) + 1)
    if "MNEMONIC" in expected:
        known = list(isa.index)
        if token.startswith("."):
            word = re.match(r"\.\w*", place.text[(token.column or 1) - 1 :])
            token = token.update(value=word[0] if word else token)
            return place.at(token, f"unknown directive '{token}'", hint=suggestion(token, list(DIRECTIVES)))
        hint = suggestion(token, known) or _other_form(token, known)
        return place.at(token, f"unknown instruction '{token}' of {isa.name}", hint=hint)
    return place.at(token, f"unexpected '{token}'")


def _other_form(word: str, known: list[str]) -> str | None:
    forms = [name for name in known if name.split(".")[0] == word]
    return f"write {' or '.join(forms)}" if forms else None


def parse_integer(token: str) -> int:
    """The value of an INTEGER token: decimal, 0x or 0b, signed; of one that no field could hold, some such value."""
    digits = token.lstrip("+-")
    value = 1 << _LONGEST if len(digits) > _LONGEST else int(digits, {"0x": 16, "0b": 2}.get(digits[:2].lower(), 10))
    return -value if token.startswith("-") else value


def parse_operand(isa: InstructionSet, operand: Operand, token: Token, place: Place) -> int:
    """The value of a written operand (labels are the assembler's); raises :class:`AssemblyError`."""
    prefix, what = _written(isa, operand)
    value: int | None = None
    if prefix:
        match = re.fullmatch(rf"{prefix}(0|[1-9][0-9]*)", token)
        value = int(match[1]) if match else None
    elif operand.kind is OperandKind.CONFIG and token.type != "INTEGER":
        value = CONFIG_REGISTERS.get(token, (None, ""))[0]
        if value is None:
            hint = suggestion(token, list(CONFIG_REGISTERS))
            raise place.at(token, f"'{token}' is not a configuration register", hint=hint)
    elif token.type == "INTEGER":
        value = parse_integer(token)
    if value is None or not operand.minimum <= value <= operand.maximum:
        raise place.at(token, f"operand {operand.name} must be {what}, not '{token}'")
    return value


def _written(isa: InstructionSet, operand: Operand) -> tuple[str, str]:
    """The register prefix of an operand's written form ('' for other forms), and that form in words."""
    if operand.kind is OperandKind.REGISTER:
        return isa.register_prefix, f"a register {isa.register_prefix}0..{isa.register_prefix}{operand.maximum}"
    if operand.kind is OperandKind.SEMAPHORE:
        return "s", f"a semaphore s0..s{operand.maximum}"
    return "", f"a number in [{operand.minimum}, {operand.maximum}]"


def format_operand(isa: InstructionSet, operand: Operand, value: int) -> str:
    """An operand as :func:`parse_operand` reads it; a LABEL operand is written as its offset."""
    prefix, _ = _written(isa, operand)
    if prefix:
        return f"{prefix}{value}"
    if operand.kind is OperandKind.CONFIG:
        return _CONFIG_NAMES.get(value, str(value))
    if operand.kind is OperandKind.MASK:
        return f"{value:#0{operand.field.width + 2}b}"
    return str(value)
