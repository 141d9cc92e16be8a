"""Signals between a core and its controllers: semaphores and registers, each with the sender's vector clock."""

from __future__ import annotations

from pimc.runtime_sim.engine.checks import agent_place, copy_clock, epoch_of, fail_race, join, tick
from pimc.runtime_sim.engine.errors import (
    PLACE_REGISTER,
    RESOURCES,
    SEMAPHORE_OVERFLOW,
    SIGNALS_IN_FLIGHT,
    STREAM_CORE,
    STREAM_PCH,
    fail,
)
from pimc.runtime_sim.engine.heap import push
from pimc.runtime_sim.engine.jit import jit
from pimc.runtime_sim.engine.records import SEMAPHORES, SIGNALS
from pimc.runtime_sim.engine.state import (
    AGENT_MASK,
    CLOCK_SHIFT,
    EVENT_CORE,
    EVENT_PCH,
    EVENT_SIGNAL,
    RUNNING,
    SIGNAL_REGISTER,
    SIGNAL_TO_CORE,
    WAIT_SEMAPHORE,
    Record,
    clock_place,
    core_of,
    pch_of,
    signal_of,
    view_i32,
    view_i64,
)

#: A count above this is an overflow.
SEMAPHORE_LIMIT = 65535


@jit
def send(m: Record, kind: int, where: int, index: int, value: int, agent: int, pc: int, time: int) -> None:
    """Put a signal on its way; it arrives at ``time``.  The sender's clock ticks."""
    if m.signals_free == 0:
        fail(m, RESOURCES, STREAM_PCH if agent >= m.first_pch else STREAM_CORE, agent, pc, SIGNALS_IN_FLIGHT, SIGNALS)
        return
    m.signals_free -= 1
    slot = view_i64(m.signal_list_at, SIGNALS)[m.signals_free]
    s = signal_of(m, slot)
    s.kind, s.where, s.index, s.value, s.agent, s.pc = kind, where, index, value, agent, pc
    if m.checks:
        mine = view_i32(agent_place(m, agent), m.agents)
        copy_clock(view_i32(clock_place(m.signal_clock_at, m, slot), m.agents), mine)
        tick(m, mine, agent, agent, pc)
    push(m, time, EVENT_SIGNAL, slot)


@jit
def wake_core(m: Record, c: int, state: int) -> None:
    """Let a core look again if it waits in ``state``."""
    core = core_of(m, c)
    if core.state == state and not core.scheduled:
        core.state = RUNNING
        core.scheduled = 1
        push(m, m.time, EVENT_CORE, c)


@jit
def wake_pch(m: Record, p: int) -> None:
    """Let a controller look again."""
    h = pch_of(m, p)
    if not h.scheduled:
        h.scheduled = 1
        push(m, max(m.time, h.now), EVENT_PCH, p)


@jit
def raise_core(m: Record, c: int, sem: int, clock_at: int) -> None:
    """Add 1 to a semaphore of a core, with the sender's clock (its address)."""
    core = core_of(m, c)
    core.sem[sem] += 1
    if core.sem[sem] > SEMAPHORE_LIMIT:
        fail(m, SEMAPHORE_OVERFLOW, STREAM_CORE, c, core.pc, sem, 0)
    if m.checks:
        join(
            view_i32(clock_place(m.core_sem_clock_at, m, c * SEMAPHORES + sem), m.agents),
            view_i32(clock_at, m.agents),
        )
    if core.state == WAIT_SEMAPHORE and core.waiting == sem and core.sem[sem] >= core.needed:
        wake_core(m, c, WAIT_SEMAPHORE)


@jit
def raise_pch(m: Record, p: int, sem: int, clock_at: int) -> None:
    """Add 1 to a semaphore of a controller, with the sender's clock (its address)."""
    h = pch_of(m, p)
    h.sem[sem] += 1
    if h.sem[sem] > SEMAPHORE_LIMIT:
        fail(m, SEMAPHORE_OVERFLOW, STREAM_PCH, m.first_pch + p, h.pc, sem, 0)
    if m.checks:
        join(
            view_i32(clock_place(m.pch_sem_clock_at, m, p * SEMAPHORES + sem), m.agents),
            view_i32(clock_at, m.agents),
        )
    if h.state == WAIT_SEMAPHORE and h.waiting == sem and h.sem[sem] >= h.needed:
        h.state = RUNNING
        wake_pch(m, p)


@jit
def _set_register(m: Record, p: int, s: Record, clock_at: int) -> None:
    """A core sets a register of a controller: the controller's last read must have happened before."""
    h = pch_of(m, p)
    if m.checks:
        clock = view_i32(clock_at, m.agents)
        x = h.reg_read[s.index]
        if x != 0 and x >> CLOCK_SHIFT > clock[x & AGENT_MASK]:
            fail_race(m, s.agent, s.pc, x, PLACE_REGISTER, s.index)
        h.reg_write[s.index] = epoch_of(s.agent, clock[s.agent], s.pc)
    h.regs[s.index] = s.value


@jit
def deliver(m: Record, slot: int) -> None:
    """A signal arrives."""
    s = signal_of(m, slot)
    clock = clock_place(m.signal_clock_at, m, slot)
    if s.kind == SIGNAL_TO_CORE:
        raise_core(m, s.where, s.index, clock)
    else:
        for q in range(m.per_tile):
            p = s.where * m.per_tile + q
            if s.kind == SIGNAL_REGISTER:
                _set_register(m, p, s, clock)
            else:
                raise_pch(m, p, s.index, clock)
    view_i64(m.signal_list_at, SIGNALS)[m.signals_free] = slot
    m.signals_free += 1
