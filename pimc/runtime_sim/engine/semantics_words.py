"""Vector instructions that move, select, index or count: 16- or 32-bit elements as they are, and 32-bit integers.

Each function takes the state ``m``, the core ``c`` and the instruction ``s`` with its operand values (``s.value`` in
assembly order), after all checks.  Sources are read as a whole before anything is written.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.numbers import copy_bytes, load_float, load_half, local_base
from pimc.runtime_sim.engine.semantics_matrix import STRIDE_A, STRIDE_B
from pimc.runtime_sim.engine.state import (
    FloatArray,
    Record,
    core_of,
    view_f32,
    view_i32,
    view_u8,
    view_u16,
)

#: fp16 of 1.0.
_ONE = np.uint16(0x3C00)
_ZERO = np.float32(0.0)
_LEAST, _GREATEST = -(2**31), 2**31 - 1


@inline
def strided16(m: Record, c: int, s: Record) -> None:
    """Copy 16-bit elements."""
    _strided(m, c, s, 2)


@inline
def strided32(m: Record, c: int, s: Record) -> None:
    """Copy 32-bit elements."""
    _strided(m, c, s, 4)


@jit
def _strided(m: Record, c: int, s: Record, size: int) -> None:
    """Copy elements ``stride_a`` bytes apart to places ``stride_b`` bytes apart."""
    base, core = local_base(m, c), core_of(m, c)
    n = s.value[2]
    held = view_u8(m.scratch_a_at, n * size)
    for i in range(n):
        source = view_u8(base + s.value[1] + i * core.cfg[STRIDE_A], size)
        for k in range(size):
            held[i * size + k] = source[k]
    for i in range(n):
        target = view_u8(base + s.value[0] + i * core.cfg[STRIDE_B], size)
        for k in range(size):
            target[k] = held[i * size + k]


@jit
def select16(m: Record, c: int, s: Record) -> None:
    """Copy the 16-bit elements whose condition holds."""
    base, n = local_base(m, c), s.value[3]
    held, conditions, target = view_u16(m.scratch_a_at, n), view_f32(m.scratch_b_at, n), view_u16(base + s.value[0], n)
    load_half(base + s.value[2], conditions, n)
    copy_bytes(base + s.value[1], m.scratch_a_at, 2 * n)
    for i in range(n):
        if conditions[i] != _ZERO:
            target[i] = held[i]


@jit
def select32(m: Record, c: int, s: Record) -> None:
    """Copy the 32-bit elements whose condition holds."""
    base, n = local_base(m, c), s.value[3]
    held, conditions, target = view_i32(m.scratch_a_at, n), view_f32(m.scratch_b_at, n), view_i32(base + s.value[0], n)
    load_half(base + s.value[2], conditions, n)
    copy_bytes(base + s.value[1], m.scratch_a_at, 4 * n)
    for i in range(n):
        if conditions[i] != _ZERO:
            target[i] = held[i]


@jit
def _store_argmax(m: Record, c: int, s: Record, x: FloatArray) -> None:
    """Index of the first largest element, or of the first NaN."""
    best = 0
    for i in range(1, s.value[2]):
        if x[best] == x[best] and (x[i] > x[best] or x[i] != x[i]):
            best = i
    view_i32(local_base(m, c) + s.value[0], 1)[0] = best


@jit
def argmax16(m: Record, c: int, s: Record) -> None:
    """Largest of fp16 elements."""
    x = view_f32(m.scratch_a_at, s.value[2])
    load_half(local_base(m, c) + s.value[1], x, s.value[2])
    _store_argmax(m, c, s, x)


@jit
def argmax32(m: Record, c: int, s: Record) -> None:
    """Largest of fp32 elements."""
    x = view_f32(m.scratch_a_at, s.value[2])
    load_float(local_base(m, c) + s.value[1], x, s.value[2])
    _store_argmax(m, c, s, x)


@jit
def _hold(m: Record, c: int, s: Record, n: int) -> None:
    """Copy the two sources of ``n`` words to the scratch memory."""
    copy_bytes(local_base(m, c) + s.value[1], m.scratch_a_at, 4 * n)
    copy_bytes(local_base(m, c) + s.value[2], m.scratch_b_at, 4 * n)


@jit
def int_to_float(m: Record, c: int, s: Record) -> None:
    """i32 to the nearest fp32."""
    base, n = local_base(m, c), s.value[2]
    copy_bytes(base + s.value[1], m.scratch_a_at, 4 * n)
    held, target = view_i32(m.scratch_a_at, n), view_f32(base + s.value[0], n)
    for i in range(n):
        target[i] = held[i]


@jit
def float_to_int(m: Record, c: int, s: Record) -> None:
    """fp32 to i32, towards zero; the nearest i32 beyond its range, 0 for NaN."""
    base, n = local_base(m, c), s.value[2]
    x, target = view_f32(m.scratch_a_at, n), view_i32(base + s.value[0], n)
    load_float(base + s.value[1], x, n)
    for i in range(n):
        if x[i] >= _GREATEST:
            target[i] = _GREATEST
        elif x[i] <= _LEAST:
            target[i] = _LEAST
        else:
            target[i] = np.int64(x[i]) if x[i] == x[i] else 0


@inline
def quotient(a: int, b: int) -> int:
    """a / b towards zero; 0 if b is."""
    if b == 0:
        return 0
    result = abs(a) // abs(b)
    return result if (a < 0) == (b < 0) else -result


@jit
def int_add(m: Record, c: int, s: Record) -> None:
    """Sum."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] + b[i]


