"""What an instruction of a core will touch, and how much work it is: its ranges and operand checks.

Every function takes the state ``m``, the core's number ``c`` and record ``core``, and the instruction ``s`` with its
operand values; it adds ranges and sets ``s.work``.  ``source`` and ``target`` are element sizes in bytes.  Ranges are
checked against the memories here, so that nothing later can leave them.
"""

from __future__ import annotations

from pimc.runtime_sim.engine.errors import (
    BAD_OPERAND,
    MISALIGNED,
    OUT_OF_RANGE,
    PLACE_ARRAY,
    PLACE_HBM,
    PLACE_LOCAL,
    STREAM_CORE,
    WHAT_COLUMNS,
    WHAT_CORE,
    WHAT_DEPTH,
    WHAT_HEAD_DIM,
    WHAT_LANE,
    WHAT_MASK,
    WHAT_NEGATIVE,
    WHAT_PARTS,
    WHAT_ROWS,
    WHAT_TCU,
    WHAT_WORK,
    fail,
)
from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.records import BYTES_LIMIT, MACS_LIMIT, ROWS_LIMIT
from pimc.runtime_sim.engine.scoreboard import overlap
from pimc.runtime_sim.engine.semantics_matrix import (
    COLS,
    DEPTH,
    GROUP_BASE,
    GROUP_SIZE,
    HEAD_DIM,
    LANE,
    MESSAGE_DST_STRIDE,
    MESSAGE_ROWS,
    MESSAGE_SRC_STRIDE,
    PARTS,
    PCH_MASK,
    PCH_STRIDE,
    ROWS,
    STRIDE_A,
    STRIDE_B,
    STRIDE_C,
)
from pimc.runtime_sim.engine.state import ACCUMULATE, ACCUMULATOR, ARRAY, HBM, LOCAL, READ, WRITE, Record


@jit
def bad(m: Record, c: int, s: Record, what: int, value: int) -> None:
    """Refuse an operand."""
    fail(m, BAD_OPERAND, STREAM_CORE, c, s.pc, what, value)


@jit
def add_range(
    m: Record, c: int, s: Record, space: int, mode: int, low: int, size: int, stride: int, rows: int, align: int
) -> None:
    """Add a range after checking it; an empty one is left out."""
    if size < 0 or rows < 0 or stride < 0:
        bad(m, c, s, WHAT_NEGATIVE, min(size, rows, stride))
        return
    if size == 0 or rows == 0:
        return
    limit, place = m.local_bytes, PLACE_LOCAL
    if space == ARRAY:
        limit, place = m.array_rows, PLACE_ARRAY
    elif space == HBM:
        limit, place = m.rows * m.banks * m.per_tile * m.row_bytes, PLACE_HBM
    elif space == ACCUMULATOR:
        limit = 1
    end = low + (rows - 1) * stride + size
    if low < 0 or end > limit:
        m.error_address = low
        fail(m, OUT_OF_RANGE, STREAM_CORE, c, s.pc, place, low if low < 0 else end)
        return
    if (low | (stride if rows > 1 else 0)) % align:
        fail(m, MISALIGNED, STREAM_CORE, c, s.pc, place, low if low % align else stride)
        return
    if rows > ROWS_LIMIT or size * rows > BYTES_LIMIT:
        bad(m, c, s, WHAT_WORK, rows)
        return
    m.effort += size * rows + 16 * rows
    k = s.ranges
    s.space[k], s.mode[k], s.low[k], s.size[k], s.stride[k], s.rows[k] = space, mode, low, size, stride, rows
    s.ranges = k + 1


@jit
def writes(s: Record) -> bool:
    """Whether an instruction changes memory or accumulators that the scoreboard knows, however little work it is."""
    found = False
    for i in range(s.ranges):
        found |= s.mode[i] != READ
    return found


@inline
def local(m: Record, c: int, s: Record, mode: int, low: int, size: int, align: int) -> None:
    """A run of local memory."""
    add_range(m, c, s, LOCAL, mode, low, size, 0, 1, align)


@jit
def operand(m: Record, c: int, s: Record, mode: int, k: int, size: int, align: int) -> None:
    """Operand ``k`` of a vector instruction: ``size`` bytes in each of its rows."""
    low, step, rows = s.value[k], s.step[k], s.repeat
    s.down[s.ranges] = 1 if step < 0 else 0
    if rows <= 1:
        add_range(m, c, s, LOCAL, mode, low, size, 0, rows, align)
        return
    if size > 0 and (rows > ROWS_LIMIT or size * rows > BYTES_LIMIT):
        bad(m, c, s, WHAT_WORK, rows)
    elif mode == WRITE and abs(step) < size:
        bad(m, c, s, WHAT_ROWS, step)
    elif step == 0:
        m.effort += max(size, 0) * rows
        add_range(m, c, s, LOCAL, mode, low, size, 0, 1, align)
    else:
        add_range(m, c, s, LOCAL, mode, low + min((rows - 1) * step, 0), size, abs(step), rows, align)


