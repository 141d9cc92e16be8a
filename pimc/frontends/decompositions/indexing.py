"""Operators that read or write elements by mask, by flat number, or on a diagonal: as gathers and scatters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor


def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The n-th place where the mask is true gets the n-th element of the source."""
    import torch

    x, mask = torch.broadcast_tensors(x, mask)
    if x.numel() == 0 or source.numel() == 0:
        return x.clone()
    rank = mask.reshape(-1).to(torch.int64).cumsum(0) - 1
    found = source.reshape(-1)[rank.clamp(0, source.numel() - 1)]
    return torch.where(mask, found.reshape(mask.shape), x)


def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Elements written or added by their number in the flattened tensor, which counts from the end below 0."""
    import torch

    if index.numel() == 0:
        return x.clone()
    places = torch.where(index < 0, index + x.numel(), index).reshape(-1)
    flat = x.reshape(-1).index_put((places,), source.reshape(-1), accumulate)
    return flat.reshape(x.shape)


def _take(x: Tensor, index: Tensor) -> Tensor:
    import torch

    places = torch.where(index < 0, index + x.numel(), index).reshape(-1)
    return x.reshape(-1).index_select(0, places).reshape(index.shape)


def _index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Slices of the source combined with those of ``x`` at places along a dimension."""
    if x.dim() == 0:
        line = _index_reduce(x.reshape(1), 0, index.reshape(1), source.reshape(1), reduce, include_self=include_self)
        return line.reshape(())
    dim %= x.dim()
    column = index.reshape([-1 if axis == dim else 1 for axis in range(x.dim())])
    return x.scatter_reduce(dim, column.expand(source.shape), source, reduce, include_self=include_self)


def _written(x: Tensor, source: Tensor, places: Tensor) -> Tensor:
    """``x`` with the source at places that are known by their numbers."""
    flat = x.reshape(-1).scatter(0, places.reshape(-1), source.reshape(-1))
    return flat.reshape(x.shape)


def _numbers(x: Tensor) -> Tensor:
    import torch

    return torch.arange(x.numel(), device=x.device).reshape(x.shape)


def _diagonal_scatter(x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    return _written(x, source, _numbers(x).diagonal(offset, dim1, dim2))


def _as_strided_scatter(
    x: Tensor, source: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    if not x.is_contiguous():
        return NotImplemented
    return _written(x, source, _numbers(x).as_strided(size, stride, storage_offset or 0))


def _nonzero_static(x: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The indices of the first ``size`` elements that are not 0, one a row, and rows of ``fill_value`` behind."""
    import torch

    if x.numel() == 0 or x.dim() == 0 or size == 0:
        return torch.full((size, x.dim()), fill_value, dtype=torch.int64, device=x.device)
    true = (x != 0).reshape(-1)
    rank = true.to(torch.int64).cumsum(0) - 1
    # What is not wanted is written to one place more, which is cut off.
    place = torch.where(true & (rank < size), rank, size)
    empty = torch.full((size + 1,), -1, dtype=torch.int64, device=x.device)
    number = empty.scatter(0, place, torch.arange(x.numel(), device=x.device))[:size]
    columns: list[Tensor] = []
    rest = number
    for count in reversed(x.shape):
        columns.insert(0, torch.where(number < 0, fill_value, rest % count))
        rest = torch.div(rest, count, rounding_mode="floor")
    return torch.stack(columns, 1)


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "masked_scatter.default": _masked_scatter,
    "put.default": _put,
    "take.default": _take,
    "index_reduce.default": _index_reduce,
    "diagonal_scatter.default": _diagonal_scatter,
    "as_strided_scatter.default": _as_strided_scatter,
    "nonzero_static.default": _nonzero_static,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
