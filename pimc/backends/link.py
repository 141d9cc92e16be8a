"""The program of a module: streams, ports and memory images put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import DenseArrayBase, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute

from pimc.backends.image import deferred_images
from pimc.diagnostics import InputError
from pimc.ir.aliases import with_aliases
from pimc.ir.bank_layout import HalfBits, TileGeometry
from pimc.ir.code_ops import CodeOp, HbmCodeOp, SramCodeOp
from pimc.ir.constants import stored_constants
from pimc.ir.instruction_ops import numbers
from pimc.ir.locations import where
from pimc.ir.memory_map import ATTRIBUTE, MemoryMap
from pimc.ir.weights import WeightStore
from pimc.isa.program import (
    DTYPE_BYTES,
    AbsentImages,
    CacheRegion,
    Entry,
    Locations,
    Port,
    PortPiece,
    Program,
    share_streams,
    stream_name,
)
from pimc.targets.target import Target

#: Module attribute of programs without a memory map: rows of every bank that they use.
ROWS = "pim.rows"


@dataclass
class _EntryParts:
    cores: dict[int, str] = field(default_factory=dict)
    groups: dict[int, str] = field(default_factory=dict)
    ports: dict[tuple[str, str], Port] = field(default_factory=dict)


def link_program(module: ModuleOp, weights: WeightStore | None, target: Target, *, share: bool = True) -> Program:
    """The program of a module that ``emit`` has seen, with the images of its weights (None: without; it says so).

    With ``share`` streams that are equal are stored once.  Raises :class:`InputError` where an agent has two streams in
    an entry or a port is declared in two ways.  The images are made when they are asked for, and a weight that does not
    fit is an error then (see ``build_images``).
    """
    entries: dict[str, _EntryParts] = {}
    code: dict[str, NDArray[np.unsignedinteger]] = {}
    locations: dict[str, Locations] = {}
    for op in module.body.block.ops:
        if not isinstance(op, SramCodeOp | HbmCodeOp):
            continue
        parts = entries.setdefault(op.entry.data, _EntryParts())
        _add_streams(op, parts, code, locations)
        if isinstance(op, SramCodeOp):
            _add_ports(op, parts)
    if not entries:
        raise InputError("the module has no code to link", hint="run emit before link")
    memory = MemoryMap.of(module) if ATTRIBUTE in module.attributes else None
    if memory is not None:
        memory.check(TileGeometry.of(target), target.cores.count, target.hbm.rows)
    images: Mapping[int, HalfBits] = {}
    absent: AbsentImages | None = None
    if memory is not None and memory.image_rows:
        if weights is None:
            absent = AbsentImages(target.hbm.pch_count, memory.image_rows)
        else:
            named, geometry = with_aliases(module, weights), TileGeometry.of(target)
            images = deferred_images(memory, named, geometry, stored_constants(module))
    program = Program(
        target_name=target.name,
        target_digest=target.digest,
        rows=memory.rows if memory is not None else _rows(module),
        entries={name: _entry(parts) for name, parts in entries.items()},
        code=code,
        images=images,
        locations=locations,
        caches=_caches(memory) if memory is not None else (),
        absent_images=absent,
    )
    return share_streams(program) if share else program


def _caches(memory: MemoryMap) -> tuple[CacheRegion, ...]:
    return tuple(
        CacheRegion(
            region.tensor.data,
            region.base.data,
            region.layers.data,
            region.layer_stride.data,
            region.rows.data,
            region.row_bytes.data,
            region.cores.data,
        )
        for region in memory.linear
        if region.kind.data == "cache"
    )


def _rows(module: ModuleOp) -> int:
    rows = module.attributes.get(ROWS)
    return rows.value.data if isinstance(rows, IntegerAttr) else 0


def _add_streams(
    op: CodeOp, parts: _EntryParts, code: dict[str, NDArray[np.unsignedinteger]], locations: dict[str, Locations]
) -> None:
    words = op.code
    kind, streams = ("core", parts.cores) if isinstance(op, SramCodeOp) else ("hbm", parts.groups)
    for position, agent in enumerate(words.agents):
        if agent in streams:
            raise InputError(f"entry {words.entry!r} has two streams for {kind} {agent}", where=where(op))
        tensor = stream_name(words.entry, kind, agent)
        streams[agent] = tensor
        code[tensor] = words.of(position)
        locations[tensor] = Locations(words.table, words.index)


def _add_ports(op: SramCodeOp, parts: _EntryParts) -> None:
    for attribute in op.ports:
        direction, port = _port(attribute, op)
        key = (direction, port.name)
        known = parts.ports.get(key)
        if known is not None and replace(known, pieces=()) != replace(port, pieces=()):
            raise InputError(f"port {port.name!r} has two types, shapes or ranges", where=where(op))
        parts.ports[key] = replace(port, pieces=(*(known.pieces if known is not None else ()), *port.pieces))


def _port(attribute: Attribute, op: SramCodeOp) -> tuple[str, Port]:
    data: Mapping[str, Attribute] = attribute.data if isinstance(attribute, DictionaryAttr) else {}
    texts = [value.data for key in ("direction", "name", "dtype") if isinstance(value := data.get(key), StringAttr)]
    shape, pieces = data.get("shape"), data.get("pieces")
    if len(texts) != 3 or not isinstance(shape, DenseArrayBase) or not isinstance(pieces, DenseArrayBase):
        raise InputError("sram.code has a malformed port", where=where(op))
    direction, name, dtype = texts
    flat = numbers(pieces)
    if dtype not in DTYPE_BYTES or len(flat) % 4 or min((*flat, *numbers(shape)), default=0) < 0:
        raise InputError(f"port {name!r} of sram.code has a malformed type, shape or piece", where=where(op))
    found = tuple(PortPiece(*flat[i : i + 4]) for i in range(0, len(flat), 4))
    allowed = data.get("range")
    low_high = numbers(allowed) if isinstance(allowed, DenseArrayBase) else None
    if low_high is not None and len(low_high) != 2:
        raise InputError("sram.code has a malformed port", where=where(op))
    return direction, Port(name, dtype, numbers(shape), found, None if low_high is None else (low_high[0], low_high[1]))


def _entry(parts: _EntryParts) -> Entry:
    def ports(direction: str) -> Iterable[Port]:
        return (port for (kind, _), port in parts.ports.items() if kind == direction)

    return Entry(
        dict(sorted(parts.cores.items())),
        dict(sorted(parts.groups.items())),
        tuple(ports("input")),
        tuple(ports("output")),
    )
