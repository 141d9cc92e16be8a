"""The DRAM core issues every command of the recorded sequences exactly when the independent simulators do."""

from __future__ import annotations

import pytest
from dram.golden_dram import HBM2_SETS, cases, commands_of, expected_ticks, run_asap, sequences, spec_of

from pimc.runtime_sim import dram

#: Known differences (set, pattern) -> {command index: (ours, recorded)}: none.
DIFFERENCES: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}


@pytest.mark.parametrize(("name", "pattern"), cases())
def test_every_command_at_its_recorded_tick(name: str, pattern: str) -> None:
    spec = spec_of(name)
    ours = run_asap(spec, commands_of(spec, pattern))
    recorded = expected_ticks(name, pattern)
    assert len(ours) == len(recorded)
    different = {i: pair for i, pair in enumerate(zip(ours, recorded, strict=True)) if pair[0] != pair[1]}
    assert different == DIFFERENCES.get((name, pattern), {})


def test_all_recorded_patterns_are_covered() -> None:
    patterns = set(sequences()["patterns"])
    assert len(patterns) == 25
    for name in HBM2_SETS:
        assert set(sequences()["facts"][name]) == patterns


@pytest.mark.parametrize("name", list(HBM2_SETS))
def test_the_spec_has_the_recorded_figures(name: str) -> None:
    recorded = sequences()["parameter_sets"][name]["nCK"]
    timing = spec_of(name).timing
    renamed = {"BL": ("nBL", 2), "CL": ("nCL", 1), "CWL": ("nCWL", 1), "tRTW_bubble": ("nRTWB", 1)}
    for key, value in recorded.items():
        if key != "tCK_ns":
            ours, divisor = renamed.get(key, (f"n{key[1:].replace('_', '')}", 1))
            assert timing[ours] == value // divisor, key


def test_hpim_has_the_recorded_hbm3_figures() -> None:
    recorded = sequences()["hbm3_parameters"]["timing_nCK"]
    timing = spec_of("HBM3_6400_half_clock_ticks").timing
    pim = {"nMAC", "nPU", "nGBW", "nRES"}
    assert {key: timing[key] for key in timing if key not in pim} == {
        key: recorded[key] for key in timing if key not in pim
    }


def _refresh_run(banks: list[int], *, refresh: bool, end: int) -> tuple[int, list[int], int]:
    """The recorded rule of refresh_1ms; returns reads, refresh ticks, commands."""
    spec = spec_of("golden_HBM2_X")
    tables, state = dram.build_tables(spec), dram.new_state(spec, 1)
    tick, interval = spec.tick_fs, spec.timing["nREFI"]
    time, row, reads, due, commands = 0, 0, 0, interval, 0
    refreshes: list[int] = []

    def go(command: int, bank: int) -> int:
        nonlocal time, commands
        start = dram.issue_asap(tables, state, 0, command, bank, row, time)
        assert start >= 0
        time, commands = start + tick, commands + 1
        return start // tick

    for bank in banks:
        go(dram.ACT, bank)
    position = 0
    while True:
        start = dram.earliest(tables, state, 0, dram.RD, banks[position], time) // tick
        if start >= end:
            return reads, refreshes, commands
        if refresh and start >= due:
            for bank in banks:
                go(dram.PRE, bank)
            refreshes.append(go(dram.REF, 0))
            row, due, position = row + 1, due + interval, 0
            for bank in banks:
                go(dram.ACT, bank)
            continue
        go(dram.RD, banks[position])
        reads, position = reads + 1, (position + 1) % len(banks)


def test_refresh_over_a_millisecond() -> None:
    recorded = sequences()["refresh_1ms"]["4BG"]
    reads, refreshes, commands = _refresh_run([0, 4, 8, 12], refresh=True, end=1_000_000)
    assert reads == recorded["reads_with_refresh"]
    assert commands == recorded["commands"]
    assert len(refreshes) == recorded["num_REF"]
    assert refreshes[:6] == recorded["first_REF"]
    assert refreshes[-1] == recorded["last_REF"]


def test_a_millisecond_without_refresh() -> None:
    reads, _, _ = _refresh_run([0, 4, 8, 12], refresh=False, end=1_000_000)
    assert reads == sequences()["refresh_1ms"]["4BG"]["reads_no_refresh"]
