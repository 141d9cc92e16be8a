"""What must hold of a program before anything runs it: streams, ports, images, and the limits of a target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import IsaError, TargetError
from pimc.isa.codec import DecodedProgram, decode_words
from pimc.isa.hbm import CONTROLLER_UNITS, HBM_ISA
from pimc.isa.images import DeferredImages, image_shapes
from pimc.isa.metadata import IDENTIFIER
from pimc.isa.program import DTYPE_BYTES, CacheRegion, Entry, LoadedProgram, Port, Program, stream_name
from pimc.isa.spec import InstructionSet, OperandKind
from pimc.isa.sram import CONFIG_REGISTERS, SRAM_ISA
from pimc.limits import AGENTS, CODE_WORDS, PORT_BYTES, STREAM_WORDS

#: Loops of an HBM-PIM stream that may be open at once (a property of the instruction set, see ``loop``).
LOOP_DEPTH = 8


class _ControllerLimits(Protocol):
    @property
    def semaphores(self) -> int: ...
    @property
    def registers(self) -> int: ...
    @property
    def loop_depth(self) -> int: ...


class _PuLimits(Protocol):
    @property
    def result_registers(self) -> int: ...


class _HbmLimits(Protocol):
    @property
    def rows(self) -> int: ...
    @property
    def row_bytes(self) -> int: ...
    @property
    def banks(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def pch_count(self) -> int: ...
    @property
    def pu(self) -> _PuLimits | None: ...
    @property
    def controller(self) -> _ControllerLimits: ...


class _CoreLimits(Protocol):
    @property
    def count(self) -> int: ...
    @property
    def scalar_registers(self) -> int: ...
    @property
    def semaphores(self) -> int: ...
    @property
    def config_registers(self) -> int: ...


class _MemoryLimits(Protocol):
    @property
    def bytes(self) -> int: ...


class TargetLimits(Protocol):
    """What :func:`check_against_target` asks of a target; ``pimc.targets.Target`` has it."""

    @property
    def name(self) -> str:
        """The target's name."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its content."""
        ...

    @property
    def cores(self) -> _CoreLimits:
        """The SRAM-PIM cores."""
        ...

    @property
    def hbm(self) -> _HbmLimits:
        """The HBM-PIM side."""
        ...

    @property
    def unit_names(self) -> frozenset[str]:
        """The names of its units, as the instruction tables have them."""
        ...

    @property
    def pchs_per_core(self) -> int:
        """Pseudo-channels of a tile."""
        ...

    @property
    def local_bytes(self) -> int:
        """Size of a core's local address space."""
        ...

    def memory(self, name: str) -> _MemoryLimits:
        """The memory of that name: ``instruction`` (a core's) and ``stream`` (a pseudo-channel's) are
        asked."""
        ...


def validate_program(program: Program, where: str = "program") -> LoadedProgram:
    """Check all that does not depend on a target, and decode every stream.

    Raises :class:`IsaError` that names the stream, port or image at fault; ``where`` names the file.
    """
    _check_names(program, where)
    _check_sizes(program, where)
    decoded: dict[str, DecodedProgram] = {}
    for tensor, words in program.code.items():
        here = f"{where}: {tensor}"
        isa = program.stream_isa(tensor)
        decoded[tensor] = decode_words(isa, words, where=here)
        if isa is SRAM_ISA:
            check_core_stream(decoded[tensor], here)
        else:
            check_hbm_stream(decoded[tensor], here)
        locations = program.locations.get(tensor)
        if locations and locations.index.shape != words.shape:
            raise IsaError(f"{len(locations.index)} source locations for {len(words)} words", where=here)
    for name, entry in program.entries.items():
        _check_ports(entry, f"{where}: entry {name}")
    _check_images(program, where)
    values = {field.name: getattr(program, field.name) for field in fields(Program)}
    return LoadedProgram(**values, decoded=decoded)


def _check_names(program: Program, where: str) -> None:
    """Every stream exists, is of its kind, and every code tensor is the own stream of one agent."""
    owned: set[str] = set()
    for name, entry in program.entries.items():
        if not IDENTIFIER.match(name):
            raise IsaError(f"{name[:80]!r} cannot name an entry", where=where)
        for kind, number, tensor in entry.streams():
            if tensor not in program.code:
                raise IsaError(f"{kind} {number} of entry {name} has no tensor {tensor[:120]!r}", where=where)
            parts = tensor.split("/")
            if len(parts) != 4 or parts[2] != kind or parts[1] != name:
                raise IsaError(f"{kind} {number} of entry {name} cannot run {tensor[:120]!r}", where=where)
            if tensor == stream_name(name, kind, number):
                owned.add(tensor)
    strangers = sorted(set(program.code) - owned)
    if strangers:
        raise IsaError(f"tensor {strangers[0][:120]!r} is not the stream of a core or group", where=where)
    strangers = sorted(set(program.locations) - owned)
    if strangers:
        raise IsaError(f"source locations of {strangers[0][:120]!r}, which is no stream", where=where)