@inline
def _same_rows(s: Record, w: int, r: int) -> bool:
    """Whether the rows of two ranges go together and a row of one meets at most the same row of the other."""
    if s.rows[w] != s.rows[r] or s.stride[w] != s.stride[r] or s.down[w] != s.down[r]:
        return False
    distance = s.low[r] - s.low[w]
    return distance + s.size[r] <= s.stride[w] and s.size[w] - distance <= s.stride[w]


@jit
def check_rows(m: Record, c: int, s: Record) -> None:
    """Refuse an instruction with a row of the destination that meets another row of a source.

    Rows are in flight together, so that the result would depend on the pipeline. An instruction without elements does
    nothing, however many rows it has.
    """
    if s.ranges == 0:
        s.repeat = 0
    for w in range(s.ranges):
        for r in range(s.ranges):
            if s.mode[w] == WRITE and s.mode[r] == READ and not _same_rows(s, w, r):
                m.effort += min(s.rows[w], s.rows[r])
                if overlap(s, w, s, r):
                    bad(m, c, s, WHAT_ROWS, s.low[r])
                    return


@jit
def describe_binary(m: Record, c: int, s: Record, source: int, target: int) -> None:
    """(dst, a, b, n): two source vectors."""
    n = s.value[3]
    operand(m, c, s, READ, 1, n * source, source)
    operand(m, c, s, READ, 2, n * source, source)
    operand(m, c, s, WRITE, 0, n * target, target)
    s.work = n


@jit
def describe_scalar_operand(m: Record, c: int, s: Record, source: int, target: int) -> None:
    """(dst, a, s, n): a vector and an fp32 scalar."""
    n = s.value[3]
    operand(m, c, s, READ, 1, n * source, source)
    operand(m, c, s, READ, 2, 4 if n else 0, 4)
    operand(m, c, s, WRITE, 0, n * target, target)
    s.work = n


@jit
def describe_fill(m: Record, c: int, s: Record, target: int) -> None:
    """(dst, -, s, n): an fp32 scalar."""
    n = s.value[3]
    operand(m, c, s, READ, 2, 4 if n else 0, 4)
    operand(m, c, s, WRITE, 0, n * target, target)
    s.work = n


@jit
def describe_unary(m: Record, c: int, s: Record, source: int, target: int) -> None:
    """(dst, a, n): one source vector."""
    n = s.value[2]
    operand(m, c, s, READ, 1, n * source, source)
    operand(m, c, s, WRITE, 0, n * target, target)
    s.work = n


@jit
def describe_reduction(m: Record, c: int, s: Record, source: int) -> None:
    """(dst, a, n): a source vector, an fp32 result."""
    n = s.value[2]
    operand(m, c, s, READ, 1, n * source, source)
    operand(m, c, s, WRITE, 0, 4, 4)
    s.work = n


@jit
def describe_select(m: Record, c: int, s: Record, size: int) -> None:
    """(dst, a, b, n): elements of ``size`` bytes and fp16 conditions; what is not selected stays, so dst is read."""
    n = s.value[3]
    operand(m, c, s, READ, 1, n * size, size)
    operand(m, c, s, READ, 2, n * 2, 2)
    operand(m, c, s, READ, 0, n * size, size)
    operand(m, c, s, WRITE, 0, n * size, size)
    s.work = n


@jit
def _apart(m: Record, c: int, s: Record, mode: int, low: int, size: int, stride: int, n: int) -> None:
    """``n`` elements of ``size`` bytes from ``low`` on, ``stride`` bytes apart: zero and negative too."""
    if stride % size:
        fail(m, MISALIGNED, STREAM_CORE, c, s.pc, PLACE_LOCAL, stride)
        return
    first = low + (n - 1) * stride if stride < 0 else low
    add_range(m, c, s, LOCAL, mode, first, size, abs(stride), n if stride else min(n, 1), size)


@jit
def describe_strided(m: Record, c: int, core: Record, s: Record, size: int) -> None:
    """(dst, a, n): elements at strides."""
    n = s.value[2]
    if n < 0 or n * size > m.local_bytes:  # strides of zero would allow any number
        bad(m, c, s, WHAT_NEGATIVE, n)
        return
    _apart(m, c, s, READ, s.value[1], size, core.cfg[STRIDE_A], n)
    _apart(m, c, s, WRITE, s.value[0], size, core.cfg[STRIDE_B], n)
    s.work = n


