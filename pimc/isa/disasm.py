"""Programs to assembly text, from which ``pimc.isa.asm`` makes the same bytes again (docs/binary.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import UsageError
from pimc.isa.codec import decode_words
from pimc.isa.hbm import HBM_ISA
from pimc.isa.metadata import ABSENT_FIGURES, CACHE_FIGURES, VERSION, dump_json
from pimc.isa.program import Entry, LoadedProgram, Locations, Port, Program, stream_name
from pimc.isa.spec import Instruction, InstructionSet, OperandKind
from pimc.isa.syntax import format_operand

_INDENT = "    "


def images_digest(images: Mapping[int, NDArray[np.uint16]]) -> str:
    """SHA-256 (hex) of all images: for each, ascending, ``pch rows banks lanes`` as text, a newline, the
    data."""
    digest = sha256()
    for pch in sorted(images):
        image = np.ascontiguousarray(images[pch])
        digest.update(f"{pch} {' '.join(map(str, image.shape))}\n".encode())
        digest.update(image.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a text in UTF-8."""
    return sha256(text.encode()).hexdigest()


def format_instruction(
    isa: InstructionSet, instruction: Instruction, operands: Sequence[int], target: str | None = None
) -> str:
    """One instruction as assembly text; ``target`` replaces the offset of a LABEL operand."""
    written = [
        target if target is not None and operand.kind is OperandKind.LABEL else format_operand(isa, operand, value)
        for operand, value in zip(instruction.operands, operands[: len(instruction.operands)], strict=True)
    ]
    return f"{instruction.mnemonic:<9} {', '.join(written)}".rstrip()


def disassemble(program: Program, *, stream: str | None = None, reference: str | None = None) -> str:
    """The assembly text of a program, or of one of its streams (``decode/core/0``; a fragment, not a
    program).

    Images and the tokenizer stay in the binary, to which the text refers by ``reference`` (by default the
    path that ``program`` was loaded from) and digest.

    Raises :class:`UsageError` for a stream that the program does not have.
    """
    if stream is not None:
        return "\n".join(_stream(program, _find(program, stream))) + "\n"
    if reference is None:
        reference = str(program.path) if isinstance(program, LoadedProgram) and program.path else "program.pimx"
    lines = [*_head(program, reference)]
    for name in sorted(program.entries):
        lines.append("")
        lines.extend(_entry(program, name, program.entries[name]))
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)


def _find(program: Program, stream: str) -> str:
    parts = stream.removeprefix("code/").split("/")
    if len(parts) == 3 and parts[0] in program.entries:
        for kind, number, tensor in program.entries[parts[0]].streams():
            if parts[1:] == [kind, str(number)]:
                return tensor
    names = [f"{name}/{kind}/{number}" for name, e in program.entries.items() for kind, number, _ in e.streams()]
    raise UsageError(f"no stream '{stream}'", hint=f"streams are named like {names[0]}" if names else None)


def _head(program: Program, reference: str) -> Iterator[str]:
    yield f".pimx {VERSION[0]} {VERSION[1]}"
    yield f".target {_quote(program.target_name)} digest {_quote(program.target_digest)}"
    yield f".rows {program.rows}"
    if program.images:
        yield f".images {_quote(reference)} sha256 {_quote(images_digest(program.images))}"
    if program.absent_images is not None:
        absent = " ".join(f"{key} {getattr(program.absent_images, key)}" for key in ABSENT_FIGURES)
        yield f".absent {absent}"
    if program.tokenizer is not None:
        yield f".tokenizer {_quote(reference)} sha256 {_quote(text_digest(program.tokenizer))}"
    if program.model is not None:
        yield f".model {dump_json(program.model)}"
    for cache in program.caches:
        figures = " ".join(f"{key} {getattr(cache, key)}" for key in CACHE_FIGURES)
        yield f".cache {_quote(cache.name)} {figures}"


def _entry(program: Program, name: str, entry: Entry) -> Iterator[str]:
    yield f".entry {name}"
    for side, ports in (("input", entry.inputs), ("output", entry.outputs)):
        for port in ports:
            yield from _port(side, port)
    owners: dict[str, int] = {}
    aliases: list[tuple[str, int, int]] = []
    for kind, number, tensor in entry.streams():
        owner = int(tensor.rsplit("/", 1)[1])
        if tensor == stream_name(name, kind, number):
            yield ""
            yield f".stream {kind} {number} entry {name}"
            owners[tensor] = number
            yield from _stream(program, tensor)
        else:
            aliases.append((kind, number, owner))
    if aliases:
        yield ""
    for _, group in groupby(enumerate(aliases), lambda item: (item[1][0], item[1][1] - item[0], item[1][2])):
        run = [alias for _, alias in group]
        kind, first, owner = run[0]
        numbers = f"{first}..{run[-1][1]}" if len(run) > 1 else f"{first}"
        yield f".same {kind} {numbers} entry {name} as {kind} {owner} entry {name}"


def _port(side: str, port: Port) -> Iterator[str]:
    yield f".{side} {_quote(port.name)} {port.dtype} [{', '.join(map(str, port.shape))}]"
    if port.range is not None:
        yield f"{_INDENT}.range {port.range[0]} {port.range[1]}"
    for piece in port.pieces:
        yield (
            f"{_INDENT}.piece core {piece.core} address {piece.address:#x} offset {piece.offset} count {piece.count}"
        )


def _stream(program: Program, tensor: str) -> Iterator[str]:
    """The lines of one stream: location table, labels, instructions; loops of command streams indented."""
    isa = program.stream_isa(tensor)
    locations = program.locations.get(tensor)
    if locations:
        yield from (f"{_INDENT}.location {_quote(text)}" for text in locations.table)
    op, operands = decode_words(isa, program.code[tensor])
    rows: list[list[int]] = operands.tolist()
    numbers: list[int] = op.tolist()
    targets = _targets(isa, numbers, rows)
    labels = set(targets.values())
    location: int | None = None
    depth = 0
    for pc, (number, row) in enumerate(zip(numbers, rows, strict=True)):
        instruction = isa.instructions[number]
        if pc in labels:
            yield f"L{pc}:"
        if locations and locations.index[pc] != location:
            location = int(locations.index[pc])
            yield _location(locations, location)
        depth -= isa is HBM_ISA and instruction.mnemonic == "endl"
        text = format_instruction(isa, instruction, row, f"L{targets[pc]}" if pc in targets else None)
        yield _INDENT + "  " * depth + text
        depth += isa is HBM_ISA and instruction.mnemonic == "loop"
    if locations and not numbers:
        yield f"{_INDENT}.loc none"


def _location(locations: Locations, position: int) -> str:
    if position < 0:
        return f"{_INDENT}.loc none"
    return f"{_INDENT}.loc {position}  # {_quote(locations.table[position])[1:-1]}"


def _targets(isa: InstructionSet, op: list[int], operands: list[list[int]]) -> dict[int, int]:
    """The target of every branch, by its position."""
    columns = {
        index: column
        for index, instruction in enumerate(isa.instructions)
        for column, operand in enumerate(instruction.operands)
        if operand.kind is OperandKind.LABEL
    }
    return {pc: pc + operands[pc][columns[number]] for pc, number in enumerate(op) if number in columns}
