"""The DRAM commands of an HBM-PIM controller: one function for each name of the ISA table.

Each takes the state ``m``, the controller's number ``p`` and record ``h``, the machine address ``at`` of the decoded
operands (int64, assembly order) and the time ``now``; ``h.pc`` is already behind the command.  It returns the time from
which the next command may start.  Data moves when the command is executed; what a signal announces is ``h.done``.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim import dram
from pimc.runtime_sim.engine.checks import agent_place, local_access, row_access
from pimc.runtime_sim.engine.control_commands import OWN, register, stop
from pimc.runtime_sim.engine.errors import (
    BAD_OPERAND,
    MISALIGNED,
    OUT_OF_RANGE,
    PLACE_BUFFER,
    PLACE_HBM,
    PLACE_LOCAL,
    PLACE_RESULT,
    PROTOCOL,
    UNINITIALISED,
    WHAT_CLOSED,
    WHAT_COLUMNS,
    WHAT_OPEN,
    WHAT_OTHER_ROW,
)
from pimc.runtime_sim.engine.intrinsics import dot16
from pimc.runtime_sim.engine.jit import jit
from pimc.runtime_sim.engine.memory_port import physical_bank, start, start_run
from pimc.runtime_sim.engine.numbers import copy_bytes, load_half, local_base
from pimc.runtime_sim.engine.records import MAX_OPERANDS
from pimc.runtime_sim.engine.state import Record, view_f32, view_i32, view_i64, view_u8, view_u32

_ZERO = np.float32(0.0)


@jit
def local_range(
    m: Record, p: int, h: Record, low: int, size: int, stride: int, rows: int, write: bool, align: int
) -> bool:
    """Check an access of the controller to its tile's local memory; False if it must not happen."""
    if rows == 0 or size == 0:
        return False
    end = low + (rows - 1) * stride + size
    if low < 0 or end > m.local_bytes:
        stop(m, p, h, OUT_OF_RANGE, PLACE_LOCAL, low if low < 0 else end)
        return False
    if low % align:
        stop(m, p, h, MISALIGNED, PLACE_LOCAL, low)
        return False
    if m.checks:
        agent = m.first_pch + p
        tile = p // m.per_tile
        local_access(
            m,
            tile,
            2 + p % m.per_tile,
            agent,
            -1,
            view_i32(agent_place(m, agent), m.agents),
            h.pc - 1,
            low,
            size,
            stride,
            rows,
            write,
        )
    return m.error == 0


