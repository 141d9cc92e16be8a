"""Samples, bags and segments: sums and extremes of elements that indices or lengths choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1
_SUM, _MEAN = 0, 1


def _members(numbers: Tensor, count: int) -> Tensor:
    """Whether element n belongs to each of ``count`` groups, by its group's number: ``[..., count, N]``."""
    import torch

    return numbers.unsqueeze(-2) == torch.arange(count, device=numbers.device).unsqueeze(1)


def _reduced(rows: Tensor, members: Tensor, reduction: str, initial: float | None = None) -> Tensor:
    """Of ``rows [..., N, F]`` a sum, mean, product or extreme for each group ``[..., B, N]``, as ``[..., B, F]``.

    ``initial`` is the value to start from, and that of an empty group.
    """
    import torch

    count = members.to(rows.dtype).sum(-1, keepdim=True)
    if reduction in ("sum", "mean"):
        taken = torch.where(members.any(-2).unsqueeze(-1), rows, 0.0)
        total = members.to(rows.dtype) @ taken + (initial or 0.0)
        if reduction == "sum":
            return total
        empty = float("nan") if initial is None else initial
        return torch.where(count == 0, empty, total / count.clamp(min=1))
    neutral = {"max": float("-inf"), "min": float("inf"), "prod": 1.0}[reduction]
    spread = torch.where(members.unsqueeze(-1), rows.unsqueeze(-3), neutral)
    if reduction == "prod":
        return spread.prod(-2) * (1.0 if initial is None else initial)
    value = spread.amax(-2) if reduction == "max" else spread.amin(-2)
    if initial is None:
        return value
    return value.clamp(min=initial) if reduction == "max" else value.clamp(max=initial)


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums, means or maxima of a table's rows, one for each bag; a bag ends where the next begins."""
    import torch

    bags = offsets.shape[0] - int(include_last_offset)
    places = torch.arange(indices.shape[0], device=indices.device)
    numbers = (offsets[:bags].unsqueeze(1) <= places).to(torch.int64).sum(0) - 1
    members = _members(numbers, bags)
    if padding_idx >= 0:
        members = members & (indices != padding_idx)
    counts = members.to(torch.int64).sum(1)
    rows = torch.nn.functional.embedding(indices, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    reduction = "sum" if mode == _SUM else "mean" if mode == _MEAN else "max"
    result = _reduced(rows, members, reduction)
    return torch.where((counts == 0).unsqueeze(1), 0.0, result), numbers, counts, counts


def _segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor:
    """Sums, means or extremes of neighbours along a dimension, as many as each of ``lengths [..., B]`` says."""
    import torch

    given = lengths if lengths is not None else offsets
    if given is None or data.numel() == 0:
        return NotImplemented
    lead, size, rest = data.shape[:axis], data.shape[axis], data.shape[axis + 1 :]
    ends = lengths.cumsum(-1) if lengths is not None else given[..., 1:]
    places = torch.arange(size, device=data.device)
    numbers = (ends.unsqueeze(-1) <= places).to(torch.int64).sum(-2)
    result = _reduced(data.reshape(*lead, size, -1), _members(numbers, ends.shape[-1]), reduce, initial)
    return result.reshape(*lead, ends.shape[-1], *rest)


def _grid_sampler_3d(
    x: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """Elements of ``x [N, C, D, H, W]`` at points between -1 and 1, ``grid [N, ..., 3]``: nearest or trilinear."""
    import torch

    batch, channels, *sizes = x.shape
    points = grid.unbind(-1)[::-1]  # a point is given as (x, y, z)
    coordinates = [
        _in_padding(_unnormalised(point, size, align_corners), size, padding_mode, align_corners)
        for point, size in zip(points, sizes, strict=True)
    ]
    flat = x.reshape(batch, channels, -1)

    def element(corner: list[Tensor]) -> Tensor:
        """The elements at whole coordinates; 0 outside."""
        inside = torch.ones_like(corner[0], dtype=torch.bool)
        number = torch.zeros_like(corner[0], dtype=torch.int64)
        for at, size in zip(corner, sizes, strict=True):
            inside = inside & (at >= 0) & (at <= size - 1)
            number = number * size + at.clamp(0, size - 1).to(torch.int64)
        index = number.reshape(batch, 1, -1).expand(batch, channels, -1)
        found = flat.gather(2, index).reshape(batch, channels, *corner[0].shape[1:])
        return torch.where(inside.unsqueeze(1), found, 0.0)

    if interpolation_mode == _NEAREST:
        return element([coordinate.round() for coordinate in coordinates])
    low = [coordinate.floor() for coordinate in coordinates]
    total = torch.zeros_like(element(low))
    for upper in range(8):
        sides = [upper >> 2 & 1, upper >> 1 & 1, upper & 1]
        weight = torch.ones_like(low[0])
        for coordinate, floor, side in zip(coordinates, low, sides, strict=True):
            weight = weight * (coordinate - floor if side else 1 - (coordinate - floor))
        total = total + element([floor + side for floor, side in zip(low, sides, strict=True)]) * weight.unsqueeze(1)
    return total


def _unnormalised(point: Tensor, size: int, align_corners: bool) -> Tensor:
    """A coordinate from -1 to 1 in elements: the ends are the middle of the outer elements, or their outer sides."""
    return (point + 1) * ((size - 1) / 2) if align_corners else ((point + 1) * size - 1) / 2


def _in_padding(at: Tensor, size: int, mode: int, align_corners: bool) -> Tensor:
    """Coordinates outside brought to the border, or mirrored there."""
    import torch

    if mode == _ZEROS:
        return at
    if mode == _BORDER:
        return at.clamp(0, size - 1)
    low, span = (0.0, size - 1) if align_corners else (-0.5, size)
    if span == 0:
        return torch.zeros_like(at)
    distance = (at - low).abs()
    turns = (distance / span).floor()
    rest = distance - turns * span
    mirrored = torch.where(turns % 2 == 0, rest + low, span - rest + low)
    return mirrored.clamp(0, size - 1)


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "_embedding_bag_forward_only.default": _embedding_bag,
    "_embedding_bag.default": _embedding_bag,
    "segment_reduce.default": _segment_reduce,
    "grid_sampler_3d.default": _grid_sampler_3d,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
