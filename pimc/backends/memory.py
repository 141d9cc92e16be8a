"""Addresses of buffers in the local memories of the cores: first fit, largest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pimc.backends.access import AddressFlow
from pimc.backends.liveness import Liveness, analyse
from pimc.backends.messages import Messages, joined
from pimc.backends.order import ProgramOrder
from pimc.backends.windows import stream_windows
from pimc.diagnostics import InputError, TargetError
from pimc.ir import hbm
from pimc.ir.locations import where
from pimc.ir.sram_structure import MEMORIES, AllocOp, ProgramOp

#: Buffers that an error names.
_NAMED = 8


@dataclass(frozen=True)
class MemorySpace:
    """A local memory of a core: its first byte address and its size in bytes."""

    base: int
    size: int


def allocate_entry(
    programs: Sequence[ProgramOp], streams: list[hbm.ProgramOp], spaces: Mapping[str, MemorySpace]
) -> dict[ProgramOp, dict[str, int]]:
    """Byte addresses of the buffers of all programs of one entry: program -> buffer name -> address.

    A remote buffer has one address in all programs.  Raises :class:`TargetError` where buffers do not fit a
    memory.
    """
    lives = _liveness(programs, streams)
    placed: dict[AllocOp, int] = {}
    for memory in MEMORIES:
        remote: dict[str, list[AllocOp]] = {}
        local: dict[AllocOp, Liveness] = {}
        for live in lives.values():
            for alloc in _allocs(live.order, memory):
                if alloc.remote is not None:
                    remote.setdefault(alloc.sym_name.data, []).append(alloc)
                else:
                    local[alloc] = live
        owner = {alloc: live for live in lives.values() for alloc in _allocs(live.order, memory)}
        for same in sorted(remote.values(), key=lambda allocs: (-_size(allocs[0]), allocs[0].sym_name.data)):
            _check_same(same)
            taken = [_taken(owner[alloc], alloc, placed, memory) for alloc in same]
            address = _first_fit(same[0], [span for spans in taken for span in spans], spaces[memory])
            for alloc in same:
                placed[alloc] = _fitted(address, alloc, owner[alloc], spaces[memory])
        for alloc in sorted(local, key=lambda a: (-_size(a), local[a].order.start[a])):
            taken_here = _taken(local[alloc], alloc, placed, memory)
            address = _first_fit(alloc, taken_here, spaces[memory])
            placed[alloc] = _fitted(address, alloc, local[alloc], spaces[memory])
    return {
        program: {alloc.sym_name.data: placed[alloc] for memory in MEMORIES for alloc in _allocs(live.order, memory)}
        for program, live in lives.items()
    }


def _liveness(programs: Sequence[ProgramOp], streams: list[hbm.ProgramOp]) -> dict[ProgramOp, Liveness]:
    parts: list[Messages] = []
    for program in programs:
        order = ProgramOrder.of(program.body.block)
        parts.append(Messages.of(program, order, AddressFlow.analyse(order)))
    senders = joined(parts)
    return {program: analyse(program, stream_windows(program, streams), senders) for program in programs}


def _allocs(order: ProgramOrder, memory: str) -> list[AllocOp]:
    return [op for op in order.operations if isinstance(op, AllocOp) and op.memory.data == memory]


def _size(alloc: AllocOp) -> int:
    return alloc.bytes.value.data


def _taken(live: Liveness, alloc: AllocOp, placed: Mapping[AllocOp, int], memory: str) -> list[tuple[int, int]]:
    """[start, end) of the placed buffers of the same program that conflict with ``alloc``."""
    return [
        (placed[other], placed[other] + _size(other))
        for other in _allocs(live.order, memory)
        if other in placed and live.conflict(alloc, other)
    ]


def _first_fit(alloc: AllocOp, taken: Iterable[tuple[int, int]], space: MemorySpace) -> int | None:
    """The lowest aligned address with room between the ``taken`` spans; None if there is none."""
    align = alloc.align.value.data
    address = -(-space.base // align) * align
    for start, end in sorted(taken):
        if address + _size(alloc) <= start:
            break
        address = max(address, -(-end // align) * align)
    return address if address + _size(alloc) <= space.base + space.size else None


def _fitted(address: int | None, alloc: AllocOp, live: Liveness, space: MemorySpace) -> int:
    if address is not None:
        return address
    memory = alloc.memory.data
    rivals = [other for other in _allocs(live.order, memory) if other is alloc or live.conflict(alloc, other)]
    rivals.sort(key=lambda a: (-_size(a), a.sym_name.data))
    listed = ", ".join(f"{a.sym_name.data} ({_size(a)} bytes)" for a in rivals[:_NAMED])
    more = f" and {len(rivals) - _NAMED} smaller ones" if len(rivals) > _NAMED else ""
    total = sum(_size(a) for a in rivals)
    raise TargetError(
        f"buffer {alloc.sym_name.data!r} does not fit the {memory} memory of {space.size} bytes: "
        f"it and the buffers in use with it take {total} bytes: {listed}{more}",
        hint="a shorter max_seq, a smaller prefill_chunk, or a target with more local memory",
        where=where(alloc),
    )


def _check_same(allocs: Sequence[AllocOp]) -> None:
    first = allocs[0]
    for other in allocs[1:]:
        if (other.bytes, other.align, other.memory) != (first.bytes, first.align, first.memory):
            raise InputError(
                f"remote buffer {first.sym_name.data!r} has different sizes or memories in two programs",
                where=where(other),
            )
