"""The gamma function's logarithm and its derivatives, and the inverse of the error function.

All are polynomials, logarithms and sines of numbers of moderate size, so that fp16 between the steps costs a few units
in the last place.  Coefficients are fitted here to the functions of Python's standard library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

if TYPE_CHECKING:
    from torch import Tensor

_BERNOULLI: Final = (1 / 6, -1 / 30, 1 / 42, -1 / 30)
"""B(2), B(4), ...: the coefficients of the asymptotic series."""
_SHIFT: Final = 5
"""Steps of the recurrence by which small arguments are made large enough for the asymptotic series."""
_TAIL: Final = 5.0


def _fit(function: Callable[[float], float], low: float, high: float, degree: int) -> tuple[float, ...]:
    """Coefficients, lowest first, of the polynomial in ``x - (low + high) / 2`` nearest to ``function``."""
    middle = (low + high) / 2
    half = high - middle
    found = Chebyshev.interpolate(
        lambda points: np.array([function(float(point) + middle) for point in points]), degree, domain=[-half, half]
    )
    return tuple(float(number) for number in found.convert(kind=Polynomial).coef)


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    import torch

    total = torch.full_like(x, coefficients[-1])
    for number in reversed(coefficients[:-1]):
        total = total * x + number
    return total


def _fraction(x: Tensor) -> Tensor:
    """``x`` less the nearest whole number: sines and tangents of pi times either are alike but for the sign."""
    return x - x.round()


@cache
def _lgamma_fit() -> tuple[float, ...]:
    def without_zeros(x: float) -> float:
        x += 1e-7 if x in (1.0, 2.0) else 0.0
        return math.lgamma(x) / ((x - 1) * (x - 2))

    return _fit(without_zeros, 0.5, 2.5, 9)


def _lgamma(x: Tensor) -> Tensor:
    """A polynomial from 0.5 to 2.5, Stirling's series above, Euler's reflection below."""
    import torch

    x = x if x.is_floating_point() else x.float()
    small = x < 0.5
    a = torch.where(small, 1 - x, x)
    near = (a - 1) * (a - 2) * _horner(a - 1.5, _lgamma_fit())
    far = a.clamp(min=2.5)
    r = 1 / far
    series = _horner(r * r, (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)) * r
    logarithm = far.log()
    stirling = far * (logarithm - 1) - 0.5 * logarithm + 0.5 * math.log(2 * math.pi) + series
    value = torch.where(a < 2.5, near, stirling)
    sine = (_fraction(x) * math.pi).sin().abs()
    reflected = math.log(math.pi) - sine.log() - value
    return torch.where(x.isinf(), x.abs(), torch.where(small, reflected, value))


def _digamma(x: Tensor) -> Tensor:
    """The asymptotic series behind the recurrence, and Euler's reflection below 0.5."""
    import torch

    x = x if x.is_floating_point() else x.float()
    small = x < 0.5
    a = torch.where(small, 1 - x, x)
    total = torch.zeros_like(a)
    for step in range(_SHIFT):
        total = total + 1 / (a + step)
    far = a + _SHIFT
    r = 1 / far
    series = _horner(r * r, tuple(number / (2 * k + 2) for k, number in enumerate(_BERNOULLI)))
    value = far.log() - 0.5 * r - series * (r * r) - total
    fraction = _fraction(x)
    reflected = value - math.pi / (fraction * math.pi).tan()
    poles = torch.where(x == 0, -1 / x, float("nan"))
    reflected = torch.where(fraction == 0, poles, reflected)
    return torch.where(small, reflected, value)


def _zeta(a: Tensor, s: int) -> Tensor:
    """Hurwitz's zeta function of a whole ``s`` above 1, for ``a`` of at least 0.5 (Euler and Maclaurin)."""
    total = a**-s
    for step in range(1, _SHIFT):
        total = total + (a + step) ** -s
    far = a + _SHIFT
    r = 1 / far
    last = r**s
    series = _horner(r * r, (s / 12, -s * (s + 1) * (s + 2) / 720, math.prod(range(s, s + 5)) / 30240)) * r
    return total + last * (far / (s - 1) + 0.5 + series)


def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The n-th derivative of cot(x), divided by n!, as a polynomial in cot(x)."""
    found = Polynomial([0.0, 1.0])
    for step in range(1, n + 1):
        found = found.deriv() * Polynomial([-1.0 / step, 0.0, -1.0 / step])
    return tuple(float(number) for number in found.coef)


def _polygamma(n: int, x: Tensor) -> Tensor:
    """The n-th derivative of digamma."""
    import torch

    if n == 0:
        return _digamma(x)
    x = x if x.is_floating_point() else x.float()
    small = x < 0.5
    a = torch.where(small, 1 - x, x)
    sign = -1.0 if n % 2 == 0 else 1.0
    # Without n!, and with the powers of pi one by one: no factor leaves fp16's range before the result does.
    value = sign * _zeta(a, n + 1)
    fraction = _fraction(x)
    cotangent = 1 / (fraction * math.pi).tan()
    slope = -_horner(cotangent, _cotangent_derivative(n))
    for _ in range(n + 1):
        slope = slope * math.pi
    reflected = slope - sign * value
    reflected = torch.where(fraction == 0, sign * float("inf"), reflected)
    result = torch.where(small, reflected, value)
    for factor in range(2, n + 1):
        result = result * factor
    return result


@cache
def _erfinv_fits() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """``erfinv(x) / x`` as a polynomial in ``w = -log(1 - x^2)`` up to 5, and in its root up to 4.2 above."""

    def ratio(w: float) -> float:
        if w < 1e-9:
            return math.sqrt(math.pi) / 2
        rest = -math.expm1(-w)  # x^2
        x = math.sqrt(rest)
        tail = math.exp(-w) / (1 + x) / 2  # (1 - x) / 2
        return -NormalDist().inv_cdf(tail) / math.sqrt(2) / x

    return _fit(ratio, 0.0, _TAIL, 9), _fit(lambda root: ratio(root * root), math.sqrt(_TAIL), 4.2, 8)


def _erfinv(x: Tensor) -> Tensor:
    import torch

    x = x if x.is_floating_point() else x.float()
    w = -((1 - x) * (1 + x)).log()
    centre, tail = _erfinv_fits()
    low, high = math.sqrt(_TAIL), 4.2
    near = _horner(w - _TAIL / 2, centre)
    far = _horner(w.clamp(min=_TAIL).sqrt() - (low + high) / 2, tail)
    factor = torch.where(w < _TAIL, near, far)
    return torch.where(x.abs() == 1, x * float("inf"), x * factor)


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "lgamma.default": _lgamma,
    "digamma.default": _digamma,
    "polygamma.default": _polygamma,
    "erfinv.default": _erfinv,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