@jit
def describe_vredp(m: Record, c: int, core: Record, s: Record, biased: bool) -> None:
    """(dst, a, n) or (dst, a, b, n): partial sums of HBM-PIM, with a bias ``b``."""
    n, parts = s.value[3 if biased else 2], core.cfg[PARTS]
    if parts < 1:
        bad(m, c, s, WHAT_PARTS, parts)
        return
    lanes = m.banks
    groups = (n + lanes - 1) // lanes
    size = 4 * (lanes * (groups * parts - 1) + n - lanes * (groups - 1)) if n > 0 else n
    operand(m, c, s, READ, 1, size, 4)
    if biased:
        operand(m, c, s, READ, 2, 2 * n, 2)
    operand(m, c, s, WRITE, 0, 2 * n, 2)
    s.work = n * parts


@jit
def describe_vrope(m: Record, c: int, core: Record, s: Record) -> None:
    """(dst, a, table, n)."""
    n, dim = s.value[3], core.cfg[HEAD_DIM]
    if dim <= 0 or dim % 2 or n % dim:
        bad(m, c, s, WHAT_HEAD_DIM, dim)
        return
    operand(m, c, s, READ, 1, 2 * n, 2)
    operand(m, c, s, READ, 2, 4 * dim if n else 0, 2)
    operand(m, c, s, WRITE, 0, 2 * n, 2)
    s.work = n


@jit
def describe_vwsum(m: Record, c: int, core: Record, s: Record) -> None:
    """(dst, a, weights, n): rows of fp16."""
    n, rows = s.value[3], core.cfg[ROWS]
    add_range(m, c, s, LOCAL, READ, s.value[1], 2 * n, core.cfg[STRIDE_A], rows, 2)
    local(m, c, s, READ, s.value[2], 4 * rows if n else 0, 4)
    local(m, c, s, WRITE, s.value[0], 2 * n, 2)
    s.work = n * rows


@jit
def describe_trans(m: Record, c: int, core: Record, s: Record) -> None:
    """(dst, a)."""
    rows, cols = core.cfg[ROWS], core.cfg[COLS]
    if rows * cols * 2 > m.local_bytes:  # the source rows may overlap; the destination cannot
        bad(m, c, s, WHAT_NEGATIVE, rows)
        return
    add_range(m, c, s, LOCAL, READ, s.value[1], 2 * cols, core.cfg[STRIDE_A], rows, 2)
    add_range(m, c, s, LOCAL, WRITE, s.value[0], 2 * rows, core.cfg[STRIDE_B], cols, 2)
    s.work = rows * cols


@jit
def describe_pimld(m: Record, c: int, core: Record, s: Record) -> None:
    """(row, a, n): fp16 rows into the PIM array."""
    n, depth, lane = s.value[2], core.cfg[DEPTH], core.cfg[LANE]
    if lane < 0 or depth < 0 or lane + depth > m.lanes:
        bad(m, c, s, WHAT_LANE, lane + depth)
        return
    add_range(m, c, s, LOCAL, READ, s.value[1], 2 * depth, core.cfg[STRIDE_A], n, 2)
    add_range(m, c, s, ARRAY, WRITE, s.value[0], n if depth else 0, 0, 1, 1)
    s.work = 2 * n * depth


@jit
def describe_pimmv(m: Record, c: int, core: Record, s: Record, write: bool) -> None:
    """(dst, x, row, n): a vector times array rows."""
    n, depth = s.value[3], core.cfg[DEPTH]
    if depth < 0 or depth > m.lanes:
        bad(m, c, s, WHAT_DEPTH, depth)
        return
    local(m, c, s, READ, s.value[1], 2 * depth if n else 0, 2)
    add_range(m, c, s, ARRAY, READ, s.value[2], n, 0, 1, 1)
    m.effort += n * depth // 2 + m.lanes
    if write:
        local(m, c, s, WRITE, s.value[0], 2 * n, 2)
    s.work = n


