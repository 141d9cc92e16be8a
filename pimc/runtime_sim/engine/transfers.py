"""HBM transfers of the cores: requests, how a controller serves them, completion.

A request of a core is split over the controllers of its tile; each serves its pieces (at most a row of one bank) in
order, up to WINDOW of them open at once, column by column whichever may go first, and closes a row with its last
column.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim import dram
from pimc.runtime_sim.engine.checks import local_access, row_access
from pimc.runtime_sim.engine.errors import PLACE_HBM, STREAM_CORE, UNINITIALISED, fail
from pimc.runtime_sim.engine.heap import push
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.memory_port import (
    cadence,
    done_after,
    earliest,
    last_of_run,
    physical_bank,
    start,
    start_run,
)
from pimc.runtime_sim.engine.numbers import copy_bytes, local_base
from pimc.runtime_sim.engine.records import FLIGHTS, WINDOW
from pimc.runtime_sim.engine.signals import wake_core, wake_pch
from pimc.runtime_sim.engine.state import (
    EVENT_TRANSFER,
    PENDING,
    WAIT_TRANSFER,
    Record,
    clock_place,
    core_of,
    flight_of,
    pch_of,
    request_of,
    view_i32,
    view_i64,
    view_u32,
)


@jit
def _enqueue(m: Record, p: int, c: int, slot: int, write: bool, low: int, high: int, local: int, block: int) -> None:
    """Append a request; ``local`` is the local address of linear byte ``low``, ``block`` its first row-sized block."""
    h = pch_of(m, p)
    r = request_of(m, p, h.queue_head + h.queue_size)
    h.queue_size += 1
    r.write, r.low, r.high, r.local, r.core, r.flight, r.block = int(write), low, high, local, c, slot, block
    flight_of(m, c, slot).pending += 1
    wake_pch(m, p)


@jit
def request_linear(m: Record, c: int, slot: int, local: int, address: int, n: int, write: bool) -> None:
    """Queue a linear transfer of n bytes at the controllers that hold parts of it."""
    first = address // m.row_bytes
    last = (address + n - 1) // m.row_bytes
    for block in range(first, min(last, first + m.per_tile - 1) + 1):
        p = c * m.per_tile + block % m.per_tile
        _enqueue(m, p, c, slot, write, address, address + n, local, block)


@jit
def request_columns(
    m: Record, c: int, slot: int, local: int, row: int, column: int, n: int, mask: int, stride: int
) -> None:
    """Queue a read of n columns (``column``: bank * columns + first) of the pseudo-channels of ``mask``."""
    bank = column // m.columns
    rank = 0
    for q in range(m.per_tile):
        if mask >> q & 1:
            block = (row * m.banks + bank) * m.per_tile + q
            low = block * m.row_bytes + column % m.columns * m.column_bytes
            high = low + n * m.column_bytes
            _enqueue(m, c * m.per_tile + q, c, slot, False, low, high, local + rank * stride, block)
            rank += 1


@jit
def _open_piece(m: Record, p: int, h: Record, now: int) -> bool:
    """Open the next piece of the queue; False if its bank is busy with another piece."""
    r = request_of(m, p, h.queue_head)
    unit = r.block // m.per_tile
    bank, row = unit % m.banks, unit // m.banks
    free = 0
    for i in range(WINDOW):
        if not h.w_active[i]:
            free = i
        elif h.w_bank[i] == bank:
            return False
    start_of = r.block * m.row_bytes
    low, high = max(r.low, start_of), min(r.high, start_of + m.row_bytes)
    start(m, p, h, dram.ACT, physical_bank(m, bank), row, 0, now)
    first = (low - start_of) // m.column_bytes
    h.w_active[free] = 1
    h.w_bank[free], h.w_row[free], h.w_column[free] = bank, row, first
    h.w_left[free] = (high - start_of + m.column_bytes - 1) // m.column_bytes - first
    h.w_low[free], h.w_high[free] = low - start_of, high - start_of
    h.w_local[free] = r.local + low - r.low
    h.w_write[free], h.w_core[free], h.w_flight[free] = r.write, r.core, r.flight
    r.block += m.per_tile
    h.w_last[free] = int(r.block * m.row_bytes >= r.high)
    if h.w_last[free]:
        h.queue_head += 1
        h.queue_size -= 1
    h.window += 1
    h.quota += 1
    return True


@jit
def _check_piece(m: Record, p: int, h: Record, i: int, columns: int) -> None:
    """Initialisation and races of a piece; the access is the DMA engine's, with its clock at dispatch."""
    c, slot = h.w_core[i], h.w_flight[i]
    f = flight_of(m, c, slot)
    agent = m.first_dma + c
    clock = view_i32(clock_place(m.flight_clock_at, m, c * FLIGHTS + slot), m.agents)
    bits = ((1 << columns) - 1) << (h.w_low[i] // m.column_bytes)
    ready = view_u32(m.column_init_at + 4 * ((p * m.rows + h.w_row[i]) * m.banks + h.w_bank[i]), 1)
    if not h.w_write[i] and ready[0] & bits != bits:
        m.error_address = h.w_row[i]
        fail(m, UNINITIALISED, STREAM_CORE, c, f.pc, PLACE_HBM, h.w_bank[i])
        return
    row_access(m, p, h.w_row[i], h.w_bank[i], agent, c, clock, f.pc, False, h.w_write[i] != 0)
    size = h.w_high[i] - h.w_low[i]
    local_access(m, c, 1, agent, c, clock, f.pc, h.w_local[i], size, 0, 1, h.w_write[i] == 0)


@jit
def _finish_piece(m: Record, p: int, h: Record, i: int, time: int) -> None:
    """Move the data of a piece whose last column was issued at ``time``."""
    size = h.w_high[i] - h.w_low[i]
    columns = (h.w_high[i] + m.column_bytes - 1) // m.column_bytes - h.w_low[i] // m.column_bytes
    if m.checks:
        _check_piece(m, p, h, i, columns)
    ready = view_u32(m.column_init_at + 4 * ((p * m.rows + h.w_row[i]) * m.banks + h.w_bank[i]), 1)
    memory = local_base(m, h.w_core[i]) + h.w_local[i]
    cells = m.hbm_at + ((p * m.rows + h.w_row[i]) * m.banks + h.w_bank[i]) * m.row_bytes + h.w_low[i]
    if h.w_write[i]:
        ready[0] |= np.uint32(((1 << columns) - 1) << (h.w_low[i] // m.column_bytes))
        h.bytes_written += size
        if m.functional:
            copy_bytes(memory, cells, size)
    else:
        h.bytes_read += size
        if m.functional:
            copy_bytes(cells, memory, size)
    if h.w_last[i]:
        done = done_after(m, dram.WR if h.w_write[i] else dram.RD)
        delay = view_i64(m.latency_pipeline_at, 1 + m.transfer_latency)[m.transfer_latency] * m.period
        push(m, time + done + delay, EVENT_TRANSFER, h.w_core[i] * FLIGHTS + h.w_flight[i])
    h.w_active[i] = 0
    h.window -= 1


@inline
def _command(h: Record, i: int) -> int:
    """The next column command of an open piece: the last one closes the row."""
    if h.w_left[i] == 1:
        return dram.WRA if h.w_write[i] else dram.RDA
    return dram.WR if h.w_write[i] else dram.RD


@jit
def _next_columns(m: Record, p: int, h: Record, now: int) -> tuple[int, int]:
    """The open piece whose next column can go first, and how many of its columns certainly go before any other's.

    The last column of a piece, which closes its row, is not among several.
    """
    best, best_time, rival_time = 0, PENDING, PENDING
    for i in range(WINDOW):
        if h.w_active[i]:
            if h.window == 1:
                return i, max(1, h.w_left[i] - 1)
            time = earliest(m, p, _command(h, i), physical_bank(m, h.w_bank[i]), now)
            if time < best_time:
                rival_time = best_time
                best, best_time = i, time
            elif time < rival_time:
                rival_time = time
    # A rival's time only grows while others' columns are issued.
    step = cadence(m, _command(h, best))
    return best, max(1, min(h.w_left[best] - 1, (rival_time - best_time + step - 1) // step))


@jit
def _columns(m: Record, p: int, h: Record, i: int, count: int, now: int) -> int:
    """Issue the next columns of an open piece; returns the time of the last."""
    now = start_run(m, p, h, _command(h, i), physical_bank(m, h.w_bank[i]), h.w_row[i], h.w_column[i], count, now)
    h.w_column[i] += count
    h.w_left[i] -= count
    return now


@jit
def _columns_at(m: Record, p: int, h: Record, i: int, count: int, time: int) -> None:
    """Columns of an open piece of which the last is known to be issued at ``time``."""
    last_of_run(m, p, h, _command(h, i), physical_bank(m, h.w_bank[i]), count, time)
    h.w_column[i] += count
    h.w_left[i] -= count


@jit
def serve(m: Record, p: int, h: Record, now: int, admit: bool) -> int:
    """Serve transfers until a piece has been read or written; returns the time of its last column.

    Two pieces that take turns at equal distances go on so: behind four columns a, b, a, b all that the next ones depend
    on has moved by the distance of the two a, if that of the two b is the same.
    """
    while admit and h.window < WINDOW and h.queue_size > 0:
        if not _open_piece(m, p, h, now):
            break
    if m.error or h.window == 0:
        return now
    first, second, third = -1, -1, -1  # the pieces of the last three columns, and the times
    first_time, second_time, third_time = now, now, now
    while not m.error:
        i, count = _next_columns(m, p, h, now)
        now = _columns(m, p, h, i, count, now)
        if h.w_left[i] == 0:
            _finish_piece(m, p, h, i, now)
            break
        if count > 1:
            first, second, third = -1, -1, -1
            continue
        distance = now - second_time
        if first == third and second == i and first != second and first >= 0 and third_time - first_time == distance:
            turns = min(h.w_left[third], h.w_left[i]) - 1
            if turns > 0 and not m.tracing:
                _columns_at(m, p, h, third, turns, third_time + turns * distance)
                now += turns * distance
                _columns_at(m, p, h, i, turns, now)
                first, second, third = -1, -1, -1
                continue
        first, first_time, second, second_time = second, second_time, third, third_time
        third, third_time = i, now
    return now


@jit
def arrived(m: Record, c: int, slot: int) -> None:
    """All of one controller's part of a transfer is there; transfers of a core retire in order."""
    core = core_of(m, c)
    flight_of(m, c, slot).pending -= 1
    retired = True
    while retired:
        retired = False
        for other in range(FLIGHTS):
            f = flight_of(m, c, other)
            if f.active and f.finish == PENDING and f.pending == 0 and f.order == core.dma_oldest:
                f.active = 0
                f.finish = m.time
                core.dma_oldest += 1
                core.outstanding -= 1
                retired = True
    wake_core(m, c, WAIT_TRANSFER)
