"""Instructions in flight of a core, and what a new one must wait for.

A range is ``rows`` runs of ``size`` bytes, ``stride`` bytes apart, in a memory space; overlap is decided exactly.
"""

from __future__ import annotations

from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.records import FLIGHTS, MAX_OPERANDS
from pimc.runtime_sim.engine.state import ACCUMULATE, PENDING, READ, Record, flight_of


@inline
def _run_meets(low: int, high: int, start: int, size: int, stride: int, rows: int) -> bool:
    """Whether [low, high) meets one of the rows of a strided range (stride > 0)."""
    row = max(0, (low - start - size) // stride + 1)
    return row < rows and start + row * stride < high


@jit
def overlap(a: Record, i: int, b: Record, j: int) -> bool:
    """Whether range ``i`` of ``a`` and range ``j`` of ``b`` (same space) share a byte."""
    a_low, b_low = a.low[i], b.low[j]
    a_high = a_low + (a.rows[i] - 1) * a.stride[i] + a.size[i]
    b_high = b_low + (b.rows[j] - 1) * b.stride[j] + b.size[j]
    if a_high <= b_low or b_high <= a_low:
        return False
    if a.rows[i] <= b.rows[j]:
        few, k, many, n = a, i, b, j
    else:
        few, k, many, n = b, j, a, i
    if many.rows[n] == 1 or many.stride[n] <= 0:
        return True
    for row in range(few.rows[k]):
        low = few.low[k] + row * few.stride[k]
        if _run_meets(low, low + few.size[k], many.low[n], many.size[n], many.stride[n], many.rows[n]):
            return True
    return False


@jit
def conflict(new: Record, old: Record) -> bool:
    """Whether two instructions must not be in flight together (RAW, WAR or WAW)."""
    for i in range(new.ranges):
        for j in range(old.ranges):
            if new.space[i] != old.space[j]:
                continue
            if new.mode[i] == old.mode[j] and new.mode[i] in (READ, ACCUMULATE):
                continue
            if overlap(new, i, old, j):
                return True
    return False


@jit
def hazard(m: Record, c: int, new: Record, now: int) -> int:
    """When ``new`` may be dispatched as far as instructions in flight go: ``now``, a later time to look again, or
    PENDING (a transfer must complete first).  Retires what has finished."""
    until = now
    free = 0
    first_end = PENDING
    rows = 0
    for i in range(new.ranges):
        rows += new.rows[i]
    for slot in range(FLIGHTS):
        old = flight_of(m, c, slot)
        if old.active and old.finish <= now:
            old.active = 0
        if not old.active:
            free += 1
            continue
        first_end = min(first_end, old.finish)
        if old.finish > until:
            m.effort += rows
            if conflict(new, old):
                until = old.finish
    if free == 0 and until == now:
        return first_end
    return until


@jit
def all_finished(m: Record, c: int, now: int, transfers: bool) -> int:
    """Time at which everything in flight has finished (without HBM transfers unless ``transfers``)."""
    until = now
    for slot in range(FLIGHTS):
        old = flight_of(m, c, slot)
        if old.active and (old.finish < PENDING or transfers):
            until = max(until, old.finish)
    return until


@jit
def enter(m: Record, c: int, new: Record) -> int:
    """Put an instruction in flight; returns its slot (``hazard`` has made sure that one is free)."""
    slot = 0
    while flight_of(m, c, slot).active:
        slot += 1
    old = flight_of(m, c, slot)
    old.active = 1
    old.unit, old.finish, old.pc, old.op = new.unit, new.finish, new.pc, new.op
    old.ranges, old.work, old.pending, old.order = new.ranges, new.work, new.pending, new.order
    for i in range(new.ranges):
        old.space[i], old.mode[i], old.low[i] = new.space[i], new.mode[i], new.low[i]
        old.size[i], old.stride[i], old.rows[i] = new.size[i], new.stride[i], new.rows[i]
    for i in range(MAX_OPERANDS):
        old.value[i] = new.value[i]
    return slot
