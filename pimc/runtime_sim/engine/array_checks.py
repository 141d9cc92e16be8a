"""Uninitialised reads inside the PIM and tensor units: array cells and accumulators; marks what is written."""

from __future__ import annotations

from pimc.runtime_sim.engine.errors import PLACE_ACCUMULATOR, PLACE_ARRAY, STREAM_CORE, UNINITIALISED, fail
from pimc.runtime_sim.engine.jit import jit
from pimc.runtime_sim.engine.semantics_matrix import COLS, DEPTH, LANE, ROWS
from pimc.runtime_sim.engine.state import Record, view_i64, view_u8

#: What an instruction does to array or accumulators (``op_units_at``), from its semantics name.
NOTHING, ARRAY_LOAD, ARRAY_CLEAR, ARRAY_ADD, TENSOR_CLEAR, TENSOR_ADD, TENSOR_READ, TENSOR_LOAD = range(8)


@jit
def _load(m: Record, c: int, core: Record, s: Record) -> None:
    for i in range(s.value[2]):
        at = (c * m.array_rows + s.value[0] + i) * m.lanes + core.cfg[LANE]
        cells = view_u8(m.array_init_at + at, core.cfg[DEPTH])
        for j in range(core.cfg[DEPTH]):
            cells[j] = 1


@jit
def _rows(m: Record, c: int, core: Record, s: Record, clear: bool) -> None:
    acc = view_u8(m.pim_acc_init_at + c * m.array_rows, m.array_rows)
    for i in range(s.value[3]):
        row = s.value[2] + i
        cells = view_u8(m.array_init_at + (c * m.array_rows + row) * m.lanes, core.cfg[DEPTH])
        ready = 1
        for j in range(core.cfg[DEPTH]):
            ready &= cells[j]
        if not ready:
            fail(m, UNINITIALISED, STREAM_CORE, c, s.pc, PLACE_ARRAY, row)
            return
        if clear:
            acc[i] = 1
        elif not acc[i]:
            fail(m, UNINITIALISED, STREAM_CORE, c, s.pc, PLACE_ACCUMULATOR, i)
            return


@jit
def _tensor(m: Record, c: int, core: Record, s: Record, action: int) -> None:
    size = m.tcu_rows * m.tcu_columns
    if action == TENSOR_CLEAR:
        cells = view_u8(m.tcu_acc_init_at + c * size, size)
        for i in range(size):
            cells[i] = 1
        return
    for row in range(core.cfg[ROWS]):
        cells = view_u8(m.tcu_acc_init_at + c * size + row * m.tcu_columns, core.cfg[COLS])
        for n in range(core.cfg[COLS]):
            if action == TENSOR_LOAD:
                cells[n] = 1
            elif not cells[n]:
                fail(m, UNINITIALISED, STREAM_CORE, c, s.pc, PLACE_ACCUMULATOR, row * m.tcu_columns + n)
                return


@jit
def check_units(m: Record, c: int, core: Record, s: Record) -> None:
    """Check and mark the cells of an instruction of the PIM or tensor unit."""
    if not m.checks:
        return
    action = view_i64(m.op_units_at, s.op + 1)[s.op]
    if action == ARRAY_LOAD:
        _load(m, c, core, s)
    elif action in (ARRAY_CLEAR, ARRAY_ADD):
        _rows(m, c, core, s, action == ARRAY_CLEAR)
    elif action != NOTHING:
        _tensor(m, c, core, s, action)
