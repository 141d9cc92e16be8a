"""Live intervals of the scalar values of a program, and registers for them by linear scan.

Places are doubled: an operation at place p reads at 2p and writes at 2p + 1, so a result may take the register of
an operand that is read for the last time.  Constants have no interval: ``constants`` gives them the registers that
are left.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field

from xdsl.ir import Operation, SSAValue

from pimc.backends.order import ProgramOrder, enclosing_loops, is_inside
from pimc.diagnostics import DoesNotFitError
from pimc.ir.locations import where
from pimc.ir.sram_control import ForOp, YieldOp
from pimc.ir.sram_structure import BufferType, ConstOp


@dataclass
class Interval:
    """The places from the first write to the last read of values that share a register."""

    values: list[SSAValue]
    start: int
    end: int
    register: int = 0


def _start(interval: Interval) -> int:
    return interval.start


@dataclass
class RegisterMap:
    """Registers of all scalar values that are not constants, and when each register is taken."""

    order: ProgramOrder
    registers: dict[SSAValue, int] = field(default_factory=dict)
    taken: dict[int, list[Interval]] = field(default_factory=dict)
    pressure: list[int] = field(default_factory=list)

    def free_at(self, register: int, place: int) -> bool:
        """Whether no value is in ``register`` at a (doubled) place."""
        return self.free_through(register, place, place)

    def free_through(self, register: int, start: int, end: int) -> bool:
        """Whether no value is in ``register`` at any (doubled) place from ``start`` to ``end``."""
        taken = self.taken.get(register, [])
        before = bisect_right(taken, end, key=_start)  # intervals of a register are apart and in order
        return before == 0 or taken[before - 1].end < start

    def next_taken(self, register: int, place: int) -> int:
        """The next (doubled) place at which a value enters ``register``."""
        taken = self.taken.get(register, [])
        following = bisect_right(taken, place, key=_start)
        return taken[following].start if following < len(taken) else 2 * self.order.length + 2

    def most_taken(self, start: int, end: int) -> int:
        """The most registers taken at one (doubled) place from ``start`` to ``end``."""
        return max(self.pressure[start : end + 1], default=0)


def _owner(value: SSAValue) -> Operation | None:
    """The operation that writes a value: of a loop's argument the loop."""
    owner = value.owner
    return owner if isinstance(owner, Operation) else owner.parent_op()


def _last_read(order: ProgramOrder, value: SSAValue) -> int:
    """The last (doubled) place that reads ``value``, throughout loops that it comes from outside of."""
    owner = value.owner
    block = owner.parent if isinstance(owner, Operation) else owner
    last = -1
    for use in value.uses:
        op = use.operation
        place = 2 * order.start[op]
        loop = op.parent_op() if isinstance(op, YieldOp) else op
        if isinstance(loop, ForOp) and (loop is not op or use.index == 1):
            place = 2 * order.end[loop]  # what is yielded, and the upper bound, are read at the end of the body
        for around in enclosing_loops(op):
            if is_inside(around, block):
                place = max(place, 2 * order.end[around])
        last = max(last, place)
    return last


def intervals_of(order: ProgramOrder) -> list[Interval]:
    """An interval for every scalar that is not a constant; carried values of a loop share theirs with its
    results.
    """
    found: list[Interval] = []
    for op in order.operations:
        if isinstance(op, ConstOp | YieldOp):
            continue
        write, end = 2 * order.start[op] + 1, 2 * order.end[op] + 1
        if isinstance(op, ForOp):
            found.append(Interval([op.counter], write, end))
            for inner, final in zip(op.carried, op.finals, strict=True):
                last = max(end, _last_read(order, final))
                found.append(Interval([inner, final], write, last))
            continue
        for result in op.results:
            if not isinstance(result.type, BufferType):
                last = max(write, _last_read(order, result))
                found.append(Interval([result], write, last))
    return found


def crowded(order: ProgramOrder, available: Iterable[int], reserve: int) -> list[Interval]:
    """The intervals that are live where they first take more registers than there are; none if they fit."""
    limit = len(list(available)) - reserve
    active: list[Interval] = []
    for interval in sorted(intervals_of(order), key=lambda i: (i.start, i.end)):
        active = [i for i in active if i.end >= interval.start]
        active.append(interval)
        if len(active) > limit:
            return active
    return []


def assign(order: ProgramOrder, available: Iterable[int], reserve: int) -> RegisterMap:
    """Registers by linear scan, the lowest free one first.

    ``reserve`` registers must stay free at every place (for constants).  Raises :class:`InputError` where
    values take more.
    """
    registers = sorted(available)
    limit = len(registers) - reserve
    result = RegisterMap(order, pressure=[0] * (2 * order.length + 2))
    free = list(registers)
    active: list[Interval] = []
    for interval in sorted(intervals_of(order), key=lambda i: (i.start, i.end)):
        for done in [i for i in active if i.end < interval.start]:
            active.remove(done)
            free.append(done.register)
        if len(active) >= limit:
            raise _too_many(order, interval, limit)
        free.sort()
        interval.register = free.pop(0)
        active.append(interval)
        result.taken.setdefault(interval.register, []).append(interval)
        for value in interval.values:
            result.registers[value] = interval.register
        for place in range(interval.start, interval.end + 1):
            result.pressure[place] += 1
    return result


def _too_many(order: ProgramOrder, interval: Interval, limit: int) -> DoesNotFitError:
    op = _owner(interval.values[0])
    return DoesNotFitError(
        f"more than {limit} scalar values are live at once",
        hint="compute addresses nearer to their use, or keep values in local memory (sw, lw)",
        where=where(op) if op is not None else f"place {interval.start // 2} of {order.length}",
    )
