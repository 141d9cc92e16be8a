"""The lower bounds of docs/timing.md, as the DRAM core runs them."""

from __future__ import annotations

import pytest
from dram.golden_dram import run_asap

from pimc.runtime_sim.dram import ACT, GACT, MAC, PRE, PREA, RD, RDRES, WRGB
from pimc.targets import load_target

HPIM = load_target("hpim").hbm
GANGS = [(GACT, group * HPIM.banks_per_group, 0) for group in range(HPIM.bank_groups)]


@pytest.mark.parametrize(
    ("body", "nanoseconds"),
    [
        ([(ACT, 0, 0), *[(RD, 0, 0)] * 32, (PRE, 0, 0)], 118.75),
        ([*GANGS, *[(MAC, 0, 0)] * 32, (PREA, 0, 0)], 163.75),
        ([(WRGB, 0, 0)] * 32, 40.0),
        ([(RDRES, 0, 0)] * 2, 2.5),
    ],
    ids=["row of one bank", "row of all banks in lockstep", "global buffer", "one result register of all banks"],
)
def test_steady_state(body: list[tuple[int, int, int]], nanoseconds: float) -> None:
    ticks = run_asap(HPIM, body * 4)
    period = ticks[3 * len(body)] - ticks[2 * len(body)]
    assert period * HPIM.tick_fs / 1e6 == nanoseconds


def test_sixteen_activations_take_four_windows() -> None:
    singles = run_asap(HPIM, [(ACT, bank % 4 * 4 + bank // 4, 0) for bank in range(16)])
    ganged = run_asap(HPIM, GANGS)
    window = HPIM.timing["nFAW"] * HPIM.clock_ticks
    assert singles[12] == ganged[3] == 3 * window
