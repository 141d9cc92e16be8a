"""A whole program in memory: what a ``.pimx`` file holds (docs/binary.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError
from pimc.isa.codec import DecodedProgram, Words
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import InstructionSet
from pimc.isa.sram import SRAM_ISA

#: A JSON value.
Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

#: Element sizes of ports, bytes.
DTYPE_BYTES: Mapping[str, int] = MappingProxyType({"f16": 2, "f32": 4, "i32": 4})

#: Agent kinds and the instruction set of their streams; the words are those of tensor names and of assembly.
STREAM_ISAS: Mapping[str, InstructionSet] = MappingProxyType({"core": SRAM_ISA, "hbm": HBM_ISA})

#: What ``strip`` can keep: metadata that execution does not need.
OPTIONAL_PARTS = ("debug", "model", "tokenizer")


def stream_name(entry: str, kind: str, number: int) -> str:
    """The tensor that holds the own stream of a core (kind ``core``) or pseudo-channel group (``hbm``)."""
    return f"code/{entry}/{kind}/{number}"


@dataclass(frozen=True)
class PortPiece:
    """``count`` elements of a port, from flat element ``offset``, at byte ``address`` of a core's local
    memory."""

    core: int
    address: int
    offset: int
    count: int


@dataclass(frozen=True)
class Port:
    """An input or output of an entry: a tensor that the host writes before, or reads after, a run.

    ``dtype`` is a key of ``DTYPE_BYTES``.  Several pieces of an input may hold the same elements
    (replication).  ``range``: the least and the greatest value that an input of integers may have (None: any).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[PortPiece, ...]
    range: tuple[int, int] | None = None

    @property
    def elements(self) -> int:
        """Elements of the whole tensor."""
        return prod(self.shape)


@dataclass(frozen=True)
class CacheRegion:
    """A part of a cache in the linear memory of every tile, so that a host can set it up.

    Layer l starts at byte ``base + l * layer_stride``; it has ``slots`` of ``slot_bytes``.  ``cores`` tiles share a
    sequence: position p is in slot ``p // cores`` of the tiles whose number is ``p % cores`` modulo ``cores``.
    """

    name: str
    base: int
    layers: int
    layer_stride: int
    slots: int
    slot_bytes: int
    cores: int

    @property
    def positions(self) -> int:
        """Positions that it holds."""
        return self.slots * self.cores

    @property
    def end(self) -> int:
        """The byte behind its last slot."""
        return self.base + (self.layers - 1) * self.layer_stride + self.slots * self.slot_bytes


@dataclass(frozen=True)
class AbsentImages:
    """The memory images that a program without weights lacks: ``rows`` of every bank of pseudo-channels 0 to
    ``channels`` - 1.

    Such a program takes its time and computes nothing.
    """

    channels: int
    rows: int


@dataclass(frozen=True)
class Entry:
    """An entry point: the tensor with the stream of each core and group that runs, and the ports."""

    cores: Mapping[int, str]
    groups: Mapping[int, str]
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()

    def streams(self) -> tuple[tuple[str, int, str], ...]:
        """(kind, number, tensor name) of every stream, cores first, numbers ascending."""
        cores = (("core", number, self.cores[number]) for number in sorted(self.cores))
        groups = (("hbm", number, self.groups[number]) for number in sorted(self.groups))
        return (*cores, *groups)


@dataclass(frozen=True, eq=False)
class Locations:
    """Source locations of a stream: ``index``, int32[words], points into ``table``; -1 is unknown."""

    table: tuple[str, ...]
    index: NDArray[np.int32]

    def at(self, pc: int) -> str | None:
        """The source location of the word at ``pc``, if known."""
        position = int(self.index[pc])
        return None if position < 0 else self.table[position]


@dataclass(frozen=True, eq=False)
class Program:
    """A program: streams, memory images and metadata.

    ``rows``: rows a bank that the program uses.  ``code``: words by tensor name (see :func:`stream_name`);
    entries refer to them, several cores of identical code to the same one.  ``images``: by pseudo-channel,
    the fp16 bits of the first rows of its banks, uint16[rows, banks, lanes] (see :mod:`pimc.isa.images`).
    ``locations``: by tensor name.  ``model``: what the command line wants to know of the model.  ``tokenizer``: the
    text of its tokenizer.json.  ``caches``: where they lie in the memory of a tile.  ``absent_images``: of a program
    that was made without weights, what its images would take (None: ``images`` are all that there are).
    """

    target_name: str
    target_digest: str
    rows: int
    entries: Mapping[str, Entry]
    code: Mapping[str, Words]
    images: Mapping[int, NDArray[np.uint16]] = field(default_factory=dict)
    locations: Mapping[str, Locations] = field(default_factory=dict)
    model: Mapping[str, Json] | None = None
    tokenizer: str | None = None
    caches: tuple[CacheRegion, ...] = ()
    absent_images: AbsentImages | None = None

    def require_images(self) -> None:
        """Raise :class:`InputError` unless the program has the weights that it computes with."""
        if self.absent_images is not None:
            raise InputError(
                "the program has no weights, as it was compiled with --shapes-only: it can only be timed",
                hint="time it with `pimc run --timing-only`, or compile the model without --shapes-only",
            )

    def stream_isa(self, tensor: str) -> InstructionSet:
        """The instruction set of a code tensor."""
        return STREAM_ISAS[tensor.split("/")[2]]


@dataclass(frozen=True, eq=False)
class LoadedProgram(Program):
    """A program every part of which has been checked; ``decoded`` holds each code tensor, decoded."""

    decoded: Mapping[str, DecodedProgram] = field(default_factory=dict)
    path: Path | None = None

    @cached_property
    def name(self) -> str:
        """The program in messages."""
        return str(self.path) if self.path else "program"


def share_streams(program: Program) -> Program:
    """Identical streams of an entry (same kind, words and locations) once; the lowest number keeps its
    tensor."""
    entries: dict[str, Entry] = {}
    kept: set[str] = set()
    for name, entry in program.entries.items():
        owners: dict[tuple[str, bytes, tuple[str, ...], bytes], str] = {}
        found: dict[str, dict[int, str]] = {"core": {}, "hbm": {}}
        for kind, number, tensor in entry.streams():
            locations = program.locations.get(tensor)
            table, index = (locations.table, locations.index.tobytes()) if locations else ((), b"")
            key = (kind, program.code[tensor].tobytes(), table, index)
            found[kind][number] = owners.setdefault(key, tensor)
        entries[name] = replace(entry, cores=found["core"], groups=found["hbm"])
        kept.update(owners.values())
    return replace(
        program,
        entries=entries,
        code={name: words for name, words in program.code.items() if name in kept},
        locations={name: value for name, value in program.locations.items() if name in kept},
    )


def strip(program: Program, keep: Sequence[str] = ()) -> Program:
    """The program without the metadata that execution does not need, but for the parts named in ``keep``.

    Raises ``ValueError`` for a part that is not in ``OPTIONAL_PARTS``.
    """
    unknown = set(keep) - set(OPTIONAL_PARTS)
    if unknown:
        raise ValueError(f"strip cannot keep {sorted(unknown)}; it knows {', '.join(OPTIONAL_PARTS)}")
    return replace(
        program,
        locations=program.locations if "debug" in keep else {},
        model=program.model if "model" in keep else None,
        tokenizer=program.tokenizer if "tokenizer" in keep else None,
    )