@jit
def command_wrgb(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Local memory to the global buffer."""
    o = view_i64(at, MAX_OPERANDS)
    column, count = o[3], o[4]
    if column + count > m.buffer_columns:
        stop(m, p, h, OUT_OF_RANGE, PLACE_BUFFER, column + count)
        return now
    low = register(m, p, h, o[1]) + o[2] + (p % m.per_tile) * o[5]
    if not local_range(m, p, h, low, count * m.column_bytes, 0, 1, False, 2):
        return now
    ready = view_u8(m.buffer_init_at + p * m.buffer_columns, m.buffer_columns)
    now = start_run(m, p, h, dram.WRGB, 0, 0, column, count, now)
    for i in range(count):
        ready[column + i] = 1
    if m.functional:
        lanes = m.column_lanes
        target = view_f32(m.buffer_at + 4 * (p * m.buffer_columns + column) * lanes, count * lanes)
        load_half(local_base(m, p // m.per_tile) + low, target, count * lanes)
    return now


@jit
def _row(m: Record, p: int, h: Record, base: int, offset: int) -> int:
    """The row a command names, -1 (and an error) if there is none."""
    row = register(m, p, h, base) + offset
    if row < 0 or row >= m.rows:
        stop(m, p, h, OUT_OF_RANGE, PLACE_HBM, row)
        return -1
    return row


@jit
def command_act(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Open a row in all banks, one bank group after the other."""
    o = view_i64(at, MAX_OPERANDS)
    row = _row(m, p, h, o[1], o[2])
    if row < 0:
        return now
    if h.open_row >= 0:
        stop(m, p, h, PROTOCOL, OWN + WHAT_OPEN, h.open_row)
        return now
    for group in range(m.dram_groups):
        now = start(m, p, h, dram.GACT, group * m.dram_group_banks, row, 0, now)
    h.open_row = row
    if m.checks:
        agent = m.first_pch + p
        for bank in range(m.banks):
            row_access(m, p, row, bank, agent, -1, view_i32(agent_place(m, agent), m.agents), h.pc - 1, True, False)
    return now


@jit
def _check_mac(m: Record, p: int, h: Record, column: int, buffer: int, count: int, result: int, clear: bool) -> None:
    """Everything a MAC reads must have been written."""
    bits = ((1 << count) - 1) << column
    columns = view_u32(m.column_init_at + 4 * (p * m.rows + h.open_row) * m.banks, m.banks)
    for bank in range(m.banks):
        if columns[bank] & bits != bits:
            m.error_address = h.open_row
            stop(m, p, h, UNINITIALISED, PLACE_HBM, bank)
            return
    ready = view_u8(m.buffer_init_at + p * m.buffer_columns, m.buffer_columns)
    for i in range(count):
        if not ready[buffer + i]:
            stop(m, p, h, UNINITIALISED, PLACE_BUFFER, buffer + i)
            return
    if not clear and not view_u8(m.results_init_at + p * m.result_registers, m.result_registers)[result]:
        stop(m, p, h, UNINITIALISED, PLACE_RESULT, result)


@jit
def _mac_data(m: Record, p: int, row: int, column: int, buffer: int, count: int, result: int, clear: bool) -> None:
    """In every bank: result (+)= the column sums, column by column."""
    row_at = m.hbm_at + (p * m.rows + row) * m.banks * m.row_bytes + column * m.column_bytes
    inputs = m.buffer_at + 4 * (p * m.buffer_columns + buffer) * m.column_lanes
    for bank in range(m.banks):
        cell = view_f32(m.results_at + 4 * ((p * m.banks + bank) * m.result_registers + result), 1)
        total = _ZERO if clear else cell[0]
        weights = row_at + bank * m.row_bytes
        for i in range(count):
            total += dot16(weights + 32 * i, inputs + 64 * i)
        cell[0] = total


@jit
def command_mac(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """One column of every bank after the other."""
    o = view_i64(at, MAX_OPERANDS)
    column, buffer, count, clear = o[1], o[2], o[3], o[5] != 0
    result = register(m, p, h, o[6]) + o[4]
    if h.open_row < 0:
        stop(m, p, h, PROTOCOL, OWN + WHAT_CLOSED, 0)
        return now
    if column + count > m.columns:
        stop(m, p, h, BAD_OPERAND, WHAT_COLUMNS, column + count)
        return now
    if buffer + count > m.buffer_columns:
        stop(m, p, h, OUT_OF_RANGE, PLACE_BUFFER, buffer + count)
        return now
    if result < 0 or result >= m.result_registers:
        stop(m, p, h, OUT_OF_RANGE, PLACE_RESULT, result)
        return now
    if m.checks:
        _check_mac(m, p, h, column, buffer, count, result, clear)
        if m.error:
            return now
    now = start_run(m, p, h, dram.MAC, 0, 0, column, count, now)
    h.mac_columns += count
    view_u8(m.results_init_at + p * m.result_registers, m.result_registers)[result] = 1
    if m.functional:
        _mac_data(m, p, h.open_row, column, buffer, count, result, clear)
    return now


@jit
def command_pre(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Close all banks; a waiting transfer is next."""
    now = start(m, p, h, dram.PREA, 0, 0, 0, now)
    h.open_row = -1
    h.turn = 1
    h.quota = 0
    return now


@jit
def command_rdres(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Result registers to local memory."""
    o = view_i64(at, MAX_OPERANDS)
    mask, address, result, count = o[0], o[2], o[3], o[4]
    if result + count > m.result_registers:
        stop(m, p, h, OUT_OF_RANGE, PLACE_RESULT, result + count)
        return now
    q = p % m.per_tile
    channels, rank = 0, 0
    for other in range(m.per_tile):
        bit = mask >> other & 1
        channels += bit
        rank += bit if other < q else 0
    if m.checks:
        ready = view_u8(m.results_init_at + p * m.result_registers, m.result_registers)
        for i in range(count):
            if not ready[result + i]:
                stop(m, p, h, UNINITIALISED, PLACE_RESULT, result + i)
                return now
    size = 4 * m.banks
    low = register(m, p, h, o[1]) + address + rank * size
    if not local_range(m, p, h, low, size, channels * size, count, True, 4):
        return now
    base = local_base(m, p // m.per_tile)
    for i in range(count):
        for _ in range((size + m.column_bytes - 1) // m.column_bytes):
            now = start(m, p, h, dram.RDRES, 0, 0, result + i, now)
        if m.functional:
            target = view_f32(base + low + i * channels * size, m.banks)
            for bank in range(m.banks):
                cell = m.results_at + 4 * ((p * m.banks + bank) * m.result_registers + result + i)
                target[bank] = view_f32(cell, 1)[0]
    return now


@jit
def _burst(m: Record, p: int, h: Record, at: int, now: int, write: bool) -> int:
    """Columns of one bank's row to or from local memory; opens and closes the row unless the stream has it open."""
    o = view_i64(at, MAX_OPERANDS)
    row = _row(m, p, h, o[1], o[2])
    if row < 0:
        return now
    bank, column, count = o[3], o[4], o[5]
    if column + count > m.columns:
        stop(m, p, h, BAD_OPERAND, WHAT_COLUMNS, column + count)
        return now
    if bank >= m.banks:
        stop(m, p, h, OUT_OF_RANGE, PLACE_HBM, bank)
        return now
    if h.open_row >= 0 and h.open_row != row:
        stop(m, p, h, PROTOCOL, OWN + WHAT_OTHER_ROW, row)
        return now
    size = count * m.column_bytes
    low = register(m, p, h, o[6]) + (p % m.per_tile) * size
    if not local_range(m, p, h, low, size, 0, 1, not write, 2):
        return now
    bits = ((1 << count) - 1) << column
    columns = view_u32(m.column_init_at + 4 * (p * m.rows + row) * m.banks, m.banks)
    if m.checks:
        if not write and columns[bank] & bits != bits:
            m.error_address = row
            stop(m, p, h, UNINITIALISED, PLACE_HBM, bank)
            return now
        agent = m.first_pch + p
        row_access(m, p, row, bank, agent, -1, view_i32(agent_place(m, agent), m.agents), h.pc - 1, True, write)
    if write:
        columns[bank] |= np.uint32(bits)
        h.bytes_written += size
    else:
        h.bytes_read += size
    physical = physical_bank(m, bank)
    if h.open_row < 0:
        now = start(m, p, h, dram.ACT, physical, row, 0, now)
    closing = int(h.open_row < 0 and count > 0)
    now = start_run(m, p, h, dram.WR if write else dram.RD, physical, row, column, count - closing, now)
    if closing:
        now = start(m, p, h, dram.WRA if write else dram.RDA, physical, row, column + count - 1, now)
    if m.functional:
        cells = m.hbm_at + ((p * m.rows + row) * m.banks + bank) * m.row_bytes + column * m.column_bytes
        memory = local_base(m, p // m.per_tile) + low
        copy_bytes(memory if write else cells, cells if write else memory, size)
    h.turn = 1
    h.quota = 0
    return now


@jit
def command_rd(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Columns of a row to local memory."""
    return _burst(m, p, h, at, now, False)


@jit
def command_wr(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Columns of a row from local memory."""
    return _burst(m, p, h, at, now, True)


@jit
def command_ref(m: Record, p: int, h: Record, at: int, now: int) -> int:
    """Refresh all banks now; the next periodic refresh is an interval later."""
    if h.open_row >= 0:
        stop(m, p, h, PROTOCOL, OWN + WHAT_OPEN, h.open_row)
        return now
    now = start(m, p, h, dram.REF, 0, 0, 0, now)
    h.next_refresh += m.refresh_fs
    h.turn = 1
    return now
