"""DRAM timing core: when may a command issue, what does it do to its pseudo-channel (table driven, numba).

Everything comes from the target: :func:`build_tables` turns its command and constraint rows into one array;
nothing about a DRAM standard is written here. All times are int64 femtoseconds. ``tables`` is an int64
vector, ``state`` an int64 matrix with a row a pseudo-channel, so that numba passes two arrays and no tuple
of them::

    tables = build_tables(target.hbm)
    state = new_state(target.hbm)                           # all pseudo-channels idle, all banks closed
    t = earliest(tables, state, pch, ACT, bank, now)        # least legal start >= now
    status = issue(tables, state, pch, ACT, bank, row, t)   # OK, or the rule it breaks (nothing changed)
    t = issue_asap(tables, state, pch, RD, bank, 0, now)    # both in one: the start, or -status
    t = issue_run(tables, state, pch, RD, bank, 8, now)     # eight of them: the start of the last, or -status
    there = t + done_time(tables, RD)                       # data or effect of a command that started at t

Command numbers are the constants below (``DRAM_COMMANDS`` of the target). ``bank`` is 0 .. banks - 1 (bank
group = bank // banks_per_group); a GACT acts on the whole bank group of ``bank``, a command of the
pseudo-channel (PREA, REF, MAC, WRGB, RDRES) ignores ``bank``; ``row`` matters to ACT and GACT only.
``earliest`` knows timing alone, not whether banks are open; ``check`` knows banks alone; ``issue`` refuses
what either forbids; ``status_text`` words a refusal; ``open_row`` and ``refresh_interval`` look
things up.

How it works ("push"): issuing a command raises ``ready[node, next]``, the first start of every command that
a constraint makes follow it, at the node (pseudo-channel, bank group or bank) where the two meet. As a
constraint holds between commands' bus ends, the table has latency + own bus time - follower's bus time. A
row is stored at the widest of its level and the two commands' scopes, so that a look-up reads at most three
nodes. Windows (tFAW) keep the last activations' bus ends in a ring; a ganged activation enters once a bank.
"""

from __future__ import annotations

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

from pimc.runtime_sim.engine.guard import GUARDED
from pimc.targets import DRAM_COMMANDS, DramSpec

I64 = NDArray[np.int64]
#: How functions are compiled; the second for those that divide.
_native = numba.njit(boundscheck=GUARDED)
_native_numpy = numba.njit(boundscheck=GUARDED, error_model="numpy")

ACT, GACT, PRE, PREA, RD, WR, RDA, WRA, REF, MAC, WRGB, RDRES = range(len(DRAM_COMMANDS))

