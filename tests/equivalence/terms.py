"""Terms: 64-bit hashes that stand for values, in arrays.

Every cell is 16 bits of a memory. Equal terms mean the same operations on the same constants (up to collisions,
2^-64); :data:`UNWRITTEN` is the term of a cell that nothing has written.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Terms: TypeAlias = NDArray[np.uint64]

UNWRITTEN = np.uint64(0)
_A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(31)


def _scramble(x: Terms) -> Terms:
    x = (x + _A) * _B
    x ^= x >> _SHIFT
    x *= _A
    result: Terms = x ^ (x >> _SHIFT)
    return result


#: The term of every 16-bit constant, and odd multipliers for :func:`digest`.
CONSTANTS: Terms = _scramble(np.arange(1, (1 << 16) + 1, dtype=np.uint64)) | np.uint64(1)
_WEIGHTS: Terms = _scramble(np.arange(1 << 20, (1 << 20) + (1 << 18), dtype=np.uint64)) | np.uint64(1)


@cache
def seed(name: str) -> np.uint64:
    """A constant for the name of an operation."""
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


def mix(name: str, *operands: Terms | np.uint64) -> Terms:
    """The operation ``name`` of each element of the operands (they broadcast); their order matters."""
    result = np.atleast_1d(np.asarray(seed(name)))
    for operand in operands:
        result = _scramble(result ^ np.asarray(operand)) + (result << np.uint64(7))
    return result


def symmetric(name: str, a: Terms, b: Terms) -> Terms:
    """As :func:`mix` of two operands whose order does not matter."""
    return mix(name, np.minimum(a, b), np.maximum(a, b))


def digest(cells: Terms) -> Terms:
    """One term for each row of ``cells`` (its last dimension)."""
    return _scramble((cells * _WEIGHTS[: cells.shape[-1]]).sum(axis=-1, dtype=np.uint64))


def products(weights: Terms, inputs: Terms) -> Terms:
    """The products of each row of weights with the inputs, a term a row; a weight of zero leaves nothing."""
    zero = (weights == CONSTANTS[0]) | (weights == CONSTANTS[0x8000])
    terms = mix("product", weights, inputs)
    return digest(np.where(zero, UNWRITTEN, terms))


def elements(cells: Terms, size: int) -> Terms:
    """The terms of elements of ``size`` bytes (2 or 4) from those of their cells."""
    return cells if size == 2 else mix("word", cells[0::2], cells[1::2])


def cells(values: Terms, size: int) -> Terms:
    """The cells of computed elements of ``size`` bytes (2 or 4)."""
    if size == 2:
        return values
    result = np.empty(2 * values.size, np.uint64)
    result[0::2], result[1::2] = mix("low", values), mix("high", values)
    return result


@cache
def _half_constants() -> dict[int, int]:
    """The bits of the fp16 number that a term is, by term."""
    return {int(term): bits for bits, term in enumerate(CONSTANTS)}


def widened(values: Terms) -> Terms:
    """The cells of fp16 values as f32: of a constant, those of the f32 constant."""
    result = cells(mix("vcvt.f", values), 4)
    for index, term in enumerate(values):
        bits = _half_constants().get(int(term))
        if bits is not None:
            number = np.uint16(bits).view(np.float16).astype(np.float32)
            result[2 * index : 2 * index + 2] = constant(int(number.view(np.uint32)))
    return result


def constant(value: int) -> Terms:
    """The two cells of a 32-bit constant."""
    return CONSTANTS[[value & 0xFFFF, value >> 16 & 0xFFFF]]