def _check_sizes(program: Program, where: str) -> None:
    """Code and ports are within the limits, before anything of their size is made."""
    sizes = {tensor: len(words) for tensor, words in program.code.items()}
    for tensor, size in sizes.items():
        if size > STREAM_WORDS:
            raise IsaError(f"{size} words, the limit of a stream is {STREAM_WORDS}", where=f"{where}: {tensor}")
    if sum(sizes.values()) > CODE_WORDS:
        raise IsaError(f"{sum(sizes.values())} words, the limit of all streams is {CODE_WORDS}", where=where)
    for name, entry in program.entries.items():
        for side, ports in (("inputs", entry.inputs), ("outputs", entry.outputs)):
            size = sum(port.elements * DTYPE_BYTES[port.dtype] for port in ports)
            if size > PORT_BYTES:
                raise IsaError(
                    f"the {side} take more than {PORT_BYTES} bytes, the limit", where=f"{where}: entry {name}"
                )


def _labels(isa: InstructionSet, decoded: DecodedProgram) -> NDArray[np.int64]:
    """(position, target) of every branch: int64[branches, 2]."""
    found = []
    for index, instruction in enumerate(isa.instructions):
        for column, operand in enumerate(instruction.operands):
            if operand.kind is OperandKind.LABEL:
                (positions,) = np.nonzero(decoded.op == index)
                found.append(np.stack([positions, positions + decoded.operands[positions, column]], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def check_core_stream(decoded: DecodedProgram, where: str) -> None:
    """Branches stay inside the stream, and it cannot run off its end."""
    size = len(decoded.op)
    labels = _labels(SRAM_ISA, decoded)
    outside = (labels[:, 1] < 0) | (labels[:, 1] >= size)
    if outside.any():
        position, target = labels[int(np.argmax(outside))]
        raise IsaError(f"word {position} branches to {target}, outside the {size} words", where=where)
    last = SRAM_ISA.instructions[decoded.op[-1]].mnemonic if size else ""
    always = last in ("beq", "bge") and decoded.operands[-1, 0] == decoded.operands[-1, 1]
    if last != "halt" and not always:
        raise IsaError("the stream can run off its end", where=where, hint="end it with halt")


def check_hbm_stream(decoded: DecodedProgram, where: str) -> None:
    """Loops nest, at most ``LOOP_DEPTH`` deep, and the stream ends with ``halt``."""
    depth = 0
    loop, end, halt = (HBM_ISA.index[name] for name in ("loop", "endl", "halt"))
    for position in np.flatnonzero((decoded.op == loop) | (decoded.op == end)):
        depth += 1 if decoded.op[position] == loop else -1
        if depth < 0:
            raise IsaError(f"word {position}: endl without a loop", where=where)
        if depth > LOOP_DEPTH:
            raise IsaError(f"word {position}: loops more than {LOOP_DEPTH} deep", where=where)
    if depth:
        raise IsaError(f"{depth} loops have no endl", where=where)
    if not len(decoded.op) or decoded.op[-1] != halt:
        raise IsaError("the stream can run off its end", where=where, hint="end it with halt")


def _first_overlap(spans: Iterable[tuple[int, int]]) -> int | None:
    """The start of the first of the half-open ``spans`` that overlaps the one before it."""
    end = -1
    for start, stop in sorted(spans):
        if start < end:
            return start
        end = stop
    return None


def _check_ports(entry: Entry, where: str) -> None:
    for side, ports in (("input", entry.inputs), ("output", entry.outputs)):
        names = [port.name for port in ports]
        if len(set(names)) != len(names):
            raise IsaError(f"two {side}s have the same name", where=where)
        for port in ports:
            _check_port(port, f"{where}: {side} {port.name}", is_output=side == "output")
            if port.range is not None and (side == "output" or port.dtype != "i32"):
                raise IsaError(f"a range belongs to an input of i32, not to {side} {port.name}", where=where)
    memory: dict[int, list[tuple[int, int]]] = {}
    for port in entry.inputs:
        for piece in port.pieces:
            stop = piece.address + piece.count * DTYPE_BYTES[port.dtype]
            memory.setdefault(piece.core, []).append((piece.address, stop))
    for core, spans in memory.items():
        overlap = _first_overlap(spans)
        if overlap is not None:
            raise IsaError(f"inputs overlap at address {overlap:#x} of core {core}", where=where)


def _check_port(port: Port, where: str, *, is_output: bool) -> None:
    for piece in port.pieces:
        if piece.offset + piece.count > port.elements:
            raise IsaError(f"a piece ends behind its {port.elements} elements", where=where)
        if piece.address % DTYPE_BYTES[port.dtype]:
            raise IsaError(f"address {piece.address:#x} is not a multiple of the element size", where=where)
    if is_output:
        spans = [(piece.offset, piece.offset + piece.count) for piece in port.pieces]
        if _first_overlap(spans) is not None or sum(piece.count for piece in port.pieces) != port.elements:
            raise IsaError("the pieces must give every element once", where=where)


def _check_images(program: Program, where: str) -> None:
    absent = program.absent_images
    if absent is not None and (program.images or absent.rows > program.rows):
        what = "has images" if program.images else f"has {absent.rows} of {program.rows} rows"
        raise IsaError(f"a program without weights {what}", where=where)
    shapes = image_shapes(program.images)
    if len({shape[1:] for shape in shapes.values()}) > 1:
        raise IsaError("images differ in banks or row size", where=where)
    deferred = isinstance(program.images, DeferredImages)
    for pch, shape in shapes.items():
        if not 0 <= pch < AGENTS:
            raise IsaError(f"image {pch}: numbers end at {AGENTS - 1}", where=where)
        dtype = np.dtype("<u2") if deferred else program.images[pch].dtype
        if dtype != np.dtype("<u2") or len(shape) != 3:
            raise IsaError(f"image {pch} is {dtype}, rank {len(shape)}: not uint16, rank 3", where=where)
        if not 0 < shape[0] <= program.rows or 0 in shape:
            raise IsaError(f"image {pch} has {shape[0]} of {program.rows} rows", where=where)


def _require(condition: bool, message: str, where: str) -> None:
    if not condition:
        raise TargetError(message, where=where)


def check_against_target(program: LoadedProgram, target: TargetLimits) -> None:
    """Check that the program fits the target: units, agents, instruction memories, local memory, rows, columns,
    registers.

    Raises :class:`TargetError` naming what does not fit.
    """
    for name, entry in program.entries.items():
        _check_entry(program, entry, target, f"entry {name}")
    for tensor, decoded in program.decoded.items():
        isa = program.stream_isa(tensor)
        _check_units(decoded, isa, target, tensor)
        if isa is HBM_ISA:
            _check_commands(decoded, target, tensor)
            registers, prefix = target.hbm.controller.registers, "h"
        else:
            _check_instructions(decoded, target, tensor)
            registers, prefix = target.cores.scalar_registers, "r"
        for index in np.unique(decoded.op):
            instruction = isa.instructions[int(index)]
            names = [operand.name for operand in instruction.operands if operand.kind is OperandKind.REGISTER]
            for register in names:
                _check_fields(decoded, isa, instruction.mnemonic, (register,), registers, f"{tensor} ({prefix})")
    hbm = target.hbm
    for cache in program.caches:
        _check_cache(cache, program.rows, target)
    _require(program.rows <= hbm.rows, f"{program.rows} rows a bank, the target has {hbm.rows}", "rows")
    absent = program.absent_images
    if absent is not None:
        where = f"the absent images are of {absent.channels} pseudo-channels"
        _require(absent.channels <= hbm.pch_count, f"the target has {hbm.pch_count}", where)
    for pch, held in image_shapes(program.images).items():
        where = f"image {pch}"
        _require(pch < hbm.pch_count, f"the target has {hbm.pch_count} pseudo-channels", where)
        shape = (hbm.banks, hbm.row_bytes // 2)
        _require(held[1:] == shape, f"banks x lanes are {held[1:]}, the target's {shape}", where)


def _check_units(decoded: DecodedProgram, isa: InstructionSet, target: TargetLimits, where: str) -> None:
    """Refuse instructions of units that the target lacks."""
    for index in np.unique(decoded.op):
        instruction = isa.instructions[int(index)]
        there = instruction.unit in target.unit_names or (isa is HBM_ISA and instruction.unit in CONTROLLER_UNITS)
        pc = int(np.flatnonzero(decoded.op == index)[0])
        _require(
            there, f"{instruction.mnemonic} at {pc} needs the unit {instruction.unit!r}, the target has none", where
        )


def _check_cache(cache: CacheRegion, rows: int, target: TargetLimits) -> None:
    hbm, where = target.hbm, f"cache {cache.name}"
    column = hbm.row_bytes // hbm.columns
    whole = not (cache.base % column or cache.layer_stride % column or cache.slot_bytes % column)
    _require(whole, f"its slots are not made of whole columns of {column} bytes", where)
    apart = cache.layers == 1 or cache.layer_stride >= cache.slots * cache.slot_bytes
    _require(apart, "its layers overlap", where)
    space = rows * hbm.row_bytes * hbm.banks * target.pchs_per_core
    _require(cache.end <= space, f"ends at byte {cache.end} of a tile, the program's rows at {space}", where)
    _require(cache.cores <= target.cores.count, f"the target has {target.cores.count} cores", where)


def _check_entry(program: Program, entry: Entry, target: TargetLimits, where: str) -> None:
    sizes = {"core": target.memory("instruction").bytes, "hbm": target.memory("stream").bytes}
    for kind, number, tensor in entry.streams():
        here = f"{where}: {kind} {number}"
        _require(number < target.cores.count, f"the target has {target.cores.count} cores", here)
        size = program.code[tensor].nbytes
        _require(size <= sizes[kind], f"{size} bytes of code, the instruction memory has {sizes[kind]}", here)
    for port in (*entry.inputs, *entry.outputs):
        for piece in port.pieces:
            here = f"{where}: port {port.name}"
            _require(piece.core < target.cores.count, f"the target has {target.cores.count} cores", here)
            stop = piece.address + piece.count * DTYPE_BYTES[port.dtype]
            _require(stop <= target.local_bytes, f"ends at {stop:#x}, local memory at {target.local_bytes:#x}", here)


def _check_fields(
    decoded: DecodedProgram, isa: InstructionSet, mnemonic: str, names: tuple[str, ...], limit: int, where: str
) -> None:
    """The sum of these operands of every ``mnemonic`` is below ``limit`` (a count adds up to it at most)."""
    index = isa.index[mnemonic]
    operands = [operand.name for operand in isa.instructions[index].operands]
    (positions,) = np.nonzero(decoded.op == index)
    if not positions.size:
        return
    total = sum(decoded.operands[positions, operands.index(name)] for name in names)
    bad = total >= limit + ("count" in names)
    if np.any(bad):
        pc = positions[int(np.argmax(bad))]
        _require(False, f"word {pc}: {mnemonic}: {' + '.join(names)} exceeds the target's {limit}", where)


def _check_instructions(decoded: DecodedProgram, target: TargetLimits, where: str) -> None:
    """Semaphores, configuration registers and controller registers of a core's stream."""
    _check_fields(decoded, SRAM_ISA, "sigh", ("sem",), target.hbm.controller.semaphores, where)
    _check_fields(decoded, SRAM_ISA, "hset", ("hreg",), target.hbm.controller.registers, where)
    limits = {
        OperandKind.SEMAPHORE: target.cores.semaphores,
        OperandKind.CONFIG: target.cores.config_registers,
    }
    for index in np.unique(decoded.op):
        instruction = SRAM_ISA.instructions[int(index)]
        for operand in instruction.operands:
            if operand.kind in limits and instruction.mnemonic != "sigh":
                _check_fields(decoded, SRAM_ISA, instruction.mnemonic, (operand.name,), limits[operand.kind], where)
        for name in instruction.config:
            number, _ = CONFIG_REGISTERS[name]
            _require(
                number < target.cores.config_registers,
                f"{instruction.mnemonic} takes configuration register {name}, number {number}; the target has "
                f"{target.cores.config_registers}",
                where,
            )


def _check_commands(decoded: DecodedProgram, target: TargetLimits, where: str) -> None:
    """Banks, columns, result registers and semaphores of a command stream."""
    hbm = target.hbm
    registers = 0 if hbm.pu is None else hbm.pu.result_registers
    limits: Mapping[tuple[str, tuple[str, ...]], int] = {
        ("wait", ("sem",)): hbm.controller.semaphores,
        ("sig", ("sem",)): target.cores.semaphores,
        ("wrgb", ("column", "count")): hbm.columns,
        ("mac", ("column", "count")): hbm.columns,
        ("mac", ("buffer", "count")): hbm.columns,
        ("mac", ("result",)): registers,
        ("rdres", ("result", "count")): registers,
        ("rd", ("column", "count")): hbm.columns,
        ("wr", ("column", "count")): hbm.columns,
        ("rd", ("bank",)): hbm.banks,
        ("wr", ("bank",)): hbm.banks,
    }
    for (mnemonic, names), limit in limits.items():
        _check_fields(decoded, HBM_ISA, mnemonic, names, limit, where)
    for instruction in HBM_ISA.instructions:
        if any(operand.name == "mask" for operand in instruction.operands):
            _check_fields(decoded, HBM_ISA, instruction.mnemonic, ("mask",), 1 << target.pchs_per_core, where)
    loop, end = HBM_ISA.index["loop"], HBM_ISA.index["endl"]
    depth = np.cumsum((decoded.op == loop).astype(np.int64) - (decoded.op == end))
    deepest = int(depth.max(initial=0))
    allowed = hbm.controller.loop_depth
    _require(deepest <= allowed, f"loops are {deepest} deep, the target allows {allowed}", where)
