"""Cores that repeat themselves for ever.

A core's control depends on its pc, registers and configuration alone, and only ``lw`` brings something
from outside into them.  So a core that comes back to the same of these without a ``lw`` in between repeats the
same instructions for ever, whatever others do: it will never halt.  With a ``lw`` in between it does so if nobody can
change what it reads: nothing has happened meanwhile but register instructions and ``lw``, and every event that is left
belongs to a core of which the same is known.

States are compared after every ``TURNS`` taken branches (an endless stream takes endlessly many) with one that is kept
and renewed after 1, 2, 4, 8 ... comparisons (Brent), so that a repetition of any length is found.
"""

from __future__ import annotations

from pimc.runtime_sim.engine.errors import LIVELOCK, STREAM_CORE, fail
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.records import CONFIGS, REGISTERS
from pimc.runtime_sim.engine.state import EVENT_CORE, Record, core_of, view_i64

#: Taken branches between two looks, less 1 (a power of two less 1).
TURNS = 1023


@jit
def _repeats(core: Record) -> bool:
    """Whether the control state is the one that was kept."""
    if core.seen_pc != core.pc:
        return False
    for i in range(REGISTERS):
        if core.seen_regs[i] != core.regs[i]:
            return False
    for i in range(CONFIGS):  # noqa: SIM110  # compiled: no generators
        if core.seen_cfg[i] != core.cfg[i]:
            return False
    return True


@jit
def _keep(m: Record, core: Record) -> None:
    """Keep the present state to compare with."""
    core.seen_pc, core.seen_loads, core.seen_progress = core.pc, core.loads, m.progress
    for i in range(REGISTERS):
        core.seen_regs[i] = core.regs[i]
    for i in range(CONFIGS):
        core.seen_cfg[i] = core.cfg[i]
    core.looks = 0
    core.patience = max(1, 2 * core.patience)


@jit
def _only_idle_cores(m: Record) -> bool:
    """Whether every event that is left belongs to a core that repeats itself, too, with nothing in between."""
    heap = view_i64(m.heap_at, 3 * m.heap_capacity)
    for i in range(m.heap_size):
        if heap[3 * i + 1] & 255 != EVENT_CORE or core_of(m, heap[3 * i + 2]).idle_since != m.progress:
            return False
    return True


@jit
def _look(m: Record, c: int, core: Record, pc: int) -> None:
    """Compare, and note an error if the core can do nothing else for ever."""
    if core.patience > 0 and _repeats(core):
        if core.loads == core.seen_loads:
            fail(m, LIVELOCK, STREAM_CORE, c, pc, 0, 0)
            return
        if core.seen_progress == m.progress:
            core.idle_since = m.progress
            if _only_idle_cores(m):
                fail(m, LIVELOCK, STREAM_CORE, c, pc, 1, 0)
                return
    core.looks += 1
    if core.looks >= core.patience:
        _keep(m, core)


@inline
def turned(m: Record, c: int, core: Record, pc: int) -> None:
    """Count a taken branch, the one at ``pc``."""
    core.turns += 1
    if core.turns & TURNS == 0:
        _look(m, c, core, pc)
