"""Functions of arrays that numpy does not have: what some of the elementwise operators mean."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.polynomial import Chebyshev

from pimc.ir.nn.base import Array


@cache
def _erf_pieces() -> tuple[Chebyshev, ...]:
    """Chebyshev interpolants of erf on [0, 2], [2, 4], [4, 6] (error below 1e-14)."""
    exact = np.vectorize(math.erf, otypes=[np.float64])
    return tuple(Chebyshev.interpolate(exact, 30, domain=[low, low + 2.0]) for low in (0.0, 2.0, 4.0))


def erf(x: Array) -> Array:
    """Error function, vectorised, in float64."""
    wide = np.asarray(x, dtype=np.float64)
    size = np.minimum(np.abs(wide), 6.0)
    first, second, third = (piece(size) for piece in _erf_pieces())
    result = np.where(size < 2.0, first, np.where(size < 4.0, second, third))
    return np.copysign(result, wide)


def gelu(x: Array, approximate: str) -> Array:
    """GELU in its exact form or with tanh."""
    if approximate == "tanh":
        inner = np.float32(math.sqrt(2.0 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        result: Array = np.float32(0.5) * x * (np.float32(1.0) + np.tanh(inner))
        return result
    return x * (0.5 * (1.0 + erf(x * math.sqrt(0.5))))


def sigmoid(x: Array) -> Array:
    """Logistic function."""
    result: Array = np.float32(1) / (np.float32(1) + np.exp(-x))
    return result


def reciprocal(x: Array) -> Array:
    """``1 / x``."""
    result: Array = np.float32(1) / x
    return result


def power(lhs: Array, rhs: Array) -> Array:
    """Of integers exact (modulo 2^64); a negative power of an integer is truncated."""
    if lhs.dtype.kind not in "iu":
        return np.power(lhs, rhs)
    if rhs.dtype.kind == "f":
        return np.trunc(np.power(lhs.astype(np.float64), rhs))
    wide = np.uint64 if lhs.dtype.kind == "u" else np.int64
    whole: Array = np.power(lhs.astype(wide), np.maximum(rhs, 0).astype(wide))
    if not np.any(rhs < 0):
        return whole
    return np.where(rhs < 0, np.trunc(np.power(lhs.astype(np.float64), rhs)).astype(wide), whole)


def divide(lhs: Array, rhs: Array) -> Array:
    """Of integers towards zero."""
    if lhs.dtype.kind not in "iu":
        return np.divide(lhs, rhs)
    floor: Array = lhs // rhs
    below = (floor < 0) & (floor * rhs != lhs) & (rhs != 0)
    quotient: Array = floor + below
    return quotient
