"""An independent check of a DRAM command trace against a target's constraint rows and the rules of the banks.

The simulator's DRAM core (``dram.py``) decides when commands issue; this module re-reads what it issued and
knows nothing of how it decided: no numba, no tables, no state shared.  It *pulls*: for every command it looks
back for the commands that each constraint row names and compares the distance; the core pushes ready times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError
from pimc.targets import DRAM_COMMANDS, DramCommand, DramConstraint, DramSpec

#: Arrays of a trace, of one length: start, command number, bank group, bank in its group, row, column.
TRACE_FIELDS = ("time_fs", "cmd", "bank_group", "bank", "row", "col")


@dataclass(frozen=True)
class Violation:
    """One broken rule: index of the command and of the earlier one concerned (-1: none), rule, sentence."""

    index: int
    earlier: int
    rule: str
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class _Event:
    """A command of the trace with the banks it acts on."""

    index: int
    start: int
    end: int
    command: DramCommand
    group: int
    bank: int
    row: int
    banks: frozenset[int]

    def __str__(self) -> str:
        where = {"bank": f" bank {self.bank}", "bank_group": f" bank group {self.group}"}.get(self.command.scope, "")
        return f"#{self.index} {self.command.name}{where} at {self.start / 1e6:.4f} ns"


@dataclass
class _History:
    """What the checker remembers: last command per name and node, bus users, activations, open rows."""

    last: dict[tuple[str, str, int], _Event] = field(default_factory=dict)
    bus: dict[str, _Event] = field(default_factory=dict)
    activations: dict[str, list[_Event]] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)


def check_trace(
    spec: DramSpec,
    trace: Mapping[str, NDArray[np.int64]],
    *,
    limit: int = 1000,
    max_refresh_gap_fs: int | None = None,
) -> list[Violation]:
    """Violations, at most ``limit``, in the trace of one pseudo-channel.

    ``trace`` has the arrays of :data:`TRACE_FIELDS`; commands are read in order of time, equal times in
    order of the arrays.  ``max_refresh_gap_fs`` also asks for a REF at least that often.  Raises
    :class:`InputError` if the arrays do not belong together.
    """
    history = _History()
    found: list[Violation] = []
    last_refresh = 0
    for event in _events(spec, trace, found):
        found.extend(_check_banks(history, event))
        found.extend(_check_bus(spec, history, event))
        for constraint in spec.constraints:
            if event.command.name in constraint.following:
                found.extend(_check_constraint(spec, history, constraint, event))
        if max_refresh_gap_fs is not None and event.start - last_refresh > max_refresh_gap_fs:
            found.append(
                _violation(event, None, "refresh", f"{event} comes {_ns(event.start - last_refresh)} after a REF")
            )
            last_refresh = event.start
        if event.command.effect == "refresh":
            last_refresh = event.start
        _remember(spec, history, event)
        if len(found) >= limit:
            break
    return found[:limit]


def _events(spec: DramSpec, trace: Mapping[str, NDArray[np.int64]], found: list[Violation]) -> Iterator[_Event]:
    """The commands of a trace in order of time; those that cannot be read become violations."""
    missing = [name for name in TRACE_FIELDS if name not in trace]
    if missing:
        raise InputError(f"the trace has no {', '.join(missing)}")
    columns = [np.asarray(trace[name]).tolist() for name in TRACE_FIELDS]
    if len({len(column) for column in columns}) != 1:
        raise InputError("the arrays of the trace have different lengths")
    known = {command.name: command for command in spec.commands}
    order = sorted(range(len(columns[0])), key=columns[0].__getitem__)
    for index in order:
        start, number, group, bank, row, column = (values[index] for values in columns)
        name = DRAM_COMMANDS[number] if 0 <= number < len(DRAM_COMMANDS) else f"command {number}"
        if name not in known:
            found.append(Violation(index, -1, "command", f"#{index} {name} is not a command of the target"))
            continue
        command = known[name]
        ranges = {"bank_group": (group, spec.bank_groups), "bank": (bank, spec.banks_per_group)}
        ranges |= {"row": (row, spec.rows), "col": (column, spec.columns)}
        used = {"bank": ("bank_group", "bank"), "bank_group": ("bank_group",), "pseudo_channel": ()}[command.scope]
        used += {"open": ("row",), "column": ("col",), "column_close": ("col",)}.get(command.effect, ())
        bad = [key for key in used if not 0 <= ranges[key][0] < ranges[key][1]]
        for key in bad:
            text = f"#{index} {name}: {key} {ranges[key][0]} is not below {ranges[key][1]}"
            found.append(Violation(index, -1, "range", text))
        if bad:
            continue
        flat = group * spec.banks_per_group + bank
        banks = _acted_on(spec, command.scope, group, flat)
        yield _Event(index, start, start + command.ticks * spec.tick_fs, command, group, flat, row, banks)


def _acted_on(spec: DramSpec, scope: str, group: int, bank: int) -> frozenset[int]:
    if scope == "pseudo_channel":
        return frozenset(range(spec.banks))
    if scope == "bank_group":
        return frozenset(range(group * spec.banks_per_group, (group + 1) * spec.banks_per_group))
    return frozenset((bank,))


def _check_banks(history: _History, event: _Event) -> Iterator[Violation]:
    opened = [bank for bank in sorted(event.banks) if bank in history.rows]
    closed = [bank for bank in sorted(event.banks) if bank not in history.rows]
    effect = event.command.effect
    if effect == "open" and opened:
        yield _violation(event, None, "bank state", f"{event} activates open banks {opened}")
    elif effect in ("column", "column_close") and closed:
        yield _violation(event, None, "bank state", f"{event} needs open rows, but banks {closed} are closed")
    elif effect == "refresh" and opened:
        yield _violation(event, None, "bank state", f"{event} needs closed banks, but {opened} are open")


def _check_bus(spec: DramSpec, history: _History, event: _Event) -> Iterator[Violation]:
    grid = event.command.grid * spec.tick_fs
    if event.start % grid:
        yield _violation(event, None, "grid", f"{event} does not start on a multiple of {_ns(grid)}")
    before = history.bus.get(event.command.bus)
    if before is not None and event.start < before.end:
        text = f"{event} starts while {before} still has the {event.command.bus} bus"
        yield _violation(event, before, f"{event.command.bus} bus", text)


def _check_constraint(
    spec: DramSpec, history: _History, constraint: DramConstraint, event: _Event
) -> Iterator[Violation]:
    before = _window(history, constraint, event) if constraint.window else _latest(spec, history, constraint, event)
    if before is None:
        return
    least = spec.clocks(constraint.latency) * spec.clock_fs
    distance = event.end - before.end
    if distance < least:
        rule = f"{constraint.name} ({constraint.latency})"
        text = f"{event} is {_ns(distance)} after {before}, but {rule} needs {_ns(least)}"
        yield _violation(event, before, constraint.name, text)


def _latest(spec: DramSpec, history: _History, constraint: DramConstraint, event: _Event) -> _Event | None:
    """The last preceding command of ``constraint`` on a node of its level that ``event`` acts on too."""
    nodes = _nodes(spec, constraint.level, event.banks)
    candidates = [
        history.last[key]
        for name in constraint.preceding
        for node in nodes
        if (key := (name, constraint.level, node)) in history.last
    ]
    return max(candidates, key=lambda item: item.end, default=None)


def _window(history: _History, constraint: DramConstraint, event: _Event) -> _Event | None:
    """The activation ``window`` before the last one of ``event``, counting a command once a bank."""
    past = history.activations.get(constraint.name, [])
    own = len(event.banks)
    position = len(past) + own - 1 - constraint.window
    return past[position] if 0 <= position < len(past) else None


def _nodes(spec: DramSpec, level: str, banks: frozenset[int]) -> set[int]:
    if level == "pseudo_channel":
        return {0}
    if level == "bank_group":
        return {bank // spec.banks_per_group for bank in banks}
    return set(banks)


def _remember(spec: DramSpec, history: _History, event: _Event) -> None:
    name, effect = event.command.name, event.command.effect
    for level in ("pseudo_channel", "bank_group", "bank"):
        for node in _nodes(spec, level, event.banks):
            history.last[name, level, node] = event
    history.bus[event.command.bus] = event
    for constraint in spec.constraints:
        if constraint.window and name in constraint.preceding:
            past = history.activations.setdefault(constraint.name, [])
            past.extend([event] * len(event.banks))
            del past[: -2 * constraint.window]
    for bank in event.banks:
        if effect == "open":
            history.rows[bank] = event.row
        elif effect in ("close", "column_close"):
            history.rows.pop(bank, None)


def _violation(event: _Event, before: _Event | None, rule: str, text: str) -> Violation:
    return Violation(event.index, -1 if before is None else before.index, rule, text)


def _ns(time_fs: int) -> str:
    return f"{time_fs / 1e6:.4f} ns"