@jit
def int_sub(m: Record, c: int, s: Record) -> None:
    """Difference."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] - b[i]


@jit
def int_mul(m: Record, c: int, s: Record) -> None:
    """Product."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] * b[i]


@jit
def int_div(m: Record, c: int, s: Record) -> None:
    """Quotient towards zero, 0 by 0."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = quotient(a[i], b[i])


@jit
def int_max(m: Record, c: int, s: Record) -> None:
    """Larger."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = max(a[i], b[i])


@jit
def int_min(m: Record, c: int, s: Record) -> None:
    """Smaller."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = min(a[i], b[i])


@jit
def int_rem(m: Record, c: int, s: Record) -> None:
    """Remainder with the sign of the dividend."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] - b[i] * quotient(a[i], b[i]) if b[i] != 0 else 0


@jit
def int_mod(m: Record, c: int, s: Record) -> None:
    """Remainder with the sign of the divisor."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] % b[i] if b[i] != 0 else 0


@jit
def int_and(m: Record, c: int, s: Record) -> None:
    """Bitwise and."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] & b[i]


@jit
def int_or(m: Record, c: int, s: Record) -> None:
    """Bitwise or."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] | b[i]


@jit
def int_xor(m: Record, c: int, s: Record) -> None:
    """Bitwise exclusive or."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] ^ b[i]


@jit
def int_sll(m: Record, c: int, s: Record) -> None:
    """Left shift."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = np.int64(a[i]) << (b[i] & 31)


@jit
def int_sra(m: Record, c: int, s: Record) -> None:
    """Arithmetic right shift."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_i32(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = a[i] >> (b[i] & 31)


@jit
def int_eq(m: Record, c: int, s: Record) -> None:
    """Equal: fp16 1 or 0."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_u16(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = _ONE if a[i] == b[i] else 0


@jit
def int_lt(m: Record, c: int, s: Record) -> None:
    """Less: fp16 1 or 0."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_u16(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = _ONE if a[i] < b[i] else 0


@jit
def int_le(m: Record, c: int, s: Record) -> None:
    """Less or equal: fp16 1 or 0."""
    n = s.value[3]
    _hold(m, c, s, n)
    a, b = view_i32(m.scratch_a_at, n), view_i32(m.scratch_b_at, n)
    out = view_u16(local_base(m, c) + s.value[0], n)
    for i in range(n):
        out[i] = _ONE if a[i] <= b[i] else 0
