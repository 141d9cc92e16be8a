"""Recorded sequences of independent simulators, and DRAM specs that reproduce their parameter sets."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pimc.runtime_sim import dram
from pimc.targets import DRAM_COMMANDS, DramSpec, load_target, parse_dram

DATA = Path(__file__).parent / "data"

#: What a parameter set changes in the spec file it is based on.
HBM2_SETS: dict[str, tuple[str, ...]] = {
    "golden_HBM2_X": (),
    "ram2_HBM2_2000Mbps": ("hbm.timing.nRRDL=4", "hbm.timing.nFAW=15"),
}
HBM3 = "HBM3_6400_half_clock_ticks"


@cache
def sequences() -> dict[str, Any]:
    return json.loads((DATA / "dram-sequences.json").read_text())


@cache
def spec_of(name: str) -> DramSpec:
    if name == HBM3:
        # The recording is for a channel of another density: tRFC 350 ns, where hpim's has 450 ns.
        return load_target("hpim", ["hbm.timing.nRFC=560"]).hbm
    raw = tomllib.loads((DATA / "hbm2.toml").read_text())["hbm"]
    return parse_dram(raw, HBM2_SETS[name], "hbm2.toml")


def cases() -> list[tuple[str, str]]:
    return [(name, pattern) for name, patterns in sequences()["facts"].items() for pattern in patterns]


def commands_of(spec: DramSpec, pattern: str) -> list[tuple[int, int, int]]:
    """(command, bank, row) of a recorded pattern."""
    rows = sequences()["patterns"][pattern]["commands"]
    per_group = spec.banks_per_group
    return [(DRAM_COMMANDS.index(name), group * per_group + bank, row) for name, group, bank, row, _ in rows]


def expected_ticks(name: str, pattern: str) -> list[int]:
    fact = sequences()["facts"][name][pattern]
    return fact["issue_ticks"] if "issue_ticks" in fact else fact["issue_cycles"]


def run_asap(spec: DramSpec, commands: Iterable[tuple[int, int, int]]) -> list[int]:
    """Ticks at which the DRAM core issues ``commands``, each at the first legal tick after the last."""
    tables, state = dram.build_tables(spec), dram.new_state(spec, 1)
    ticks: list[int] = []
    time = 0
    for command, bank, row in commands:
        start = dram.issue_asap(tables, state, 0, command, bank, row, time)
        assert start >= 0, dram.status_text(-start, command, bank, row)
        ticks.append(start // spec.tick_fs)
        time = start + spec.tick_fs
    return ticks


def trace_of(spec: DramSpec, commands: list[tuple[int, int, int]], ticks: list[int]) -> dict[str, np.ndarray]:
    """Trace arrays as the checker reads them."""
    table = np.array(commands, np.int64).reshape(-1, 3)
    return {
        "time_fs": np.array(ticks, np.int64) * spec.tick_fs,
        "cmd": table[:, 0],
        "bank_group": table[:, 1] // spec.banks_per_group,
        "bank": table[:, 1] % spec.banks_per_group,
        "row": table[:, 2],
        "col": np.zeros(len(table), np.int64),
    }
