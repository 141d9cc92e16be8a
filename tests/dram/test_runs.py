"""Several equal column commands in closed form are what one after the other is."""

from __future__ import annotations

import numpy as np
import pytest
from dram.golden_dram import spec_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pimc.runtime_sim import dram
from pimc.runtime_sim.dram import MAC, RD, RDRES, WR, WRGB
from pimc.targets import load_target

SPECS = {"hpim": load_target("hpim").hbm, "HBM2": spec_of("golden_HBM2_X")}
COMMANDS = st.integers(0, len(dram.DRAM_COMMANDS) - 1)
BEFORE = st.lists(st.tuples(COMMANDS, st.integers(0, 15), st.integers(0, 60)), max_size=40)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=150, deadline=None)
@given(BEFORE, st.sampled_from((RD, WR, MAC, WRGB, RDRES)), st.integers(0, 15), st.integers(1, 40))
def test_a_run_is_its_commands(
    name: str, before: list[tuple[int, int, int]], command: int, bank: int, count: int
) -> None:
    spec = SPECS[name]
    tables, state = dram.build_tables(spec), dram.new_state(spec, 2)
    time = 0
    for previous, place, wait in before:
        started = dram.issue_asap(tables, state, 1, previous, place, 7, time + wait * spec.tick_fs)
        time = max(time, started)
    together = state.copy()
    last = dram.issue_run(tables, together, 1, command, bank, count, time)
    each = time
    for _ in range(count):
        each = dram.issue_asap(tables, state, 1, command, bank, 0, each)
        if each < 0:
            break
    assert last == each
    assert np.array_equal(together, state)
