"""Order statistics, running extremes, histograms and searches: by sorting, by scans in log(n) steps, by counting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST_TABLE: Final = 1 << 20
"""Elements of the largest table of all pairs that is worth making."""


def _line(x: Tensor, dim: int) -> tuple[Tensor, int]:
    """``x`` with a dimension to work along (a scalar as a vector of one), and that dimension's number."""
    return (x.reshape(1), 0) if x.dim() == 0 else (x, dim % x.dim())


def _kth(x: Tensor, k: Tensor | int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The k-th smallest (from 0) along a dimension and its place; ``k`` may differ from line to line."""
    import torch

    line, dim = _line(x, dim)
    values, places = line.sort(dim=dim, stable=True)
    if isinstance(k, int):
        value, place = values.narrow(dim, k, 1), places.narrow(dim, k, 1)
    else:
        value, place = values.gather(dim, k), places.gather(dim, k)
    if x.is_floating_point():
        value = torch.where(line.isnan().any(dim, keepdim=True), float("nan"), value)
    if x.dim() == 0:
        return value.reshape(()), place.reshape(())
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _kth(x, k - 1, dim, keepdim)


def _median_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of the middle two; NaN, and its place, where there is one."""
    import torch

    line, dim = _line(x, dim)
    value, place = _kth(line, (line.shape[dim] - 1) // 2, dim, True)
    if x.is_floating_point():
        hole = line.isnan()
        first = hole.to(torch.int32).argmax(dim, keepdim=True)
        place = torch.where(hole.any(dim, keepdim=True), first, place)
    if x.dim() == 0:
        return value.reshape(()), place.reshape(())
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def _median(x: Tensor) -> Tensor:
    if x.numel() == 0:
        return x.new_full((), float("nan"))
    return _kth(x.reshape(-1), (x.numel() - 1) // 2, 0, False)[0]


def _nanmedian_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The median of what is not NaN."""
    import torch

    if not x.is_floating_point():
        return _median_along(x, dim, keepdim)
    line, dim = _line(x, dim)
    hole = line.isnan()
    count = (~hole).to(torch.int32).sum(dim, keepdim=True)
    middle = torch.div(count - 1, 2, rounding_mode="floor").clamp(min=0).to(torch.int64)
    filled = torch.where(hole, float("inf"), line)
    value, place = _kth(filled, middle, dim, True)
    value = torch.where(count == 0, float("nan"), value)
    if x.dim() == 0:
        return value.reshape(()), place.reshape(())
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def _nanmedian(x: Tensor) -> Tensor:
    if x.numel() == 0:
        return x.new_full((), float("nan"))
    return _nanmedian_along(x.reshape(-1), 0)[0]


def _mode(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The most frequent, of several the smallest, and the last place where it is: the longest run of the sorted."""
    import torch

    line, dim = _line(x, dim)
    values, places = line.movedim(dim, -1).sort(dim=-1, stable=True)
    numbers = torch.arange(line.shape[dim], device=x.device).expand(values.shape)
    begins = values[..., 1:] != values[..., :-1]
    starts = torch.where(begins, numbers[..., 1:], 0)
    starts = torch.cat([torch.zeros_like(numbers[..., :1]), starts], -1).cummax(-1).values
    longest = (numbers - starts).argmax(-1, keepdim=True)
    value, place = values.gather(-1, longest), places.gather(-1, longest)
    if x.dim() == 0:
        return value.reshape(()), place.reshape(())
    value, place = value.movedim(-1, dim), place.movedim(-1, dim)
    return (value, place) if keepdim else (value.squeeze(dim), place.squeeze(dim))


def _running_extreme(x: Tensor, dim: int, sign: int) -> tuple[Tensor, Tensor]:
    """Running extreme and the last place where it was, by doubling the reach of each element."""
    import torch

    line, dim = _line(x, dim)
    size = line.shape[dim]
    shape = [size if axis == dim else 1 for axis in range(line.dim())]
    places = torch.arange(size, device=x.device).reshape(shape).expand(line.shape)
    reach = 1
    while reach < size:
        rest = size - reach
        here, before = line.narrow(dim, reach, rest), line.narrow(dim, 0, rest)
        kept = (here >= before) if sign > 0 else (here <= before)
        if x.is_floating_point():
            kept = kept | here.isnan()
        value = torch.where(kept, here, before)
        place = torch.where(kept, places.narrow(dim, reach, rest), places.narrow(dim, 0, rest))
        line = torch.cat([line.narrow(dim, 0, reach), value], dim)
        places = torch.cat([places.narrow(dim, 0, reach), place], dim)
        reach *= 2
    return line.reshape(x.shape), places.reshape(x.shape).clone()


def _cummax(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running_extreme(x, dim, 1)


def _cummin(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _running_extreme(x, dim, -1)


def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    """By doubling the reach of each element, so that no sum of powers leaves the range."""
    import torch

    line, dim = _line(x, dim)
    size, reach = line.shape[dim], 1
    while reach < size:
        rest = size - reach
        here, before = line.narrow(dim, reach, rest), line.narrow(dim, 0, rest)
        line = torch.cat([line.narrow(dim, 0, reach), torch.logaddexp(here, before)], dim)
        reach *= 2
    return line.reshape(x.shape)


def _histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:  # the operator's names
    """Counts in ``bins`` equal parts of the range; without a range that of the elements."""
    import torch

    flat = x.reshape(-1)
    if flat.numel() * bins > _LARGEST_TABLE:
        return NotImplemented
    if flat.numel() == 0:
        return x.new_zeros(bins)
    low: Tensor = x.new_full((), min) if min != max else flat.amin()
    high: Tensor = x.new_full((), max) if min != max else flat.amax()
    if min == max:
        alike = low == high
        low, high = torch.where(alike, low - 1, low), torch.where(alike, high + 1, high)
    place = ((flat - low) * (bins / (high - low))).floor().clamp(max=bins - 1)
    inside = (flat >= low) & (flat <= high)
    hit = (place.unsqueeze(-1) == torch.arange(bins, device=x.device)) & inside.unsqueeze(-1)
    return hit.to(x.dtype).sum(0)


def _searchsorted(
    sorted_sequence: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """How many elements of the sequence are below the value (or not above it)."""
    import torch

    edges = sorted_sequence if sorter is None else sorted_sequence.gather(-1, sorter)
    if values.numel() * edges.shape[-1] > _LARGEST_TABLE:
        return NotImplemented
    lines = edges.unsqueeze(-2) if edges.dim() > 1 else edges
    column = values.unsqueeze(-1)
    below = (lines <= column) if right or side == "right" else (lines < column)
    if values.is_floating_point():
        # NaN stands behind every number.
        below = below | column.isnan()
    if edges.shape[-1] == 0:
        return values.new_zeros(values.shape, dtype=torch.int32 if out_int32 else torch.int64)
    return below.to(torch.int32).sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _searchsorted_number(
    sorted_sequence: Tensor,
    value: float,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    number = sorted_sequence.new_full((), value)
    return _searchsorted(sorted_sequence, number, out_int32=out_int32, right=right, side=side, sorter=sorter)


def _bucketize(values: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    return _searchsorted(boundaries, values, out_int32=out_int32, right=right)


def _isin(elements: Tensor, test_elements: Tensor, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each element is one of a list."""
    if elements.numel() * test_elements.numel() > _LARGEST_TABLE:
        return NotImplemented
    found = (elements.unsqueeze(-1) == test_elements.reshape(-1)).any(-1)
    return ~found if invert else found


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "kthvalue.default": _kthvalue,
    "median.default": _median,
    "median.dim": _median_along,
    "nanmedian.default": _nanmedian,
    "nanmedian.dim": _nanmedian_along,
    "mode.default": _mode,
    "cummax.default": _cummax,
    "cummin.default": _cummin,
    "logcumsumexp.default": _logcumsumexp,
    "histc.default": _histc,
    "searchsorted.Tensor": _searchsorted,
    "searchsorted.Scalar": _searchsorted_number,
    "bucketize.Tensor": _bucketize,
    "isin.Tensor_Tensor": _isin,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
