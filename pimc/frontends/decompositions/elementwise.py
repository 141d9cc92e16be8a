"""Elementwise functions that PyTorch ends in a primitive for: by formulas that keep fp16's precision and range."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor


def _signbit(x: Tensor) -> Tensor:
    """Whether the sign is set: ``1 / -0`` is minus infinity."""
    import torch

    if not x.is_floating_point():
        return x < 0
    return torch.where(x == 0, x.reciprocal(), x) < 0


def _copysign(x: Tensor, sign: Tensor) -> Tensor:
    import torch

    size = (x if x.is_floating_point() else x.float()).abs()
    return torch.where(_signbit(sign), -size, size)


def _copysign_number(x: Tensor, sign: float) -> Tensor:
    size = (x if x.is_floating_point() else x.float()).abs()
    return -size if math.copysign(1.0, sign) < 0 else size


def _angle(x: Tensor) -> Tensor:
    """The angle of a real number: 0, or pi where it is negative."""
    import torch

    value = x if x.is_floating_point() else x.float()
    return torch.where(value.isnan(), value, torch.where(value < 0, math.pi, 0.0))


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """The arc tangent of the smaller by the larger of the two, which no quotient can take out of range."""
    import torch

    y, x = (value if value.is_floating_point() else value.float() for value in (y, x))
    steep = y.abs() > x.abs()
    low, high = torch.where(steep, x, y), torch.where(steep, y, x)
    ratio = torch.where(high == 0, torch.zeros_like(high), low / high)
    # Infinity by infinity is one by one.
    ratio = torch.where(low.isinf() & high.isinf(), low.sign() * high.sign(), ratio)
    angle = ratio.atan()
    half = torch.where(_signbit(y), -math.pi / 2, math.pi / 2)
    shallow = torch.where(_signbit(x), angle + half * 2, torch.where(y == 0, y, angle))
    return torch.where(steep, half - angle, shallow)


def _fmax(a: Tensor, b: Tensor) -> Tensor:
    """The larger; of a number and NaN the number."""
    import torch

    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, torch.maximum(a, b)))


def _fmin(a: Tensor, b: Tensor) -> Tensor:
    """The smaller; of a number and NaN the number."""
    import torch

    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, torch.minimum(a, b)))


def _round_decimals(x: Tensor, *, decimals: int) -> Tensor:
    """Rounded to ``decimals`` places behind the point, or before it where negative."""
    import torch

    if decimals == 0:
        return x.round()
    factor = 10.0 ** abs(decimals)
    if decimals < 0:
        return (x / factor).round() * factor
    scaled = x * factor
    # A number whose multiple leaves the range has no such places.
    return torch.where(scaled.isinf(), x, scaled.round() / factor)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """The root of the sum of squares, by the quotient of the smaller by the larger: no square leaves the range."""
    import torch

    a, b = a.abs(), b.abs()
    high, low = torch.maximum(a, b), torch.minimum(a, b)
    ratio = low / torch.where(high == 0, torch.ones_like(high), high)
    value = high * (1 + ratio * ratio).sqrt()
    return torch.where(a.isinf() | b.isinf(), float("inf"), value)


def _frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mantissa in [0.5, 1) and exponent of two."""
    import torch

    size = x.abs()
    plain = (size > 0) & ~x.isinf() & ~x.isnan()
    safe = torch.where(plain, size, 1.0)
    power = safe.log2().floor() + 1
    # In two halves, because 2^-power of a tiny number is out of range; then what rounding of the logarithm moved.
    half = (power / 2).floor()
    mantissa = safe * torch.exp2(-half) * torch.exp2(half - power)
    above, below = mantissa >= 1, mantissa < 0.5
    mantissa = torch.where(above, mantissa / 2, torch.where(below, mantissa * 2, mantissa))
    power = power + above.to(power.dtype) - below.to(power.dtype)
    exponent = torch.where(plain, power, 0.0).to(torch.int32)
    return torch.where(plain, mantissa * x.sign(), x), exponent


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "signbit.default": _signbit,
    "copysign.Tensor": _copysign,
    "copysign.Scalar": _copysign_number,
    "angle.default": _angle,
    "atan2.default": _atan2,
    "fmax.default": _fmax,
    "fmin.default": _fmin,
    "round.decimals": _round_decimals,
    "hypot.default": _hypot,
    "frexp.Tensor": _frexp,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
