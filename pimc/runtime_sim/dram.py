"""DRAM timing core: when may a command issue, and what does it do to its pseudo-channel (table driven, numba).

Everything comes from the target: :func:`build_tables` turns its command and constraint rows into arrays; nothing
about a DRAM standard is written here.  All times are int64 femtoseconds.  The state of all pseudo-channels lives
in one set of arrays, indexed by ``pch``; every function below may be called from numba code::

    tables = build_tables(target.hbm)
    state = new_state(target.hbm)                          # all pseudo-channels idle, all banks closed
    t = earliest(tables, state, pch, ACT, bank, now)       # least legal start >= now
    status = issue(tables, state, pch, ACT, bank, row, t)  # OK, or the rule that forbids it (nothing changed)
    there = t + tables.done[ACT]                           # data or effect of a command that started at t

Command numbers are the constants below (``DRAM_COMMANDS`` of the target).  ``bank`` is 0 .. banks - 1 (bank group
= bank // banks_per_group); a GACT acts on the whole bank group of ``bank``, a command of the pseudo-channel (PREA,
REF, MAC, WRGB, RDRES) ignores ``bank``; ``row`` matters to ACT and GACT only.  ``earliest`` knows timing alone, not
whether banks are open; ``check`` knows banks alone; ``issue`` refuses what either forbids; ``status_text`` words a
refusal.  ``open_row`` and ``all_closed`` tell which banks are open.

How it works ("push"): issuing a command raises ``ready[node, next]``, the first start of every command that a
constraint makes follow it, at the node (pseudo-channel, bank group or bank) where the two meet.  As a constraint
holds between commands' bus ends, the table has latency + own bus time - follower's bus time.  A row is stored at the
widest of its level and the two commands' scopes, so that a look-up reads at most three nodes.  Windows (tFAW) keep
the last activations' ends in a ring; a ganged activation enters once a bank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pimc.targets import DRAM_COMMANDS, DramSpec

I64 = NDArray[np.int64]

ACT, GACT, PRE, PREA, RD, WR, RDA, WRA, REF, MAC, WRGB, RDRES = range(len(DRAM_COMMANDS))

OK, BANK_OPEN, BANK_CLOSED, NOT_IDLE, NO_BANK, NO_ROW, NO_COMMAND, TOO_EARLY, OFF_GRID = range(9)
_STATUS = (
    "legal",
    "activates a bank that is open",
    "needs an open row in a bank that is closed",
    "needs all banks closed",
    "names a bank that does not exist",
    "names a row that does not exist",
    "is not a command of this target",
    "comes before a timing constraint or the command bus allows it",
    "does not start on its clock grid",
)

NEVER = -(1 << 60)
_LEVEL = {"pseudo_channel": 0, "bank_group": 1, "bank": 2}
_EFFECT = {"none": 0, "open": 1, "close": 2, "column": 3, "column_close": 4, "refresh": 5}
_NONE, _OPEN, _CLOSE, _COLUMN, _COLUMN_CLOSE, _REFRESH = range(6)


class DramTables(NamedTuple):
    """Constant tables of a DRAM (C commands, E constraint entries, W windows); times in femtoseconds."""

    banks: int
    banks_per_group: int
    bank_groups: int
    rows: int
    scope: I64  #: [C] 0 pseudo-channel, 1 bank group, 2 bank; -1 no such command
    effect: I64  #: [C]
    bus: I64  #: [C] command bus
    bus_time: I64  #: [C] time on the bus
    grid: I64  #: [C] starts are multiples of this
    done: I64  #: [C] from start to data or effect
    entry_start: I64  #: [3, C + 1] constraint entries of (level, command)
    entry_next: I64  #: [E] following command
    entry_latency: I64  #: [E] least distance of starts
    window_size: I64  #: [W]
    window_count: I64  #: [W, C] activations a command enters, 0 if it is none of the window's
    window_latency: I64  #: [W, C] from an activation's bus end to the command's start
    refresh_interval: int  #: tREFI, 0 without one
    clock: int


class DramState(NamedTuple):
    """State of P pseudo-channels (N nodes: pseudo-channel, its bank groups, its banks)."""

    ready: I64  #: [P, N, C] first start
    bus_free: I64  #: [P, buses]
    ring: I64  #: [P, W, S] bus ends of the last activations
    ring_position: I64  #: [P, W] where the next goes
    open_row: I64  #: [P, banks], -1 closed


def build_tables(spec: DramSpec) -> DramTables:
    """Tables of ``spec`` for the functions of this module."""
    count = len(DRAM_COMMANDS)
    scope = np.full(count, -1, np.int64)
    effect, bus, bus_time, done = (np.zeros(count, np.int64) for _ in range(4))
    grid = np.full(count, spec.tick_fs, np.int64)
    for command in spec.commands:
        index = DRAM_COMMANDS.index(command.name)
        scope[index], effect[index] = _LEVEL[command.scope], _EFFECT[command.effect]
        bus[index], bus_time[index] = spec.buses.index(command.bus), command.ticks * spec.tick_fs
        grid[index], done[index] = command.grid * spec.tick_fs, spec.fs(command.done)
    start, following, latency = _entries(spec, scope, bus_time)
    windows = [row for row in spec.constraints if row.window]
    window_count = np.zeros((len(windows), count), np.int64)
    window_latency = np.zeros((len(windows), count), np.int64)
    for number, row in enumerate(windows):
        for name in row.following:
            index = DRAM_COMMANDS.index(name)
            window_count[number, index] = spec.banks_of(spec.command(name).scope)
            window_latency[number, index] = spec.fs(row.latency) - bus_time[index]
    return DramTables(
        spec.banks,
        spec.banks_per_group,
        spec.bank_groups,
        spec.rows,
        scope,
        effect,
        bus,
        bus_time,
        grid,
        done,
        start,
        following,
        latency,
        np.array([row.window for row in windows], np.int64),
        window_count,
        window_latency,
        spec.fs("nREFI") if "nREFI" in spec.timing else 0,
        spec.clock_fs,
    )


def _entries(spec: DramSpec, scope: I64, bus_time: I64) -> tuple[I64, I64, I64]:
    """Constraint rows without a window as entries sorted by level and preceding command."""
    count = len(DRAM_COMMANDS)
    merged: dict[tuple[int, int, int], int] = {}
    for row in spec.constraints:
        if row.window:
            continue
        for before in map(DRAM_COMMANDS.index, row.preceding):
            for after in map(DRAM_COMMANDS.index, row.following):
                level = min(_LEVEL[row.level], int(scope[before]), int(scope[after]))
                distance = spec.fs(row.latency) + int(bus_time[before] - bus_time[after])
                key = (level, before, after)
                merged[key] = max(distance, merged.get(key, distance))
    ordered = sorted(merged)
    start = np.zeros((3, count + 1), np.int64)
    for level in range(3):
        for command in range(count + 1):
            start[level, command] = sum(1 for key in ordered if key[:2] < (level, command))
    following = np.array([key[2] for key in ordered], np.int64)
    return start, following, np.array([merged[key] for key in ordered], np.int64)


def new_state(spec: DramSpec, pchs: int | None = None) -> DramState:
    """State of ``pchs`` pseudo-channels (default: the machine's), every bank closed and nothing pending."""
    pchs = spec.pch_count if pchs is None else pchs
    sizes = [row.window for row in spec.constraints if row.window]
    nodes = 1 + spec.bank_groups + spec.banks
    return DramState(
        np.full((pchs, nodes, len(DRAM_COMMANDS)), NEVER, np.int64),
        np.full((pchs, len(spec.buses)), NEVER, np.int64),
        np.full((pchs, len(sizes), max(sizes, default=1)), NEVER, np.int64),
        np.zeros((pchs, len(sizes)), np.int64),
        np.full((pchs, spec.banks), -1, np.int64),
    )


def status_text(status: int, command: int, bank: int, row: int) -> str:
    """Words for a status of :func:`check` or :func:`issue`."""
    return f"{DRAM_COMMANDS[command]} (bank {bank}, row {row}) {_STATUS[status]}"


@njit(cache=True)
def earliest(tables: DramTables, state: DramState, pch: int, command: int, bank: int, time: int) -> int:
    """Least start >= ``time`` (fs, >= 0) that every constraint, the command bus and the clock grid allow."""
    scope = tables.scope[command]
    start = max(time, state.ready[pch, 0, command], state.bus_free[pch, tables.bus[command]])
    if scope > 0:
        group = bank // tables.banks_per_group
        start = max(start, state.ready[pch, 1 + group, command])
        if scope > 1:
            start = max(start, state.ready[pch, 1 + tables.bank_groups + bank, command])
    for window in range(tables.window_size.size):
        count = tables.window_count[window, command]
        if count > 0:
            # The last of `count` activations needs the one `size` before it to be a latency old.
            size = tables.window_size[window]
            slot = (state.ring_position[pch, window] + count - 1) % size
            start = max(start, state.ring[pch, window, slot] + tables.window_latency[window, command])
    grid = tables.grid[command]
    return int((start + grid - 1) // grid * grid)


@njit(cache=True)
def check(tables: DramTables, state: DramState, pch: int, command: int, bank: int, row: int) -> int:
    """OK, or the status of the bank rule that ``command`` would break now."""
    scope = tables.scope[command]
    if scope < 0:
        return NO_COMMAND
    if scope > 0 and not 0 <= bank < tables.banks:
        return NO_BANK
    effect = tables.effect[command]
    if effect in (_NONE, _CLOSE):
        return OK
    if effect == _OPEN and not 0 <= row < tables.rows:
        return NO_ROW
    first, last = _banks(tables, scope, bank)
    for index in range(first, last):
        is_open = state.open_row[pch, index] >= 0
        if is_open and effect == _OPEN:
            return BANK_OPEN
        if is_open and effect == _REFRESH:
            return NOT_IDLE
        if not is_open and effect in (_COLUMN, _COLUMN_CLOSE):
            return BANK_CLOSED
    return OK


@njit(cache=True)
def issue(
    tables: DramTables, state: DramState, pch: int, command: int, bank: int, row: int, time: int
) -> int:
    """Start ``command`` at ``time`` (fs) and return OK, or return why it is illegal and change nothing."""
    status = check(tables, state, pch, command, bank, row)
    if status != OK:
        return int(status)
    if time % tables.grid[command] != 0:
        return OFF_GRID
    if earliest(tables, state, pch, command, bank, time) != time:
        return TOO_EARLY
    scope = tables.scope[command]
    node = 0
    for level in range(scope + 1):
        if level == 1:
            node = 1 + bank // tables.banks_per_group
        elif level == 2:
            node = 1 + tables.bank_groups + bank
        for entry in range(tables.entry_start[level, command], tables.entry_start[level, command + 1]):
            following = tables.entry_next[entry]
            least = time + tables.entry_latency[entry]
            state.ready[pch, node, following] = max(least, state.ready[pch, node, following])
    end = time + tables.bus_time[command]
    state.bus_free[pch, tables.bus[command]] = end
    for window in range(tables.window_size.size):
        position = state.ring_position[pch, window]
        for _ in range(tables.window_count[window, command]):
            state.ring[pch, window, position] = end
            position = (position + 1) % tables.window_size[window]
        state.ring_position[pch, window] = position
    _apply(tables, state, pch, command, bank, row)
    return OK


@njit(cache=True)
def all_closed(state: DramState, pch: int) -> bool:
    """Whether every bank of ``pch`` is closed."""
    return int(state.open_row[pch].max()) < 0


@njit(cache=True)
def _banks(tables: DramTables, scope: int, bank: int) -> tuple[int, int]:
    """First and one past the last bank that a command of ``scope`` acts on."""
    if scope == 0:
        return 0, tables.banks
    if scope == 1:
        first = bank // tables.banks_per_group * tables.banks_per_group
        return first, first + tables.banks_per_group
    return bank, bank + 1


@njit(cache=True)
def _apply(tables: DramTables, state: DramState, pch: int, command: int, bank: int, row: int) -> None:
    effect = tables.effect[command]
    if effect in (_OPEN, _CLOSE, _COLUMN_CLOSE):
        first, last = _banks(tables, tables.scope[command], bank)
        value = row if effect == _OPEN else -1
        for index in range(first, last):
            state.open_row[pch, index] = value