@jit
def describe_tmm(m: Record, c: int, core: Record, s: Record, by_column: bool) -> None:
    """(a, b): tiles of A and B into the accumulators."""
    rows, cols, depth = core.cfg[ROWS], core.cfg[COLS], core.cfg[DEPTH]
    if rows < 0 or cols < 0 or depth < 0 or rows > m.tcu_rows or cols > m.tcu_columns:
        bad(m, c, s, WHAT_TCU, rows if rows > m.tcu_rows else cols)
        return
    empty = rows == 0 or cols == 0
    if not empty and depth > MACS_LIMIT // (rows * cols):
        bad(m, c, s, WHAT_WORK, depth)
        return
    m.effort += m.tcu_rows * m.tcu_columns + rows * cols * depth // 8
    add_range(m, c, s, LOCAL, READ, s.value[0], 0 if empty else 2 * depth, core.cfg[STRIDE_A], rows, 2)
    if by_column:
        add_range(m, c, s, LOCAL, READ, s.value[1], 0 if empty else 2 * depth, core.cfg[STRIDE_B], cols, 2)
    else:
        add_range(m, c, s, LOCAL, READ, s.value[1], 0 if empty else 2 * cols, core.cfg[STRIDE_B], depth, 2)
    add_range(m, c, s, ACCUMULATOR, ACCUMULATE, 0, 1, 0, 1, 1)
    if empty:  # nothing to accumulate, whatever the depth is
        depth = 0
    s.work = ((rows + m.tcu_rows - 1) // m.tcu_rows) * ((cols + m.tcu_columns - 1) // m.tcu_columns) * depth


@jit
def describe_accumulators(m: Record, c: int, core: Record, s: Record, size: int, load: bool) -> None:
    """(dst) or (src): accumulators to or from rows of elements of ``size`` bytes."""
    rows, cols = core.cfg[ROWS], core.cfg[COLS]
    if rows < 0 or cols < 0 or rows > m.tcu_rows or cols > m.tcu_columns:
        bad(m, c, s, WHAT_TCU, rows if rows > m.tcu_rows else cols)
        return
    add_range(m, c, s, ACCUMULATOR, WRITE if load else READ, 0, 1, 0, 1, 1)
    add_range(m, c, s, LOCAL, READ if load else WRITE, s.value[0], size * cols, core.cfg[STRIDE_C], rows, size)
    s.work = rows * cols


@jit
def describe_transfer(m: Record, c: int, s: Record, at: int, address: int, n: int, write: bool) -> None:
    """A linear transfer of n bytes between local ``at`` and HBM ``address``; ``write``: to HBM."""
    local(m, c, s, READ if write else WRITE, at, n, 2)
    if n % 2:
        fail(m, MISALIGNED, STREAM_CORE, c, s.pc, PLACE_LOCAL, n)
        return
    add_range(m, c, s, HBM, WRITE if write else READ, address, n, 0, 1, m.column_bytes)
    s.work = n


@jit
def describe_hrdb(m: Record, c: int, core: Record, s: Record) -> None:
    """(dst, row, column, n): the same columns of several pseudo-channels."""
    mask, n = core.cfg[PCH_MASK], s.value[3]
    bank, column = s.value[2] // m.columns, s.value[2] % m.columns
    if mask <= 0 or mask >> m.per_tile:
        bad(m, c, s, WHAT_MASK, mask)
        return
    if n < 0 or s.value[2] < 0 or column + n > m.columns or bank >= m.banks:
        bad(m, c, s, WHAT_COLUMNS, n)
        return
    channels = 0
    for q in range(m.per_tile):
        channels += mask >> q & 1
    size = n * m.column_bytes
    add_range(m, c, s, LOCAL, WRITE, s.value[0], size, core.cfg[PCH_STRIDE], channels, 2)
    low = (s.value[1] * m.banks + bank) * m.per_tile * m.row_bytes + column * m.column_bytes
    add_range(m, c, s, HBM, READ, low, size, m.row_bytes, m.per_tile, m.column_bytes)
    s.work = size * channels


@jit
def describe_message(m: Record, c: int, core: Record, s: Record, multicast: bool, strided: bool) -> None:
    """(dst, src, n, [core], sem); the receiving cores become values 6 (first) and 7 (number), rows value 5."""
    n = s.value[2]
    rows = (core.cfg[MESSAGE_ROWS] if strided else 1) if n else 0
    first, number = (core.cfg[GROUP_BASE], core.cfg[GROUP_SIZE]) if multicast else (s.value[3], 1)
    if not multicast:
        s.value[3] = s.value[4]
    if first < 0 or number < 1 or first + number > m.cores:
        bad(m, c, s, WHAT_CORE, first)
        return
    if n % 2:
        fail(m, MISALIGNED, STREAM_CORE, c, s.pc, PLACE_LOCAL, n)
        return
    # the range at the receivers is checked here and then dropped: it is not this core's memory
    add_range(m, c, s, LOCAL, WRITE, s.value[0], n, core.cfg[MESSAGE_DST_STRIDE] if strided else 0, rows, 2)
    s.ranges = 0
    add_range(m, c, s, LOCAL, READ, s.value[1], n, core.cfg[MESSAGE_SRC_STRIDE] if strided else 0, rows, 2)
    s.value[5], s.value[6], s.value[7] = rows, first, number
    s.work = n * rows
    if s.work > m.local_bytes:
        bad(m, c, s, WHAT_NEGATIVE, s.work)
