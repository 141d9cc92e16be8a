"""From a controller to its DRAM: each command at the first time that the timing core (dram.py) allows.

The banks of linear addresses are spread over bank groups here (neighbours are in different groups), so that a long
transfer alternates between groups; commands on all banks do not care.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim import dram
from pimc.runtime_sim.engine.errors import PROTOCOL, STREAM_PCH, fail
from pimc.runtime_sim.engine.intrinsics import make_view
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.state import Record, trace_of, view_i64

_view2 = make_view(np.int64, 2)


@inline
def physical_bank(m: Record, bank: int) -> int:
    """The DRAM's number of a bank: consecutive banks are in different bank groups."""
    return (bank % m.dram_groups) * m.dram_group_banks + bank // m.dram_groups


@jit
def earliest(m: Record, p: int, command: int, bank: int, now: int) -> int:
    """First start of a command from ``now`` on."""
    tables = view_i64(m.dram_tables_at, m.dram_table_words)
    state = _view2(m.dram_state_at + 8 * p * m.dram_state_words, (1, m.dram_state_words))  # pch p alone
    return dram.earliest(tables, state, 0, command, bank, now)


@jit
def start(m: Record, p: int, h: Record, command: int, bank: int, row: int, column: int, now: int) -> int:
    """Issue a command at its first legal time from ``now`` on, and return that time."""
    m.effort += 64
    tables = view_i64(m.dram_tables_at, m.dram_table_words)
    state = _view2(m.dram_state_at + 8 * p * m.dram_state_words, (1, m.dram_state_words))
    time = dram.issue_asap(tables, state, 0, command, bank, row, now)
    if time < 0:
        if m.error == 0:
            m.error_address = (bank << 32) | row
        fail(m, PROTOCOL, STREAM_PCH, m.first_pch + p, h.pc - 1, -time, command)
        return now
    h.commands[command] += 1
    h.done = max(h.done, time + dram.done_time(tables, command))
    if m.tracing:
        if m.trace_size < m.trace_capacity:
            t = trace_of(m, m.trace_size)
            t.time, t.pch, t.command, t.bank, t.row, t.column = time, p, command, bank, row, column
        m.trace_size += 1
    return time


@jit
def start_run(
    m: Record, p: int, h: Record, command: int, bank: int, row: int, column: int, count: int, now: int
) -> int:
    """Issue ``count`` equal column commands on columns from ``column`` on, each at its first legal time, and return the
    time of the last; the row stays open.
    """
    if m.tracing or count < 2:
        for i in range(count):
            now = start(m, p, h, command, bank, row, column + i, now)
        return now
    m.effort += 64
    tables = view_i64(m.dram_tables_at, m.dram_table_words)
    state = _view2(m.dram_state_at + 8 * p * m.dram_state_words, (1, m.dram_state_words))
    time = dram.issue_run(tables, state, 0, command, bank, count, now)
    if time < 0:
        return start(m, p, h, command, bank, row, column, now)  # which says what is wrong
    h.commands[command] += count
    h.done = max(h.done, time + dram.done_time(tables, command))
    return time


@jit
def last_of_run(m: Record, p: int, h: Record, command: int, bank: int, count: int, time: int) -> None:
    """Record ``count`` column commands of which the last is known to start at ``time``; the row stays open."""
    m.effort += 64
    tables = view_i64(m.dram_tables_at, m.dram_table_words)
    state = _view2(m.dram_state_at + 8 * p * m.dram_state_words, (1, m.dram_state_words))
    dram.record(tables, state, 0, command, bank, time)
    h.commands[command] += count
    h.done = max(h.done, time + dram.done_time(tables, command))


@inline
def cadence(m: Record, command: int) -> int:
    """From a column command to the same one in the same bank, where nothing else binds."""
    return dram.cadence(view_i64(m.dram_tables_at, m.dram_table_words), command)


@inline
def done_after(m: Record, command: int) -> int:
    """From a command's start to its data or effect."""
    return dram.done_time(view_i64(m.dram_tables_at, m.dram_table_words), command)
