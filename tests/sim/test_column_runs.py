"""Transfers whose columns are timed in closed form take the time that they take column by column.

With a trace every column is a command of its own; without, runs of columns are recorded at once.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sim.programs import program, target

from pimc.isa.program import LoadedProgram
from pimc.runtime_sim import Machine, RunResult

ROWS = 3
TILE_BYTES = ROWS * 16 * 4 * 1024
KINDS = st.sampled_from(("hrd", "hwr", "hrdb"))
TRANSFERS = st.lists(
    st.tuples(
        st.sampled_from(("hrd", "hwr", "hrdb")),
        st.integers(0, TILE_BYTES // 32 - 1),
        st.integers(1, 600),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
STREAM = """
    wait s0, 1
    wrgb 0b1111, h31, 0x1000, 0, 32, 0
    loop h31, {rows}
    act 0b1111, h31, 2
    mac 0b1111, 3, 0, {columns}, 0, 1, h0
    pre 0b1111
    rd 0b1111, h31, 1, 5, 2, {columns}, h1
    wr 0b1111, h31, 1, 6, 2, {columns}, h1
    endl
    rdres 0b1111, h31, 0x2000, 0, 1
    sig s1
    halt
"""


def core(transfers: list[tuple[str, int, int, bool]]) -> str:
    """Transfers of (kind, column of the tile's linear memory, columns, whether to wait a little first)."""
    lines = ["config pch_mask, 0b1111", "config pch_stride, 1024", "sigh s0"]
    for number, (kind, first, columns, pause) in enumerate(transfers):
        local = 0x8000 + number * 0x5000
        lines += ["addi r9, r0, 1"] * (30 * pause) + [f"li r1, {local}"]
        if kind == "hrdb":
            bank, column = first % 16, first % 7
            count = min(columns, 32 - column)
            lines += [
                f"li r2, {first % ROWS}",
                f"li r3, {bank * 32 + column}",
                f"li r4, {count}",
                "hrdb r1, r2, r3, r4",
            ]
        else:
            size = 32 * min(columns, TILE_BYTES // 32 - first)
            lines += [f"li r2, {32 * first}", f"li r3, {size}", f"{kind} r1, r2, r3"]
    return "\n".join([*lines, "wait s1, r0, 4", "halt"])


def of(loaded: LoadedProgram, *, trace: bool) -> RunResult:
    return Machine(loaded, target(), functional=False, checks=False, trace=trace).run("main")


@settings(max_examples=60, deadline=None)
@given(TRANSFERS, st.integers(1, 40), st.integers(1, 29))
def test_the_time_is_that_of_single_columns(
    transfers: list[tuple[str, int, int, bool]], rows: int, columns: int
) -> None:
    images = {p: np.zeros((ROWS, 16, 512), np.uint16) for p in range(4)}
    loaded = program(core(transfers), STREAM.format(rows=rows, columns=columns), rows=ROWS, images=images)
    together, each = of(loaded, trace=False), of(loaded, trace=True)
    assert together.cycles == each.cycles
    assert np.array_equal(together.stats.pch_end_fs, each.stats.pch_end_fs)
    for name, counts in each.stats.dram_commands.items():
        assert np.array_equal(together.stats.dram_commands[name], counts)