OK, BANK_OPEN, BANK_CLOSED, NOT_IDLE, NO_BANK, NO_ROW, NO_COMMAND, TOO_EARLY, OFF_GRID = range(9)
_STATUS = (
    "is legal",
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
_COUNT = len(DRAM_COMMANDS)
_LEVELS = ("pseudo_channel", "bank_group", "bank")
_EFFECTS = ("none", "open", "close", "column", "column_close", "refresh")
_NONE, _OPEN, _CLOSE, _COLUMN, _COLUMN_CLOSE, _REFRESH = range(6)

# Layout of the table vector: a header, a record a command, a record a window, the constraint entries.
_BANKS, _GROUP, _GROUPS, _ROWS, _INTERVAL, _WINDOWS, _WINDOW_AT = range(7)
_BUS_AT, _RING_AT, _OPEN_AT, _ROW_AT, _WORDS = range(7, 12)  # places in a row of the state
_HEADER = 12
_SCOPE, _EFFECT, _BUS, _TIME, _GRID, _DONE, _CADENCE, _ENTRIES = range(8)  # of a command; then begin and end a level
_COMMAND = _ENTRIES + 6
_SIZE, _RING, _MEMBER = range(3)  # of a window; then count and latency a command
_WINDOW = _MEMBER + 2 * _COUNT


def build_tables(spec: DramSpec) -> I64:
    """Table vector of ``spec`` for the functions of this module."""
    return _tables(spec).copy()


@lru_cache(maxsize=8)
def _tables(spec: DramSpec) -> I64:
    windows = [row for row in spec.constraints if row.window]
    window_at = _HEADER + _COUNT * _COMMAND
    entry_at = window_at + len(windows) * _WINDOW
    nodes = 1 + spec.bank_groups + spec.banks
    bus_at = nodes * _COUNT
    ring_at = bus_at + len(spec.buses)
    open_at = ring_at + sum(1 + row.window for row in windows)
    interval = spec.fs("nREFI") if "nREFI" in spec.timing else 0
    head = [spec.banks, spec.banks_per_group, spec.bank_groups, spec.rows, interval, len(windows), window_at]
    head += [bus_at, ring_at, open_at, open_at + 1, open_at + 1 + spec.banks]
    table = np.zeros(entry_at, np.int64)
    table[:_HEADER] = head
    records = table[_HEADER:window_at].reshape(_COUNT, _COMMAND)
    records[:, _SCOPE] = -1
    records[:, _GRID] = spec.tick_fs
    for command in spec.commands:
        records[DRAM_COMMANDS.index(command.name), :_CADENCE] = (
            _LEVELS.index(command.scope),
            _EFFECTS.index(command.effect),
            spec.buses.index(command.bus),
            command.ticks * spec.tick_fs,
            command.grid * spec.tick_fs,
            spec.fs(command.done),
        )
    for number, row in enumerate(windows):
        record = table[window_at + number * _WINDOW :]
        record[_SIZE] = row.window
        record[_RING] = ring_at
        ring_at += 1 + row.window
        for name in row.following:
            index = DRAM_COMMANDS.index(name)
            member = _MEMBER + 2 * index
            record[member] = spec.banks_of(spec.command(name).scope)
            record[member + 1] = spec.fs(row.latency) - int(records[index, _TIME])
    return np.concatenate([table, _entries(spec, records, entry_at)])


def _entries(spec: DramSpec, records: I64, entry_at: int) -> I64:
    """Constraint rows without a window as pairs (follower, distance of starts); records get their ranges."""
    merged: dict[tuple[int, int, int], int] = {}
    for row in spec.constraints:
        if row.window:
            continue
        for before in map(DRAM_COMMANDS.index, row.preceding):
            for after in map(DRAM_COMMANDS.index, row.following):
                level = min(_LEVELS.index(row.level), int(records[before, _SCOPE]), int(records[after, _SCOPE]))
                distance = spec.fs(row.latency) + int(records[before, _TIME] - records[after, _TIME])
                key = (level, before, after)
                merged[key] = max(distance, merged.get(key, distance))
    for command in range(_COUNT):
        own = max(int(records[command, _TIME]), *(merged.get((level, command, command), 0) for level in range(3)))
        grid = int(records[command, _GRID])
        records[command, _CADENCE] = -(-own // grid) * grid
    ordered = sorted(merged)
    for level in range(3):
        for command in range(_COUNT):
            begin = entry_at + 2 * sum(1 for key in ordered if key[:2] < (level, command))
            end = entry_at + 2 * sum(1 for key in ordered if key[:2] <= (level, command))
            records[command, _ENTRIES + 2 * level : _ENTRIES + 2 * level + 2] = begin, end
    return np.array([word for key in ordered for word in (key[2], merged[key])], np.int64)


def new_state(spec: DramSpec, pchs: int | None = None) -> I64:
    """State of ``pchs`` pseudo-channels (default: the machine's), every bank closed and nothing pending."""
    table = _tables(spec)
    state = np.full((spec.pch_count if pchs is None else pchs, int(table[_WORDS])), NEVER, np.int64)
    for window in range(int(table[_WINDOWS])):
        state[:, table[table[_WINDOW_AT] + window * _WINDOW + _RING]] = 0
    state[:, table[_OPEN_AT]] = 0
    state[:, table[_ROW_AT] :] = -1
    return state


def state_words(tables: I64) -> int:
    """Words of a pseudo-channel's state."""
    return int(tables[_WORDS])


def status_text(status: int, command: int, bank: int, row: int) -> str:
    """Words for a status of :func:`check` or :func:`issue`."""
    return f"{DRAM_COMMANDS[command]} (bank {bank}, row {row}) {_STATUS[status]}"


@_native
def done_time(tables: I64, command: int) -> int:
    """Femtoseconds from the start of ``command`` until its data (at the pins) or its effect is there."""
    return int(tables[_HEADER + command * _COMMAND + _DONE])


def refresh_interval(tables: I64) -> int:
    """tREFI in femtoseconds, 0 for a DRAM without refresh."""
    return int(tables[_INTERVAL])


@_native
def open_row(tables: I64, state: I64, pch: int, bank: int) -> int:
    """Open row of a bank, -1 if it is closed."""
    return int(state[pch, tables[_ROW_AT] + bank])


@_native_numpy
def earliest(tables: I64, state: I64, pch: int, command: int, bank: int, time: int) -> int:
    """Least start >= ``time`` (fs, >= 0) that every constraint, the command bus and the clock grid allow."""
    record = _HEADER + command * _COMMAND
    scope = tables[record + _SCOPE]
    start = max(time, state[pch, command], state[pch, tables[_BUS_AT] + tables[record + _BUS]])
    if scope > 0:
        group = bank // tables[_GROUP]
        start = max(start, state[pch, (1 + group) * _COUNT + command])
        if scope > 1:
            start = max(start, state[pch, (1 + tables[_GROUPS] + bank) * _COUNT + command])
    if tables[record + _EFFECT] == _OPEN:
        start = max(start, _windows(tables, state, pch, command))
    grid = tables[record + _GRID]
    late = start % grid
    return int(start + (grid - late if late else 0))


@_native_numpy
def _windows(tables: I64, state: I64, pch: int, command: int) -> int:
    """Least start that the activation windows allow."""
    start = NEVER
    for number in range(tables[_WINDOWS]):
        window = tables[_WINDOW_AT] + number * _WINDOW
        count = tables[window + _MEMBER + 2 * command]
        if count > 0:
            # The last of `count` activations needs the one `size` before it to be a latency old.
            size, ring = tables[window + _SIZE], tables[window + _RING]
            slot = ring + 1 + (state[pch, ring] + count - 1) % size
            start = max(start, state[pch, slot] + tables[window + _MEMBER + 2 * command + 1])
    return start


@_native
def check(tables: I64, state: I64, pch: int, command: int, bank: int, row: int) -> int:
    """OK, or the status of the bank rule that ``command`` would break now."""
    if not 0 <= command < _COUNT:
        return NO_COMMAND
    scope, effect = (
        tables[_HEADER + command * _COMMAND + _SCOPE],
        tables[_HEADER + command * _COMMAND + _EFFECT],
    )
    if scope < 0:
        return NO_COMMAND
    if scope > 0 and not 0 <= bank < tables[_BANKS]:
        return NO_BANK
    if effect in (_COLUMN, _COLUMN_CLOSE):
        return OK if _open_in(tables, state, pch, scope, bank) == _width(tables, scope) else BANK_CLOSED
    if effect == _OPEN:
        if not 0 <= row < tables[_ROWS]:
            return NO_ROW
        return OK if _open_in(tables, state, pch, scope, bank) == 0 else BANK_OPEN
    if effect == _REFRESH:
        return OK if _open_in(tables, state, pch, scope, bank) == 0 else NOT_IDLE
    return OK


@_native
def issue(tables: I64, state: I64, pch: int, command: int, bank: int, row: int, time: int) -> int:
    """Start ``command`` at ``time`` (fs) and return OK, or return why it is illegal and change nothing."""
    status = check(tables, state, pch, command, bank, row)
    if status != OK:
        return int(status)
    if time % tables[_HEADER + command * _COMMAND + _GRID] != 0:
        return OFF_GRID
    if earliest(tables, state, pch, command, bank, time) != time:
        return TOO_EARLY
    _commit(tables, state, pch, command, bank, row, time)
    return OK


@_native
def issue_asap(tables: I64, state: I64, pch: int, command: int, bank: int, row: int, time: int) -> int:
    """Start ``command`` at the least legal time >= ``time`` (fs, >= 0) and return that, or return -status."""
    status = check(tables, state, pch, command, bank, row)
    if status != OK:
        return -int(status)
    start = earliest(tables, state, pch, command, bank, time)
    _commit(tables, state, pch, command, bank, row, start)
    return int(start)


@_native
def cadence(tables: I64, command: int) -> int:
    """From a start of a column command to that of the same one next, in the same bank, where nothing else binds."""
    return int(tables[_HEADER + command * _COMMAND + _CADENCE])


@_native
def issue_run(tables: I64, state: I64, pch: int, command: int, bank: int, count: int, time: int) -> int:
    """As ``issue_asap`` for ``count`` equal column commands that leave their row open, one after the other.

    Returns the start of the last, or -status.  Behind the first one only the one before it binds: all else binds the
    first, too.  So they are a ``cadence`` apart, and what the last one leaves is what all leave.
    """
    status = check(tables, state, pch, command, bank, 0)
    if status != OK:
        return -int(status)
    start = earliest(tables, state, pch, command, bank, time) + (count - 1) * cadence(tables, command)
    _commit(tables, state, pch, command, bank, 0, start)
    return int(start)


@_native
def record(tables: I64, state: I64, pch: int, command: int, bank: int, time: int) -> None:
    """Record a column command, or several of which it is the last: it is known to be legal at ``time``."""
    _commit(tables, state, pch, command, bank, 0, time)


@_native
def _width(tables: I64, scope: int) -> int:
    """Banks that a command of ``scope`` acts on."""
    return int(tables[_BANKS] if scope == 0 else tables[_GROUP] if scope == 1 else 1)


@_native_numpy
def _open_in(tables: I64, state: I64, pch: int, scope: int, bank: int) -> int:
    """Open banks among those that a command of ``scope`` acts on."""
    if scope == 0:
        return int(state[pch, tables[_OPEN_AT]])
    first = tables[_ROW_AT] + bank
    if scope == 2:
        return 1 if state[pch, first] >= 0 else 0
    first -= bank % tables[_GROUP]
    count = 0
    for place in range(first, first + tables[_GROUP]):
        count += 1 if state[pch, place] >= 0 else 0
    return count


@_native_numpy
def _commit(tables: I64, state: I64, pch: int, command: int, bank: int, row: int, time: int) -> None:
    """Record a legal command: constraints, command bus, windows, banks."""
    record = _HEADER + command * _COMMAND
    scope, effect = tables[record + _SCOPE], tables[record + _EFFECT]
    node = 0
    for level in range(scope + 1):
        if level == 1:
            node = 1 + bank // tables[_GROUP]
        elif level == 2:
            node = 1 + tables[_GROUPS] + bank
        places = record + _ENTRIES + 2 * level
        for entry in range(tables[places], tables[places + 1], 2):
            ready = node * _COUNT + tables[entry]
            state[pch, ready] = max(state[pch, ready], time + tables[entry + 1])
    end = time + tables[record + _TIME]
    state[pch, tables[_BUS_AT] + tables[record + _BUS]] = end
    if effect == _OPEN:
        _enter_windows(tables, state, pch, command, end)
    if effect in (_OPEN, _CLOSE, _COLUMN_CLOSE):
        width = _width(tables, scope)
        first = tables[_ROW_AT] + (bank // width * width if scope > 0 else 0)
        opened = _open_in(tables, state, pch, scope, bank)
        state[pch, first : first + width] = row if effect == _OPEN else -1
        state[pch, tables[_OPEN_AT]] += (width if effect == _OPEN else 0) - opened


@_native_numpy
def _enter_windows(tables: I64, state: I64, pch: int, command: int, end: int) -> None:
    for number in range(tables[_WINDOWS]):
        window = tables[_WINDOW_AT] + number * _WINDOW
        size, ring = tables[window + _SIZE], tables[window + _RING]
        for _ in range(tables[window + _MEMBER + 2 * command]):
            state[pch, ring + 1 + state[pch, ring]] = end
            state[pch, ring] = (state[pch, ring] + 1) % size
