"""A pseudo-channel controller: one step of its stream, its transfers and its refreshes."""

from __future__ import annotations

from pimc.runtime_sim import dram
from pimc.runtime_sim.engine._dispatch import run_command
from pimc.runtime_sim.engine.errors import PC_RANGE, STREAM_PCH, fail
from pimc.runtime_sim.engine.heap import next_time, push
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.memory_port import start
from pimc.runtime_sim.engine.records import CODE_STRIDE, EFFORT_LIMIT, WINDOW
from pimc.runtime_sim.engine.state import EVENT_PCH, RUNNING, Record, pch_of, view_i64
from pimc.runtime_sim.engine.transfers import serve

#: Classes of commands: nothing to run; no interaction with others; interaction; the command also needs the banks.
IDLE, ALONE, SHARED, BANKS = range(4)
_STEPS = 4096
#: Refreshes of one step: a long wait may owe many.
_REFRESHES = 64


@jit
def _next_class(m: Record, p: int, h: Record) -> int:
    """Class of the stream's next command, skipping those masked off."""
    while True:
        if h.state != RUNNING:
            return IDLE
        if h.pc >= h.length:
            fail(m, PC_RANGE, STREAM_PCH, m.first_pch + p, h.pc, h.length, 0)
            return IDLE
        at = m.pch_code_at + (h.code + h.pc) * CODE_STRIDE * 8
        code = view_i64(at, 2)
        kind = view_i64(m.command_class_at, code[0] + 1)[code[0]]
        if kind & 4 and not code[1] >> (p % m.per_tile) & 1:
            h.pc += 1
            continue
        return kind & 3


@jit
def _refresh(m: Record, p: int, h: Record, now: int) -> None:
    """Refresh as often as has become due, in portions; all banks are closed."""
    for _ in range(_REFRESHES):
        if h.next_refresh > now or m.error:
            return
        start(m, p, h, dram.REF, 0, 0, 0, h.next_refresh)
        h.next_refresh += m.refresh_fs


@inline
def _must_yield(m: Record, now: int) -> bool:
    """Whether another event comes before ``now``; if not, the global time moves on to it."""
    if now > m.time:
        if next_time(m) <= now:
            return True
        m.time = now
    return False


@jit
def step(m: Record, p: int) -> None:
    """Run controller ``p`` from the present until it waits or another event comes first."""
    h = pch_of(m, p)
    h.scheduled = 0
    now = max(m.time, h.now)
    for _ in range(_STEPS):
        if m.error:
            return
        if m.effort > EFFORT_LIMIT:
            break
        if h.open_row < 0 and h.window == 0 and m.refresh_fs > 0 and now >= h.next_refresh:
            _refresh(m, p, h, now)
            if now >= h.next_refresh:
                continue
        before = h.pc
        kind = _next_class(m, p, h)
        waiting = h.window > 0 or h.queue_size > 0
        if h.quota >= WINDOW and kind == BANKS:
            h.turn, h.quota = 0, 0
        mine = kind == BANKS and h.turn == 0
        if h.open_row < 0 and waiting and (kind == IDLE or (kind == BANKS and (h.window > 0 or not mine))):
            if _must_yield(m, now):
                break
            due = m.refresh_fs > 0 and now >= h.next_refresh
            now = serve(m, p, h, now, not mine and not due)
            continue
        if kind == IDLE:
            h.now = now
            return
        if kind != ALONE and _must_yield(m, now):
            break
        at = m.pch_code_at + (h.code + h.pc) * CODE_STRIDE * 8
        h.pc += 1
        h.executed += 1
        now = run_command(m, p, h, at + 8, view_i64(at, 1)[0], now)
        m.effort += abs(h.pc - before)  # commands skipped: masked off, or of a loop that does not run
    h.now = now
    h.scheduled = 1
    push(m, now, EVENT_PCH, p)
