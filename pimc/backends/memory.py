"""Addresses of buffers in the local memories of the cores: first fit, largest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from xdsl.ir import Operation

from pimc.backends.access import AddressFlow
from pimc.backends.liveness import Liveness, analyse
from pimc.backends.meetings import shorten
from pimc.backends.messages import Messages, joined
from pimc.backends.order import ProgramOrder
from pimc.backends.windows import stream_windows
from pimc.diagnostics import DoesNotFitError, InputError
from pimc.ir import hbm
from pimc.ir.locations import where
from pimc.ir.signature import LANGUAGE_ENTRIES
from pimc.ir.sram_control import ProgramOp
from pimc.ir.sram_structure import MEMORIES, AllocOp

#: How often buffers are placed in one order, those that did not fit moved to the front.
ATTEMPTS = 12
#: Buffers that an error names.
_NAMED = 8


@dataclass(frozen=True)
class MemorySpace:
    """A local memory of a core: its first byte address and its size in bytes."""

    base: int
    size: int


def allocate_entry(
    programs: Sequence[ProgramOp],
    streams: list[hbm.ProgramOp],
    spaces: Mapping[str, MemorySpace],
    *,
    share: bool = True,
    semaphore: int | None = None,
) -> dict[ProgramOp, dict[str, int]]:
    """Byte addresses of the buffers of all programs of one entry: program -> buffer name -> address.

    A remote buffer has one address in all programs.  ``share``: buffers that are not in use at once may have the
    same.  ``semaphore``: one of the cores' by which they may meet where memory is short (None: they do not).  Raises
    :class:`DoesNotFitError` where buffers do not fit a memory.
    """
    while True:
        lives = _liveness(programs, streams)
        placed: dict[ProgramOp, dict[AllocOp, int]] = {program: {} for program in programs}
        for memory in MEMORIES:
            found = _place_memory(lives, memory, spaces[memory], share)
            if isinstance(found, _Full):
                alone = len(programs) == 1 and semaphore is not None and share
                if not alone or not shorten(programs[0], lives[programs[0]], found.alloc, found.size, semaphore or 0):
                    raise found.error
                break
            for program, addresses in found.items():
                placed[program] |= addresses
        else:
            return {
                program: {alloc.sym_name.data: at for alloc, at in addresses.items()}
                for program, addresses in placed.items()
            }


@dataclass(frozen=True)
class _Full:
    """A buffer that found no room in a memory of ``size`` bytes."""

    alloc: AllocOp
    size: int
    error: DoesNotFitError


def _place_memory(
    lives: Mapping[ProgramOp, Liveness], memory: str, space: MemorySpace, share: bool
) -> dict[ProgramOp, dict[AllocOp, int]] | _Full:
    """Addresses in one memory, or what does not fit.

    First fit in each of ``ORDERS``; where a buffer does not fit, it goes to the front and all are placed again, some
    times.  Gives the first attempt's failure if none fits.
    """
    first: _Full | None = None
    for order in ORDERS:
        areas = {program: _Area(live, memory, space, share) for program, live in lives.items()}
        groups: dict[object, list[tuple[_Area, AllocOp]]] = {}
        for area in areas.values():
            for alloc in area.allocs:
                groups.setdefault(alloc.sym_name.data if alloc.remote is not None else alloc, []).append((area, alloc))
        queue = sorted(groups.values(), key=lambda found: order(*found[0]))
        for _ in range(ATTEMPTS):
            for area in areas.values():
                area.placed.clear()
            failed = _first_that_fails(queue)
            if failed is None:
                return {program: area.placed for program, area in areas.items()}
            first = first or _Full(failed[0][0][1], space.size, failed[1])
            queue.remove(failed[0])
            queue.insert(0, failed[0])
    assert first is not None  # there is an order
    return first


def _first_that_fails(
    queue: Sequence[list[tuple[_Area, AllocOp]]],
) -> tuple[list[tuple[_Area, AllocOp]], DoesNotFitError] | None:
    """Place buffers in turn; the one that does not fit, and the error."""
    for same in queue:
        try:
            _place_everywhere(same)
        except DoesNotFitError as error:
            return same, error
    return None


@dataclass
class _Area:
    """One memory of the cores of one program, and the buffers placed in it so far."""

    live: Liveness
    memory: str
    space: MemorySpace
    share: bool
    placed: dict[AllocOp, int] = field(default_factory=dict)

    @cached_property
    def allocs(self) -> list[AllocOp]:
        """The buffers of this memory, in program order."""
        return [op for op in self.live.order.operations if isinstance(op, AllocOp) and op.memory.data == self.memory]

    def taken(self, alloc: AllocOp) -> list[tuple[int, int]]:
        """[start, end) of the placed buffers that conflict with ``alloc``."""
        return [
            (address, address + _size(other))
            for other, address in self.placed.items()
            if not self.share or self.live.conflict(alloc, other)
        ]

    def first_fit(self, alloc: AllocOp, taken: Iterable[tuple[int, int]]) -> int | None:
        """The lowest aligned address with room between the ``taken`` spans; None if there is none."""
        align = alloc.align.value.data
        address = -(-self.space.base // align) * align
        for start, end in sorted(taken):
            if address + _size(alloc) <= start:
                break
            address = max(address, -(-end // align) * align)
        return address if address + _size(alloc) <= self.space.base + self.space.size else None

    def place(self, alloc: AllocOp, address: int | None) -> None:
        """Put ``alloc`` at an address; None: raise the error that it does not fit."""
        if address is None:
            raise self._full(alloc)
        self.placed[alloc] = address

    def _full(self, alloc: AllocOp) -> DoesNotFitError:
        rivals = [
            other for other in self.allocs if other is alloc or not self.share or self.live.conflict(alloc, other)
        ]
        rivals.sort(key=_by_size)
        listed = ", ".join(f"{a.sym_name.data} ({_size(a)} bytes)" for a in rivals[:_NAMED])
        more = f" and {len(rivals) - _NAMED} smaller ones" if len(rivals) > _NAMED else ""
        total = sum(_size(a) for a in rivals)
        name, size = alloc.sym_name.data, self.space.size
        if total > size:
            reason = f"it and the buffers in use with it take {total} bytes"
        else:
            gap = self._largest_gap(alloc)
            reason = (
                f"it takes {_size(alloc)} bytes; the buffers in use with it leave {size - total + _size(alloc)}, but"
                f" the longest run of them is {gap}"
            )
        return DoesNotFitError(
            f"buffer {name!r} does not fit the {self.memory} memory of {size} bytes: {reason}: {listed}{more}",
            hint=_hint(alloc),
            where=where(alloc),
        )

    def _largest_gap(self, alloc: AllocOp) -> int:
        """Bytes of the longest run that no buffer in use with ``alloc`` takes."""
        end, longest = self.space.base, 0
        for start, stop in sorted(self.taken(alloc)):
            longest, end = max(longest, start - end), max(end, stop)
        return max(longest, self.space.base + self.space.size - end)


def _hint(alloc: AllocOp) -> str:
    """What makes a program smaller: language models have their own options."""
    program: Operation | None = alloc
    while program is not None and not isinstance(program, ProgramOp):
        program = program.parent_op()
    entry = program.entry.data if isinstance(program, ProgramOp) else ""
    if entry in LANGUAGE_ENTRIES:
        return "a shorter max_seq, a smaller prefill_chunk, or a target with more local memory"
    return "smaller inputs (fewer tokens, a smaller batch or image), or a target with more local memory"


def _place_everywhere(same: Sequence[tuple[_Area, AllocOp]]) -> None:
    """One address for a buffer: for a remote one in all programs of the entry, for others in their own."""
    area, first = same[0]
    for _, other in same[1:]:
        if (other.bytes, other.align, other.memory) != (first.bytes, first.align, first.memory):
            raise InputError(
                f"remote buffer {first.sym_name.data!r} has different sizes or memories in two programs",
                where=where(other),
            )
    taken = [span for place, alloc in same for span in place.taken(alloc)]
    address = area.first_fit(first, taken)
    for place, alloc in same:
        place.place(alloc, address)


def _remote_first(area: _Area, alloc: AllocOp) -> tuple[object, ...]:
    return alloc.remote is None, *_by_size(alloc)


def _largest_first(area: _Area, alloc: AllocOp) -> tuple[object, ...]:
    return -_size(alloc), alloc.remote is None, alloc.sym_name.data


def _earliest_first(area: _Area, alloc: AllocOp) -> tuple[object, ...]:
    return min((start for start, _ in area.live.spans.get(alloc, ())), default=0), *_by_size(alloc)


def _longest_first(area: _Area, alloc: AllocOp) -> tuple[object, ...]:
    spans = area.live.spans.get(alloc, ())
    length = max((end for _, end in spans), default=0) - min((start for start, _ in spans), default=0)
    return -length * _size(alloc), *_by_size(alloc)


def _longest_lived_first(area: _Area, alloc: AllocOp) -> tuple[object, ...]:
    return -max((end - start for start, end in area.live.spans.get(alloc, ())), default=0), *_by_size(alloc)


#: Orders in which buffers are placed: each only where those before it do not fit.
ORDERS: Sequence[Callable[[_Area, AllocOp], tuple[object, ...]]] = (
    _remote_first,
    _largest_first,
    _earliest_first,
    _longest_first,
    _longest_lived_first,
)


def _size(alloc: AllocOp) -> int:
    return alloc.bytes.value.data


def _by_size(alloc: AllocOp) -> tuple[int, str]:
    """Sorting key: the largest first, then by name."""
    return -_size(alloc), alloc.sym_name.data


def _liveness(programs: Sequence[ProgramOp], streams: list[hbm.ProgramOp]) -> dict[ProgramOp, Liveness]:
    parts: list[Messages] = []
    for program in programs:
        order = ProgramOrder.of(program.body.block)
        parts.append(Messages.of(program, order, AddressFlow.analyse(order)))
    senders = joined(parts)
    return {program: analyse(program, stream_windows(program, streams), senders) for program in programs}
