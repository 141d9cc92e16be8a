"""Assembly text to programs, the inverse of ``pimc.isa.disasm`` (docs/binary.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from lark import Token
from numpy.typing import NDArray

from pimc.diagnostics import IsaError, PimcError
from pimc.isa.codec import encode, word_dtype
from pimc.isa.container import load_program, validate_program
from pimc.isa.disasm import images_digest, text_digest
from pimc.isa.metadata import ABSENT_FIGURES, CACHE_FIGURES, IDENTIFIER, INT32, PORT_NAME, VERSION, parse_model
from pimc.isa.program import (
    DTYPE_BYTES,
    STREAM_ISAS,
    AbsentImages,
    CacheRegion,
    Entry,
    Json,
    LoadedProgram,
    Locations,
    Port,
    PortPiece,
    Program,
    stream_name,
)
from pimc.isa.spec import InstructionSet, OperandKind
from pimc.isa.sram import SRAM_ISA
from pimc.isa.syntax import DIRECTIVES, Line, Place, parse_integer, parse_line, parse_operand, suggestion
from pimc.limits import AGENTS, ELEMENTS

Resolver: TypeAlias = Callable[[str], LoadedProgram]


def assemble(text: str, source: str | Path = "<text>", *, resolve: Resolver | None = None) -> Program:
    """The program of an assembly text.

    ``source`` names the text in errors; files that it refers to are looked for beside it, then in the
    working folder. ``resolve`` replaces that: from a name in the text to the program there.

    Raises :class:`AssemblyError` pointing at the line and column, and :class:`IsaError` where the whole is
    not valid.
    """
    assembler = _Assembler(str(source), resolve or partial(_resolve, Path(source).parent))
    for number, line in enumerate(text.split("\n"), 1):
        assembler.line(number, line.rstrip())
    return assembler.finish()


def _resolve(folder: Path, name: str) -> LoadedProgram:
    beside = folder / name
    return load_program(beside if beside.exists() else name)


@dataclass
class _Fixup:
    """A branch whose label was not known yet."""

    pc: int
    place: Place
    mnemonic: str
    operands: list[int]
    column: int
    label: Token


@dataclass
class _Stream:
    """A stream being assembled."""

    isa: InstructionSet
    words: list[int] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    fixups: list[_Fixup] = field(default_factory=list)
    table: list[str] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    location: int = -1
    located: bool = False


@dataclass
class _Entry:
    """An entry being assembled; ``same``: alias, its place, and the agent whose stream it runs."""

    streams: dict[str, dict[int, str]] = field(default_factory=lambda: {"core": {}, "hbm": {}})
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    same: list[tuple[str, int, Place, int]] = field(default_factory=list)


class _Arguments:
    """The arguments of a directive, taken one after the other."""

    def __init__(self, place: Place, line: Line) -> None:
        self.place = place
        self.head = line.head or Token("DIRECTIVE", "")
        self._rest = list(line.arguments)

    def token(self, kind: str, what: str) -> Token:
        """The next argument, of a token type; ``what`` names it in the error."""
        if not self._rest:
            raise self.place.error(f"{self.head} needs {what} here", column=len(self.place.text) + 1)
        item = self._rest.pop(0)
        if isinstance(item, tuple):
            raise self.place.error(f"{self.head} needs {what}, not a shape", column=self.head.column or 1)
        if item.type not in kind.split("|"):
            raise self.place.at(item, f"{self.head} needs {what}, not '{item}'")
        return item

    def number(self, what: str, high: int = 1 << 40, low: int = 0) -> int:
        """A number in [low, high]."""
        token = self.token("INTEGER", what)
        value = parse_integer(token)
        if not low <= value <= high:
            raise self.place.at(token, f"{what} must be in [{low}, {high}]")
        return value

    def numbers(self, what: str) -> range:
        """A number or a range of numbers ``a..b`` (both included) of agents."""
        token = self.token("INTEGER|RANGE", what)
        low, _, high = token.partition("..")
        first, last = parse_integer(low), parse_integer(high or low)
        if not 0 <= first <= last < AGENTS:
            raise self.place.at(token, f"{what} must be numbers below {AGENTS}")
        return range(first, last + 1)

    def string(self, what: str) -> str:
        """A string, or a bare name."""
        token = self.token("STRING|NAME", what)
        if token.type == "NAME":
            return str(token)
        try:
            value = parse_model(f'{{"x":{token}}}', "")["x"]
        except IsaError:
            raise self.place.at(token, "not a JSON string") from None
        return str(value)

    def word(self, *choices: str) -> str:
        """One of these words."""
        token = self.token("NAME", " or ".join(choices))
        if token not in choices:
            raise self.place.at(token, f"expected {' or '.join(choices)}, not '{token}'")
        return str(token)

    def shape(self) -> tuple[int, ...]:
        """A shape."""
        item = self._rest.pop(0) if self._rest else None
        if not isinstance(item, tuple):
            raise self.place.error(f"{self.head} needs a shape such as [1, 64]", column=self.head.column or 1)
        return tuple(parse_integer(size) for size in item)

    def end(self) -> None:
        """Nothing more."""
        if self._rest:
            raise self.place.error(f"{self.head} has too many arguments", column=self.head.column or 1)


class _Assembler:
    """The state of an assembly: whole-program directives, the current entry, port and stream."""

    def __init__(self, source: str, resolve: Resolver) -> None:
        self.source = source
        self.resolve = resolve
        self.target: tuple[str, str] | None = None
        self.rows = 0
        self.images: Mapping[int, NDArray[np.uint16]] = {}
        self.tokenizer: str | None = None
        self.model: Mapping[str, Json] | None = None
        self.caches: list[CacheRegion] = []
        self.absent_images: AbsentImages | None = None
        self.entries: dict[str, _Entry] = {}
        self.streams: dict[str, _Stream] = {}
        self.entry: _Entry | None = None
        self.ports: list[Port] | None = None
        self.stream: _Stream | None = None
        self.started = False
        self._lines: dict[tuple[str, str], Line] = {}
        self._words: dict[tuple[str, str], int] = {}

    def line(self, number: int, text: str) -> None:
        """Take one line."""
        place = Place(self.source, number, text)
        isa = self.stream.isa if self.stream else SRAM_ISA
        word = self._words.get((isa.name, text))
        if word is not None and self.stream:  # the same instruction as before
            self._append(self.stream, word)
            return
        line = self._lines.get((isa.name, text))
        if line is None:
            line = self._lines[isa.name, text] = parse_line(isa, place)
        if line.label is not None:
            self._label(place, line.label)
        if line.head is None:
            return
        if line.head.type == "MNEMONIC":
            self._instruction(place, line)
            return
        name = str(line.head).split()[0]
        if name not in DIRECTIVES:
            hint = suggestion(name, list(DIRECTIVES))
            raise place.at(line.head, f"unknown directive '{name}'", hint=hint)
        if not self.started and name != ".pimx":
            raise place.at(line.head, "the text must start with .pimx and the format version")
        handlers: dict[str, Callable[[_Arguments], None]] = {
            ".pimx": self._pimx, ".target": self._target, ".rows": self._rows, ".images": self._images,
            ".absent": self._absent_images, ".tokenizer": self._tokenizer, ".model": self._model,
            ".cache": self._cache, ".entry": self._enter, ".input": self._port, ".output": self._port,
            ".range": self._range, ".piece": self._piece, ".stream": self._start, ".same": self._same,
            ".location": self._location, ".loc": self._loc,
        }  # fmt: skip
        arguments: _Arguments = _Arguments(place, line)
        handlers[name](arguments)
        arguments.end()

    def finish(self) -> Program:
        """The program; labels and aliases are resolved now."""
        if self.target is None:
            raise IsaError("no .target", where=self.source)
        code = {name: self._link(stream) for name, stream in self.streams.items()}
        entries: dict[str, Entry] = {}
        for name, entry in self.entries.items():
            for kind, alias, place, owner in entry.same:
                tensor = stream_name(name, kind, owner)
                if tensor not in code or alias in entry.streams[kind]:
                    problem = "has a stream already" if alias in entry.streams[kind] else "has nothing to run"
                    raise place.error(f"{kind} {alias} of entry {name} {problem}")
                entry.streams[kind][alias] = tensor
            cores, groups = entry.streams["core"], entry.streams["hbm"]
            entries[name] = Entry(cores, groups, tuple(entry.inputs), tuple(entry.outputs))
        locations = {
            name: Locations(tuple(stream.table), np.array(stream.index, np.int32))
            for name, stream in self.streams.items()
            if stream.located
        }
        program = Program(
            *self.target, self.rows, entries, code, self.images, locations, self.model, self.tokenizer,
            tuple(self.caches), self.absent_images,
        )  # fmt: skip
        validate_program(program, self.source)
        return program

    def _link(self, stream: _Stream) -> NDArray[np.unsignedinteger]:
        for fixup in stream.fixups:
            target = stream.labels.get(fixup.label)
            if target is None:
                hint = suggestion(fixup.label, list(stream.labels))
                raise fixup.place.at(fixup.label, f"no label '{fixup.label}' in this stream", hint=hint)
            fixup.operands[fixup.column] = target - fixup.pc
            try:
                stream.words[fixup.pc] = encode(stream.isa, fixup.mnemonic, fixup.operands)
            except IsaError as error:
                raise fixup.place.at(fixup.label, error.message) from None
        return np.array(stream.words, word_dtype(stream.isa))

    def _append(self, stream: _Stream, word: int) -> None:
        stream.words.append(word)
        stream.index.append(stream.location)

    def _label(self, place: Place, label: Token) -> None:
        if self.stream is None:
            raise place.at(label, "a label must be in a stream")
        if label in self.stream.labels:
            raise place.at(label, f"label '{label}' is already at word {self.stream.labels[label]}")
        self.stream.labels[str(label)] = len(self.stream.words)

    def _instruction(self, place: Place, line: Line) -> None:
        head, stream = line.head or Token("MNEMONIC", ""), self.stream
        if stream is None:
            raise place.at(head, "an instruction must be in a stream", hint="start one with .stream")
        instruction = stream.isa.instructions[stream.isa.index[head]]
        tokens = [token for token in line.arguments if isinstance(token, Token)]
        if len(tokens) != len(instruction.operands):
            names = ", ".join(operand.name for operand in instruction.operands) or "none"
            raise place.at(head, f"{head} takes {len(instruction.operands)} operands ({names}), not {len(tokens)}")
        values: list[int] = []
        label: tuple[int, Token] | None = None
        for column, (operand, token) in enumerate(zip(instruction.operands, tokens, strict=True)):
            if operand.kind is OperandKind.LABEL and token.type == "NAME":
                label = (column, token)
                values.append(0)
            else:
                values.append(parse_operand(stream.isa, operand, token, place))
        word = encode(stream.isa, head, values)
        if label is not None:
            stream.fixups.append(_Fixup(len(stream.words), place, str(head), values, *label))
        elif line.label is None:
            self._words[stream.isa.name, place.text] = word
        self._append(stream, word)

    def _pimx(self, arguments: _Arguments) -> None:
        version = (arguments.number("a version"), arguments.number("a version"))
        if version != VERSION:
            raise arguments.place.error(f"format version {version} is not {VERSION}")
        self.started = True

    def _target(self, arguments: _Arguments) -> None:
        name = arguments.string("the target's name")
        arguments.word("digest")
        self.target = (name, arguments.string("the target's digest"))

    def _rows(self, arguments: _Arguments) -> None:
        self.rows = arguments.number("the rows of a bank")

    def _referred(self, arguments: _Arguments) -> tuple[LoadedProgram, str]:
        """The program that a directive refers to, and the digest it must have."""
        name = arguments.string("the file")
        arguments.word("sha256")
        digest = arguments.string("the digest")
        try:
            return self.resolve(name), digest
        except PimcError as error:
            raise arguments.place.at(arguments.head, f"{error}", hint=error.hint) from error

    def _images(self, arguments: _Arguments) -> None:
        program, digest = self._referred(arguments)
        if images_digest(program.images) != digest:
            raise arguments.place.at(arguments.head, f"the images of {program.name} are not these (digest)")
        self.images = program.images

    def _absent_images(self, arguments: _Arguments) -> None:
        figures = {
            key: (arguments.word(key), arguments.number(key, most, 1))[1] for key, most in ABSENT_FIGURES.items()
        }
        self.absent_images = AbsentImages(**figures)

    def _tokenizer(self, arguments: _Arguments) -> None:
        program, digest = self._referred(arguments)
        if program.tokenizer is None or text_digest(program.tokenizer) != digest:
            raise arguments.place.at(arguments.head, f"the tokenizer of {program.name} is not this (digest)")
        self.tokenizer = program.tokenizer

    def _model(self, arguments: _Arguments) -> None:
        text = str(arguments.head).removeprefix(".model").strip()
        if not text:
            raise arguments.place.error(".model needs a JSON object")
        self.model = parse_model(text, f"{self.source}:{arguments.place.number}")

    def _cache(self, arguments: _Arguments) -> None:
        name = arguments.string("the cache's name")
        if not PORT_NAME.match(name):
            raise arguments.place.at(arguments.head, f"'{name}' cannot be a cache's name")
        figures = {
            key: (arguments.word(key), arguments.number(key, ELEMENTS, low))[1] for key, low in CACHE_FIGURES.items()
        }
        self.caches.append(CacheRegion(name, **figures))

    def _enter(self, arguments: _Arguments) -> None:
        token = arguments.token("NAME", "a name")
        if not IDENTIFIER.match(token) or token in self.entries:
            raise arguments.place.at(token, f"'{token}' cannot be a new entry's name")
        self.entry = self.entries[str(token)] = _Entry()
        self.ports = self.stream = None

    def _port(self, arguments: _Arguments) -> None:
        if self.entry is None:
            raise arguments.place.at(arguments.head, "a port must be in an entry")
        name = arguments.string("the port's name")
        if not PORT_NAME.match(name):
            raise arguments.place.at(arguments.head, f"'{name}' cannot be a port's name")
        dtype = arguments.word(*DTYPE_BYTES)
        self.ports = self.entry.inputs if arguments.head == ".input" else self.entry.outputs
        self.ports.append(Port(name, dtype, arguments.shape(), ()))

    def _piece(self, arguments: _Arguments) -> None:
        if not self.ports:
            raise arguments.place.at(arguments.head, "a piece must follow .input or .output")
        values = [(arguments.word(key), arguments.number(key))[1] for key in ("core", "address", "offset", "count")]
        port = self.ports[-1]
        self.ports[-1] = replace(port, pieces=(*port.pieces, PortPiece(*values)))

    def _range(self, arguments: _Arguments) -> None:
        if not self.ports:
            raise arguments.place.at(arguments.head, "a range must follow .input")
        low, high = (arguments.number(what, INT32.max, INT32.min) for what in ("the least value", "the greatest value"))
        if low > high:
            raise arguments.place.at(arguments.head, f"the least value {low} is above the greatest, {high}")
        self.ports[-1] = replace(self.ports[-1], range=(low, high))

    def _in_entry(self, arguments: _Arguments) -> tuple[str, _Entry]:
        arguments.word("entry")
        token = arguments.token("NAME", "an entry")
        if token not in self.entries:
            hint = suggestion(token, list(self.entries))
            raise arguments.place.at(token, f"no entry '{token}' so far", hint=hint)
        return str(token), self.entries[token]

    def _start(self, arguments: _Arguments) -> None:
        kind = arguments.word(*STREAM_ISAS)
        number = arguments.number("its number", AGENTS - 1)
        name, entry = self._in_entry(arguments)
        tensor = stream_name(name, kind, number)
        if number in entry.streams[kind]:
            raise arguments.place.at(arguments.head, f"{kind} {number} of entry {name} has a stream already")
        entry.streams[kind][number] = tensor
        self.stream = self.streams[tensor] = _Stream(STREAM_ISAS[kind])
        self.ports = None

    def _same(self, arguments: _Arguments) -> None:
        kind = arguments.word(*STREAM_ISAS)
        numbers = arguments.numbers("its number")
        name, entry = self._in_entry(arguments)
        arguments.word("as")
        arguments.word(kind)
        owner = arguments.number("its number", AGENTS - 1)
        other, _ = self._in_entry(arguments)
        if other != name:
            raise arguments.place.at(arguments.head, "streams are shared within an entry only")
        entry.same.extend((kind, number, arguments.place, owner) for number in numbers)
        self.stream = None

    def _location(self, arguments: _Arguments) -> None:
        stream = self._located(arguments)
        stream.table.append(arguments.string("a source location"))

    def _loc(self, arguments: _Arguments) -> None:
        stream = self._located(arguments)
        token = arguments.token("INTEGER|NAME", "the number of a .location, or none")
        location = -1 if token == "none" else parse_integer(token) if token.type == "INTEGER" else len(stream.table)
        if not -1 <= location < len(stream.table):
            raise arguments.place.at(token, f"there are {len(stream.table)} locations so far")
        stream.location = location

    def _located(self, arguments: _Arguments) -> _Stream:
        if self.stream is None:
            raise arguments.place.at(arguments.head, "a source location must be in a stream")
        self.stream.located = True
        return self.stream
