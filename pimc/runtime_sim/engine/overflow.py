"""Results that leave the range of their type though all operands were finite, counted by instruction.

A finite fp32 result of at least :data:`HALF_LIMIT` becomes infinite when it is rounded to fp16. A result that is
infinite already is counted too, unless an operand is at a pole of the function (1 / 0, ln 0, ln(1 + -1), 0 to a
negative power): there infinity is the value.
"""

from __future__ import annotations

import numpy as np

from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.state import FloatArray, Record, core_of, view_i64

#: Halfway between the largest fp16 (65504) and the next power of two: from here on, rounding gives infinity.
HALF_LIMIT = np.float32(65520.0)
INFINITY = np.float32(np.inf)
_ZERO, _MINUS_ONE = np.float32(0.0), np.float32(-1.0)


@jit
def note(m: Record, c: int, s: Record, count: int) -> None:
    """Count ``count`` results of instruction ``s`` of core ``c``."""
    if count > 0:
        view_i64(m.overflows_at + 8 * (core_of(m, c).code + s.pc), 1)[0] += count


@inline
def leaves_half(value: np.float32) -> int:
    """1 if a finite number rounds to an infinite fp16, else 0."""
    return 1 if HALF_LIMIT <= abs(value) < INFINITY else 0


@inline
def _explains(operand: np.float32, result: np.float32) -> bool:
    """Whether an operand is not finite, or at a pole of an infinite result."""
    if not abs(operand) < INFINITY:  # infinite or NaN
        return True
    return abs(result) == INFINITY and (operand in (_ZERO, _MINUS_ONE))


@jit
def _any_beyond(out: FloatArray, n: int, limit: np.float32) -> bool:
    """Whether a result is at least ``limit`` (a loop that the compiler vectorises)."""
    found = 0
    for i in range(n):
        found |= 1 if abs(out[i]) >= limit else 0
    return found != 0


@jit
def count_results(out: FloatArray, n: int, target: int, x: FloatArray, x_step: int, y: FloatArray, y_step: int) -> int:
    """How many of n results leave a destination of ``target`` bytes though x[i x_step] and y[i y_step] were finite."""
    limit = INFINITY if target == 4 else HALF_LIMIT
    if not _any_beyond(out, n, limit):
        return 0
    count = 0
    for i in range(n):
        value = out[i]
        if abs(value) >= limit and not _explains(x[i * x_step], value) and not _explains(y[i * y_step], value):
            count += 1
    return count


@jit
def count_reduction(value: np.float32, x: FloatArray, n: int) -> int:
    """1 if a reduction of n finite numbers is infinite."""
    if abs(value) < INFINITY or value != value or n == 0:  # noqa: PLR0124
        return 0
    for i in range(n):
        if not abs(x[i]) < INFINITY:
            return 0
    return 1
