"""Vector instructions: one function for each base name of the ISA table (``vadd`` serves ``vadd.h`` and ``vadd.f``).

Operands are float32 arrays (converted from fp16 where the form says so), results are float32 and rounded by the caller.
Binary functions take ``(x, y, out, n)``, those with a scalar ``(x, s, out, n)``, unary ones ``(x, out, n)``, reductions
``(x, n, lanes, partial)`` and return a float32.
"""

from __future__ import annotations

import math

import numpy as np

from pimc.runtime_sim.engine.jit import inline, jit
from pimc.runtime_sim.engine.state import FloatArray

_ZERO = np.float32(0.0)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_INV_SQRT2 = np.float32(0.7071067811865476)
_GELU_SCALE = np.float32(0.7978845608028654)
_GELU_CUBIC = np.float32(0.044715)
_INFINITY = np.float32(np.inf)


@inline
def maximum(a: np.float32, b: np.float32) -> np.float32:
    """Larger of two numbers, NaN if one is."""
    return a if a > b or a != a else b  # noqa: PLR0124


@inline
def minimum(a: np.float32, b: np.float32) -> np.float32:
    """Smaller of two numbers, NaN if one is."""
    return a if a < b or a != a else b  # noqa: PLR0124


@inline
def truth(condition: bool) -> np.float32:
    """1 if a condition holds, else 0."""
    return _ONE if condition else _ZERO


@jit
def vadd(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Sum."""
    for i in range(n):
        out[i] = x[i] + y[i]


@jit
def vsub(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Difference."""
    for i in range(n):
        out[i] = x[i] - y[i]


@jit
def vmul(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Product."""
    for i in range(n):
        out[i] = x[i] * y[i]


@jit
def vdiv(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Quotient."""
    for i in range(n):
        out[i] = x[i] / y[i]


@jit
def vmax(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Larger."""
    for i in range(n):
        out[i] = maximum(x[i], y[i])


@jit
def vmin(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Smaller."""
    for i in range(n):
        out[i] = minimum(x[i], y[i])


@jit
def veq(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Equal: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] == y[i])


@jit
def vlt(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Less: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] < y[i])


@jit
def vle(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Less or equal: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] <= y[i])


@jit
def vpow(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Power."""
    for i in range(n):
        out[i] = x[i] ** y[i]


@jit
def vrem(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Remainder with the sign of the dividend (exact)."""
    for i in range(n):
        out[i] = np.fmod(x[i], y[i])


@jit
def vmod(x: FloatArray, y: FloatArray, out: FloatArray, n: int) -> None:
    """Remainder with the sign of the divisor."""
    for i in range(n):
        rest = np.float32(np.fmod(x[i], y[i]))
        if rest != _ZERO and (rest < _ZERO) != (y[i] < _ZERO):
            rest = rest + y[i]
        out[i] = rest


@jit
def vadds(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Sum with a scalar."""
    for i in range(n):
        out[i] = x[i] + s


@jit
def vsubs(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Difference with a scalar."""
    for i in range(n):
        out[i] = x[i] - s


@jit
def vmuls(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Product with a scalar."""
    for i in range(n):
        out[i] = x[i] * s


@jit
def vdivs(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Quotient by a scalar."""
    for i in range(n):
        out[i] = x[i] / s


@jit
def vmaxs(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Larger of element and scalar."""
    for i in range(n):
        out[i] = maximum(x[i], s)


@jit
def vmins(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Smaller of element and scalar."""
    for i in range(n):
        out[i] = minimum(x[i], s)


@jit
def veqs(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Equal to a scalar: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] == s)


@jit
def vlts(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Less than a scalar: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] < s)


@jit
def vles(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Less than a scalar or equal: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] <= s)


@jit
def vgts(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Greater than a scalar: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] > s)


