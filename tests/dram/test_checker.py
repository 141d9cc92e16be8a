"""The independent checker: silent on legal traces, and it names what is wrong with every other one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from dram.golden_dram import HBM3, cases, commands_of, expected_ticks, run_asap, spec_of, trace_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pimc.diagnostics import InputError
from pimc.runtime_sim import dram
from pimc.runtime_sim.checker import check_trace
from pimc.runtime_sim.dram import ACT, GACT, MAC, PRE, PREA, RD, RDA, RDRES, REF, WR, WRA, WRGB
from pimc.targets import load_target

HPIM = load_target("hpim").hbm

#: For every constraint row of hpim: commands (number, bank) that make it bind on the last one.
BINDING: dict[str, list[tuple[int, int]]] = {
    "data bus and column cadence, reads": [(ACT, 0), (ACT, 4), (RD, 4), (RD, 0)],
    "data bus and column cadence, writes": [(ACT, 0), (ACT, 4), (WR, 4), (WR, 0)],
    "read to write": [(ACT, 0), (RD, 0), (WR, 0)],
    "write to read": [(ACT, 0), (ACT, 4), (RD, 4), (WR, 0), (RD, 4)],
    "activate to activate": [(ACT, 0), (ACT, 4)],
    "four-activate window": [(GACT, 0), (GACT, 4)],
    "precharge to precharge": [(ACT, 0), (ACT, 4), (ACT, 8), *[(RD, 8)] * 10, (PRE, 0), (PRE, 4)],
    "refresh cycle": [(REF, 0), (ACT, 0)],
    "column cadence, reads of a bank group": [(ACT, 0), (ACT, 1), (RD, 1), (RD, 0)],
    "column cadence, writes of a bank group": [(ACT, 0), (ACT, 1), (WR, 1), (WR, 0)],
    "write to read of a bank group": [(ACT, 0), (ACT, 1), (RD, 1), (WR, 0), (RD, 1)],
    "activate to activate of a bank group": [(ACT, 0), (ACT, 1)],
    "row cycle": [(ACT, 0), (RDA, 0), (ACT, 0)],
    "activate to read": [(ACT, 0), (RD, 0)],
    "activate to write": [(ACT, 0), (WR, 0)],
    "activate to precharge": [(ACT, 0), (PRE, 0)],
    "precharge to activate": [(ACT, 0), (WR, 0), (PRE, 0), (ACT, 0)],
    "read to precharge": [(ACT, 0), *[(RD, 0)] * 8, (PRE, 0)],
    "write to precharge": [(ACT, 0), (WR, 0), (PRE, 0)],
    "read with precharge to activate": [(ACT, 0), *[(RD, 0)] * 8, (RDA, 0), (ACT, 0)],
    "write with precharge to activate": [(ACT, 0), (WRA, 0), (ACT, 0)],
    "MAC to MAC": [(GACT, 0), (GACT, 4), (GACT, 8), (GACT, 12), (MAC, 0), (MAC, 0)],
    "MAC and read or write of a bank group": [*[(GACT, g) for g in (0, 4, 8, 12)], (RD, 12), (MAC, 0)],
    "MAC to read or write of a bank group": [*[(GACT, g) for g in (0, 4, 8, 12)], (MAC, 0), (WR, 0)],
    "global-buffer write to global-buffer write": [(WRGB, 0), (WRGB, 0)],
    "global-buffer write to MAC": [*[(GACT, g) for g in (0, 4, 8, 12)], (MAC, 0), *[(WRGB, 0)] * 2, (MAC, 0)],
    "MAC to global-buffer write": [*[(GACT, g) for g in (0, 4, 8, 12)], (MAC, 0), (WRGB, 0)],
    "MAC to result read": [*[(GACT, g) for g in (0, 4, 8, 12)], (MAC, 0), (RDRES, 0)],
    "result read to result read": [(RDRES, 0), (RDRES, 0)],
}


@pytest.mark.parametrize(("name", "pattern"), cases())
def test_recorded_sequences_are_clean(name: str, pattern: str) -> None:
    spec = spec_of(name)
    trace = trace_of(spec, commands_of(spec, pattern), expected_ticks(name, pattern))
    assert check_trace(spec, trace) == []


def test_every_constraint_has_a_case() -> None:
    assert set(BINDING) == {row.name for row in HPIM.constraints}


@pytest.mark.parametrize("rule", list(BINDING))
def test_one_tick_too_early_is_caught(rule: str) -> None:
    commands = [(command, bank, 7) for command, bank in BINDING[rule]]
    ticks = run_asap(HPIM, commands)
    assert check_trace(HPIM, trace_of(HPIM, commands, ticks)) == []
    ticks[-1] -= HPIM.command(dram.DRAM_COMMANDS[commands[-1][0]]).grid
    found = check_trace(HPIM, trace_of(HPIM, commands, ticks))
    assert rule in {violation.rule for violation in found}, [str(violation) for violation in found]
    assert all(violation.index == len(commands) - 1 for violation in found)


@pytest.mark.parametrize(("name", "pattern"), cases())
def test_no_recorded_command_could_come_earlier(name: str, pattern: str) -> None:
    """ASAP traces are tight: pulling any command by its grid breaks a rule or the issue order."""
    spec = spec_of(name)
    commands, ticks = commands_of(spec, pattern), expected_ticks(name, pattern)
    for index in {1, len(ticks) // 2, len(ticks) - 1}:
        moved = list(ticks)
        moved[index] -= spec.command(dram.DRAM_COMMANDS[commands[index][0]]).grid
        if moved[index] > ticks[index - 1]:
            found = check_trace(spec, trace_of(spec, commands, moved))
            assert index in {violation.index for violation in found}


@pytest.mark.parametrize(
    ("commands", "text"),
    [
        ([(RD, 3)], "closed"),
        ([(ACT, 3), (ACT, 3)], "activates open banks [3]"),
        ([(ACT, 3), (REF, 0)], "needs closed banks"),
        ([(GACT, 0), (MAC, 0)], "needs open rows"),
        ([(GACT, 5), (GACT, 6)], "activates open banks [4, 5, 6, 7]"),
        ([(ACT, 3), (PREA, 0), (WR, 3)], "closed"),
        ([(ACT, 3), (RDA, 3), (RD, 3)], "closed"),
    ],
)
def test_bank_rules_in_both(commands: list[tuple[int, int]], text: str) -> None:
    """The checker reports the illegal last command, and the core refuses it."""
    rows = [(command, bank, 1) for command, bank in commands]
    ticks = run_asap(HPIM, rows[:-1])
    last = (ticks[-1] if ticks else 0) + 4000
    found = check_trace(HPIM, trace_of(HPIM, rows, [*ticks, last]))
    assert [violation.rule for violation in found] == ["bank state"]
    assert text in str(found[0])
    with pytest.raises(AssertionError, match="bank"):
        run_asap(HPIM, rows)


def test_ranges_bus_grid_and_refresh() -> None:
    trace = trace_of(HPIM, [(ACT, 0, HPIM.rows), (99, 0, 0), (ACT, 0, 0), (PRE, 4, 0), (RD, 0, 0)], [0, 1, 2, 3, 201])
    found = check_trace(HPIM, trace, max_refresh_gap_fs=HPIM.tick_fs * 100)
    rules = Counter(violation.rule for violation in found)
    assert rules == {"range": 1, "command": 1, "row bus": 1, "grid": 1, "refresh": 1}
    with pytest.raises(InputError, match="no col"):
        check_trace(HPIM, {key: value for key, value in trace.items() if key != "col"})
    with pytest.raises(InputError, match="lengths"):
        check_trace(HPIM, {**trace, "row": np.zeros(1, np.int64)})


_STREAM = st.lists(
    st.tuples(st.integers(0, len(dram.DRAM_COMMANDS) - 1), st.integers(0, 15), st.integers(0, 60)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(_STREAM)
def test_core_and_checker_agree_on_random_streams(stream: list[tuple[int, int, int]]) -> None:
    """What the core issues ASAP is clean; moved one grid step earlier, both call it illegal."""
    tables, state = dram.build_tables(HPIM), dram.new_state(HPIM, 2)
    commands: list[tuple[int, int, int]] = []
    ticks: list[int] = []
    time = 0
    for command, bank, wait in stream:
        earlier = state.copy()
        start = dram.issue_asap(tables, state, 1, command, bank, 5, time)
        if start < 0:
            assert (state == earlier).all()
            assert dram.check(tables, state, 1, command, bank, 5) == -start
            continue
        commands.append((command, bank, 5))
        ticks.append(start // HPIM.tick_fs)
        grid = HPIM.command(dram.DRAM_COMMANDS[command]).grid
        if start - grid * HPIM.tick_fs >= time:
            early = dram.issue(tables, earlier, 1, command, bank, 5, start - grid * HPIM.tick_fs)
            assert early == dram.TOO_EARLY
            assert check_trace(HPIM, trace_of(HPIM, commands, [*ticks[:-1], ticks[-1] - grid]))
        time = start + wait * HPIM.tick_fs
    assert check_trace(HPIM, trace_of(HPIM, commands, ticks)) == []
    assert (state[0] == dram.new_state(HPIM, 1)[0]).all()


def test_hbm3_spec_of_the_recording_is_hpims() -> None:
    assert spec_of(HBM3).constraints == HPIM.constraints
