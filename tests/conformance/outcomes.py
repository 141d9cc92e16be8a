"""What came of a case in a column, and how near to what is expected an output must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Column = Literal["interpreter", "hardware"]
COLUMNS: Final[tuple[Column, ...]] = ("interpreter", "hardware")

Status = Literal["passed", "rounded", "refused", "failed", "outside"]
"""``rounded``: right for the inputs as fp16 rounds them, not for those that were given; ``outside``: no question that
a compiler could answer rightly or wrongly (random numbers, no tensor as a result).
"""

RTOL_FP16: Final = 1e-2
ATOL_FP16: Final = 2e-3
"""How near the hardware must be: ``|got - want| <= ATOL * largest |want| + RTOL * |want|``.

Storage is fp16, so every tensor between two operators is rounded to 11 bits, 4.9e-4 relative.  A case is one
operator or the dozen of an operator's definition; errors of single elements are relative to the largest numbers
they are sums of, which is what the absolute term is for.
"""
LEAST_FP16: Final = 2.0**-24
"""The least number of fp16: nearer than this it holds no number."""
RTOL_16_BIT: Final[Mapping[str, float]] = {"float16": 2.0**-9, "bfloat16": 2.0**-6}
"""Least relative tolerance of outputs with 16 bits, in the interpreter column: two units in the last place.

The expected values were rounded after every step, the interpreter rounds where the model says so; the ONNX suite's own
1e-3 is less than one unit of a bfloat16.
"""
_LARGEST: Final = 65504.0


@dataclass(frozen=True)
class Outcome:
    """What came of a case: why it failed or was refused, and the inputs whose values were fixed at compile time.

    ``folded``: these were all its inputs, so the compiler computed the outputs.
    """

    status: Status
    reason: str = ""
    detail: str = ""
    bound: tuple[str, ...] = ()
    folded: bool = False
    seconds: float = 0.0


class Decided(Exception):  # noqa: N818 - an outcome
    """What becomes of the case is known before, or without, a run of the column: a status and its reason."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason


@dataclass(frozen=True)
class Tolerance:
    """``|got - want| <= atol + rtol * |want|``, for finite numbers."""

    rtol: float
    atol: float


def hardware_tolerance(want: Array, least: Tolerance = Tolerance(0.0, 0.0)) -> Tolerance:
    """The tolerance of the hardware column for an expected output; not below ``least``."""
    finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
    largest = float(finite.max(initial=0.0))
    return Tolerance(max(least.rtol, RTOL_FP16), max(least.atol, ATOL_FP16 * largest, LEAST_FP16))


def half(array: Array) -> Array:
    """Floating-point numbers rounded to fp16, in their own type; anything else as it is."""
    return array.astype(np.float16).astype(array.dtype) if is_float(array) else array


def beyond_hardware(array: Array) -> bool:
    """Whether an array has a value that the hardware's types (fp16, i32) do not have: no run could be right."""
    if is_float(array):
        finite = np.abs(array[np.isfinite(array)].astype(np.float64))
        return float(finite.max(initial=0.0)) > _LARGEST
    whole = array.dtype.kind in "iu" and array.size > 0
    return whole and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31


def is_float(array: Array) -> bool:
    """Whether an array holds floating-point numbers, numpy's or bfloat16."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def different_values(have: Array, want: Array, tolerance: Tolerance) -> str:
    """What is wrong with the values of an output of the right shape; empty if nothing is.  Whole numbers and truth
    values must be equal.
    """
    if not is_float(want):
        unequal = int((have != want).sum())
        return f"{unequal} of {want.size} elements differ" if unequal else ""
    have, want = have.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        near = np.isclose(have, want, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True)
        if near.all():
            return ""
        apart = np.abs(have - want)[~near]
    worst = float(np.nanmax(apart)) if np.isfinite(apart).any() else np.inf
    return f"{int((~near).sum())} of {near.size} elements differ, by up to {worst:.3g}"