@jit
def vges(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Greater than a scalar or equal: 1 or 0."""
    for i in range(n):
        out[i] = truth(x[i] >= s)


@jit
def vexps(x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Exponential of the difference with a scalar."""
    for i in range(n):
        out[i] = math.exp(x[i] - s)


@jit
def vfill(_x: FloatArray, s: np.float32, out: FloatArray, n: int) -> None:
    """Copies of a scalar."""
    for i in range(n):
        out[i] = s


@jit
def vmov(x: FloatArray, out: FloatArray, n: int) -> None:
    """Copy."""
    for i in range(n):
        out[i] = x[i]


@jit
def vcvt(x: FloatArray, out: FloatArray, n: int) -> None:
    """Conversion (by the caller's rounding)."""
    for i in range(n):
        out[i] = x[i]


@jit
def vneg(x: FloatArray, out: FloatArray, n: int) -> None:
    """Negation."""
    for i in range(n):
        out[i] = -x[i]


@jit
def vabs(x: FloatArray, out: FloatArray, n: int) -> None:
    """Magnitude."""
    for i in range(n):
        out[i] = abs(x[i])


@jit
def vrelu(x: FloatArray, out: FloatArray, n: int) -> None:
    """Rectifier."""
    for i in range(n):
        out[i] = maximum(x[i], _ZERO)


@jit
def vexp(x: FloatArray, out: FloatArray, n: int) -> None:
    """Exponential."""
    for i in range(n):
        out[i] = math.exp(x[i])


@jit
def vsqrt(x: FloatArray, out: FloatArray, n: int) -> None:
    """Square root."""
    for i in range(n):
        out[i] = np.sqrt(x[i])


@jit
def vrsqrt(x: FloatArray, out: FloatArray, n: int) -> None:
    """Reciprocal square root."""
    for i in range(n):
        out[i] = _ONE / np.sqrt(x[i])


@jit
def vrecip(x: FloatArray, out: FloatArray, n: int) -> None:
    """Reciprocal."""
    for i in range(n):
        out[i] = _ONE / x[i]


@jit
def vtanh(x: FloatArray, out: FloatArray, n: int) -> None:
    """Hyperbolic tangent."""
    for i in range(n):
        out[i] = math.tanh(x[i])


@jit
def vsigmoid(x: FloatArray, out: FloatArray, n: int) -> None:
    """Logistic function."""
    for i in range(n):
        out[i] = _ONE / (_ONE + math.exp(-x[i]))


@jit
def vsilu(x: FloatArray, out: FloatArray, n: int) -> None:
    """SiLU."""
    for i in range(n):
        out[i] = x[i] / (_ONE + math.exp(-x[i]))


@jit
def vgelu(x: FloatArray, out: FloatArray, n: int) -> None:
    """GELU."""
    for i in range(n):
        out[i] = _HALF * x[i] * (_ONE + math.erf(x[i] * _INV_SQRT2))


@jit
def vgelut(x: FloatArray, out: FloatArray, n: int) -> None:
    """GELU by its tanh approximation."""
    for i in range(n):
        out[i] = _HALF * x[i] * (_ONE + math.tanh(_GELU_SCALE * (x[i] + _GELU_CUBIC * x[i] * x[i] * x[i])))


@jit
def verf(x: FloatArray, out: FloatArray, n: int) -> None:
    """Error function."""
    for i in range(n):
        out[i] = math.erf(x[i])


@jit
def vlog(x: FloatArray, out: FloatArray, n: int) -> None:
    """Natural logarithm."""
    for i in range(n):
        out[i] = math.log(x[i])


@jit
def vfloor(x: FloatArray, out: FloatArray, n: int) -> None:
    """Rounded down."""
    for i in range(n):
        out[i] = np.floor(x[i])


@jit
def vceil(x: FloatArray, out: FloatArray, n: int) -> None:
    """Rounded up."""
    for i in range(n):
        out[i] = np.ceil(x[i])


@jit
def vround(x: FloatArray, out: FloatArray, n: int) -> None:
    """Rounded to the nearest integer, ties to even."""
    for i in range(n):
        out[i] = np.rint(x[i])


@jit
def vsign(x: FloatArray, out: FloatArray, n: int) -> None:
    """Sign, NaN of NaN."""
    for i in range(n):
        out[i] = _ONE if x[i] > _ZERO else (-_ONE if x[i] < _ZERO else x[i])


@jit
def vsin(x: FloatArray, out: FloatArray, n: int) -> None:
    """Sine."""
    for i in range(n):
        out[i] = math.sin(x[i])


@jit
def vcos(x: FloatArray, out: FloatArray, n: int) -> None:
    """Cosine."""
    for i in range(n):
        out[i] = math.cos(x[i])


@jit
def vatan(x: FloatArray, out: FloatArray, n: int) -> None:
    """Arc tangent."""
    for i in range(n):
        out[i] = math.atan(x[i])


@jit
def vexpm1(x: FloatArray, out: FloatArray, n: int) -> None:
    """Exponential minus one."""
    for i in range(n):
        out[i] = math.expm1(x[i])


@jit
def vlog1p(x: FloatArray, out: FloatArray, n: int) -> None:
    """Logarithm of one more."""
    for i in range(n):
        out[i] = math.log1p(x[i])


@jit
def _tree_sum(partial: FloatArray, lanes: int) -> np.float32:
    """Sum of the lanes by halves; lanes beyond a power of two are added to the front first."""
    while lanes > 1:
        half = (lanes + 1) >> 1
        for i in range(lanes - half):
            partial[i] = partial[i] + partial[i + half]
        lanes = half
    return partial[0]


@jit
def vrsum(x: FloatArray, n: int, lanes: int, partial: FloatArray) -> np.float32:
    """Sum: one partial sum a lane in ascending order, then the halving tree."""
    for lane in range(lanes):
        partial[lane] = _ZERO
    for base in range(0, n, lanes):
        for i in range(min(lanes, n - base)):
            partial[i] += x[base + i]
    return _tree_sum(partial, lanes)


@jit
def vrsumsq(x: FloatArray, n: int, lanes: int, partial: FloatArray) -> np.float32:
    """Sum of squares, in the order of :func:`vrsum`; every square is rounded to float32."""
    for lane in range(lanes):
        partial[lane] = _ZERO
    for base in range(0, n, lanes):
        for i in range(min(lanes, n - base)):
            partial[i] += x[base + i] * x[base + i]
    return _tree_sum(partial, lanes)


@jit
def vrmax(x: FloatArray, n: int, _lanes: int, _partial: FloatArray) -> np.float32:
    """Largest element, NaN if one is; minus infinity for none."""
    result = -_INFINITY
    for i in range(n):
        result = maximum(result, x[i])
    return result


@jit
def vrmin(x: FloatArray, n: int, _lanes: int, _partial: FloatArray) -> np.float32:
    """Smallest element, NaN if one is; infinity for none."""
    result = _INFINITY
    for i in range(n):
        result = minimum(result, x[i])
    return result


@jit
def vrprod(x: FloatArray, n: int, lanes: int, partial: FloatArray) -> np.float32:
    """Product, in the order of :func:`vrsum`."""
    for lane in range(lanes):
        partial[lane] = _ONE
    for base in range(0, n, lanes):
        for i in range(min(lanes, n - base)):
            partial[i] *= x[base + i]
    while lanes > 1:
        half = (lanes + 1) >> 1
        for i in range(lanes - half):
            partial[i] = partial[i] * partial[i + half]
        lanes = half
    return partial[0]
