"""Instructions on rows: partial sums, rotary embedding, weighted sums, transposition, the PIM and tensor units.

Each function takes the state ``m``, the core ``c`` and the instruction ``s`` with its operand values (``s.value`` in
assembly order), after all checks.  Orders of summation: docs/numerics.md.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim.engine.intrinsics import dot16, half_to_float
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.numbers import copy_bytes, half_at, load_half, local_base, put_half, store_half
from pimc.runtime_sim.engine.overflow import note
from pimc.runtime_sim.engine.records import K_BLOCK
from pimc.runtime_sim.engine.state import Record, core_of, view_f32, view_u8, view_u16

# Configuration registers (pimc.isa.sram_fields.CONFIG_REGISTERS); tests hold them to the table.
HEAD_DIM, ROWS, COLS, DEPTH, STRIDE_A, STRIDE_B, STRIDE_C, LANE, PARTS = range(9)
GROUP_BASE, GROUP_SIZE, PCH_MASK, PCH_STRIDE, MESSAGE_ROWS, MESSAGE_SRC_STRIDE, MESSAGE_DST_STRIDE = range(9, 16)
VECTOR_ROWS, VECTOR_STRIDES = 16, 17  # strides of dst, a, and b or s

_ZERO = np.float32(0.0)


@jit
def vredp(m: Record, c: int, s: Record) -> None:
    """HBM-PIM partial sums to fp16."""
    reduce_parts(m, c, s, s.value[0], s.value[1], -1, s.value[2])


@jit
def vredpb(m: Record, c: int, s: Record) -> None:
    """HBM-PIM partial sums and a bias to fp16."""
    reduce_parts(m, c, s, s.value[0], s.value[1], s.value[2], s.value[3])


@jit
def reduce_parts(m: Record, c: int, s: Record, dst: int, a: int, bias: int, n: int) -> None:
    """Parts in ascending order, then the bias (none at a negative address), one rounding."""
    base = local_base(m, c)
    parts = core_of(m, c).cfg[PARTS]
    lanes = m.banks
    groups = (n + lanes - 1) // lanes
    partial = view_f32(base + a, lanes * (groups * parts - 1) + n - lanes * (groups - 1))
    lost = 0
    for i in range(n):
        first = (i // lanes) * parts * lanes + i % lanes
        total = partial[first]
        for v in range(1, parts):
            total += partial[first + v * lanes]
        if bias >= 0:
            total += half_at(base + bias + 2 * i)
        lost += put_half(base + dst + 2 * i, total)
    note(m, c, s, lost)


@jit
def vrope(m: Record, c: int, s: Record) -> None:
    """Half-split rotary embedding of every head: two exact products, one fp32 addition, one rounding."""
    base = local_base(m, c)
    dim = core_of(m, c).cfg[HEAD_DIM]
    dst, a, table, n = s.value[0], s.value[1], s.value[2], s.value[3]
    half = dim // 2
    x = view_f32(m.scratch_a_at, n)
    t = view_f32(m.scratch_b_at, 2 * dim)
    load_half(base + a, x, n)
    load_half(base + table, t, 2 * dim)
    lost = 0
    for head in range(0, n, dim):
        for i in range(half):
            low, high = x[head + i], x[head + i + half]
            lost += put_half(base + dst + 2 * (head + i), low * t[i] - high * t[dim + i])
            lost += put_half(base + dst + 2 * (head + i + half), high * t[i + half] + low * t[dim + i + half])
    note(m, c, s, lost)


@jit
def vwsum(m: Record, c: int, s: Record) -> None:
    """Weighted sum of fp16 rows: every product rounded to fp32, rows ascending, one rounding at the end."""
    base = local_base(m, c)
    core = core_of(m, c)
    dst, a, weights, n = s.value[0], s.value[1], s.value[2], s.value[3]
    total = view_f32(m.scratch_a_at, n)
    row = view_f32(m.scratch_b_at, n)
    for j in range(n):
        total[j] = _ZERO
    for i in range(core.cfg[ROWS]):
        weight = view_f32(base + weights + 4 * i, 1)[0]
        load_half(base + a + i * core.cfg[STRIDE_A], row, n)
        for j in range(n):
            total[j] += weight * row[j]
    note(m, c, s, store_half(base + dst, total, n))


@jit
def trans(m: Record, c: int, s: Record) -> None:
    """dst[c][r] = a[r][c]."""
    base = local_base(m, c)
    core = core_of(m, c)
    rows, cols = core.cfg[ROWS], core.cfg[COLS]
    buffer = view_u16(m.scratch_a_at, rows * cols)
    for r in range(rows):
        source = view_u16(base + s.value[1] + r * core.cfg[STRIDE_A], cols)
        for k in range(cols):
            buffer[k * rows + r] = source[k]
    for k in range(cols):
        target = view_u16(base + s.value[0] + k * core.cfg[STRIDE_B], rows)
        for r in range(rows):
            target[r] = buffer[k * rows + r]


@jit
def pimld(m: Record, c: int, s: Record) -> None:
    """array[row + i][lane : lane + depth] = a[i]."""
    base = local_base(m, c)
    core = core_of(m, c)
    row, a, n = s.value[0], s.value[1], s.value[2]
    depth, lane = core.cfg[DEPTH], core.cfg[LANE]
    for i in range(n):
        at = (c * m.array_rows + row + i) * m.lanes + lane
        source = view_u16(base + a + i * core.cfg[STRIDE_A], depth)
        target = view_u16(m.array_at + 2 * at, depth)
        for j in range(depth):
            target[j] = source[j]


@jit
def _pim_rows(m: Record, c: int, s: Record, clear: bool, write: bool) -> None:
    """Dot products of the input with array rows: 16-lane trees, blocks ascending, into the accumulators."""
    base = local_base(m, c)
    depth = core_of(m, c).cfg[DEPTH]
    dst, x_at, row, n = s.value[0], s.value[1], s.value[2], s.value[3]
    full, rest = depth // 16, depth % 16
    x = view_f32(m.scratch_a_at, m.lanes)
    tail = view_u16(m.scratch_b_at, 16)
    for i in range(m.lanes):
        x[i] = _ZERO
    for i in range(16):
        tail[i] = 0
    load_half(base + x_at, x, depth)
    acc = view_f32(m.pim_acc_at + 4 * c * m.array_rows, m.array_rows)
    for i in range(n):
        at = m.array_at + 2 * (c * m.array_rows + row + i) * m.lanes
        total = _ZERO if clear else acc[i]
        for block in range(full):
            total += dot16(at + 32 * block, m.scratch_a_at + 64 * block)
        if rest:
            last = view_u16(at + 32 * full, rest)
            for j in range(rest):
                tail[j] = last[j]
            total += dot16(m.scratch_b_at, m.scratch_a_at + 64 * full)
        acc[i] = total
    if write:
        note(m, c, s, store_half(base + dst, acc, n))


@inline
def pimmv_a(m: Record, c: int, s: Record) -> None:
    """Accumulate."""
    _pim_rows(m, c, s, False, False)


@inline
def pimmv_c(m: Record, c: int, s: Record) -> None:
    """Clear, accumulate."""
    _pim_rows(m, c, s, True, False)


@inline
def pimmv_aw(m: Record, c: int, s: Record) -> None:
    """Accumulate, write back."""
    _pim_rows(m, c, s, False, True)


@inline
def pimmv_cw(m: Record, c: int, s: Record) -> None:
    """Clear, accumulate, write back."""
    _pim_rows(m, c, s, True, True)


@jit
def _load_tile(m: Record, address: int, stride: int, k0: int, steps: int, columns: int, by_column: bool) -> None:
    """B[k0 : k0 + steps][0 : columns] as float32 [steps][tcu_columns] in scratch_b; rows or columns are stored."""
    width = m.tcu_columns
    tile = view_f32(m.scratch_b_at, steps * width)
    if by_column:
        for n in range(columns):
            source = view_u16(address + n * stride + 2 * k0, steps)
            for k in range(steps):
                tile[k * width + n] = half_to_float(source[k])
    else:
        for k in range(steps):
            source = view_u16(address + (k0 + k) * stride, columns)
            for n in range(columns):
                tile[k * width + n] = half_to_float(source[n])


@jit
def _multiply(m: Record, c: int, s: Record, clear: bool, by_column: bool) -> None:
    """acc[m][n] += A[m][k] * B[k][n] for ascending k."""
    base = local_base(m, c)
    core = core_of(m, c)
    rows, columns, depth = core.cfg[ROWS], core.cfg[COLS], core.cfg[DEPTH]
    width = m.tcu_columns
    size = m.tcu_rows * width
    if clear:
        cells = view_f32(m.tcu_acc_at + 4 * c * size, size)
        for i in range(size):
            cells[i] = _ZERO
    if rows == 0 or columns == 0:
        return
    a = view_f32(m.scratch_a_at, K_BLOCK)
    for k0 in range(0, depth, K_BLOCK):
        steps = min(K_BLOCK, depth - k0)
        _load_tile(m, base + s.value[1], core.cfg[STRIDE_B], k0, steps, columns, by_column)
        for i in range(rows):
            acc = view_f32(m.tcu_acc_at + 4 * (c * size + i * width), columns)
            load_half(base + s.value[0] + i * core.cfg[STRIDE_A] + 2 * k0, a, steps)
            for k in range(steps):
                left = a[k]
                right = view_f32(m.scratch_b_at + 4 * k * width, columns)
                for n in range(columns):
                    acc[n] += left * right[n]


@inline
def tmm_nk(m: Record, c: int, s: Record) -> None:
    """B stored by output columns."""
    _multiply(m, c, s, False, True)


@inline
def tmm_kn(m: Record, c: int, s: Record) -> None:
    """B stored by rows of k."""
    _multiply(m, c, s, False, False)


@inline
def tmmc_nk(m: Record, c: int, s: Record) -> None:
    """As tmm.nk after clearing."""
    _multiply(m, c, s, True, True)


@inline
def tmmc_kn(m: Record, c: int, s: Record) -> None:
    """As tmm.kn after clearing."""
    _multiply(m, c, s, True, False)


@jit
def twb(m: Record, c: int, s: Record) -> None:
    """Round the accumulators to fp16 rows."""
    base = local_base(m, c)
    core = core_of(m, c)
    size = m.tcu_rows * m.tcu_columns
    lost = 0
    for i in range(core.cfg[ROWS]):
        acc = view_f32(m.tcu_acc_at + 4 * (c * size + i * m.tcu_columns), core.cfg[COLS])
        lost += store_half(base + s.value[0] + i * core.cfg[STRIDE_C], acc, core.cfg[COLS])
    note(m, c, s, lost)


@jit
def _accumulators(m: Record, c: int, s: Record, load: bool) -> None:
    """Copy fp32 rows to or from the accumulators."""
    base = local_base(m, c)
    core = core_of(m, c)
    size = m.tcu_rows * m.tcu_columns
    columns = core.cfg[COLS]
    for i in range(core.cfg[ROWS]):
        acc = m.tcu_acc_at + 4 * (c * size + i * m.tcu_columns)
        row = base + s.value[0] + i * core.cfg[STRIDE_C]
        copy_bytes(row if load else acc, acc if load else row, 4 * columns)


@inline
def twb_f(m: Record, c: int, s: Record) -> None:
    """The accumulators as fp32 rows."""
    _accumulators(m, c, s, False)


@inline
def tld_f(m: Record, c: int, s: Record) -> None:
    """Accumulators from fp32 rows."""
    _accumulators(m, c, s, True)


@jit
def mark(address: int, count: int) -> None:
    """Mark ``count`` cells as initialised."""
    cells = view_u8(address, count)
    for i in range(count):
        cells[i] = 1
