"""Operators that move elements: reshape, transpose, slice, concat, broadcast, pad, iota; by views and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from xdsl.ir import Operation

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, element_bytes, shape_of
from pimc.backends.lower.elementwise import map_views
from pimc.backends.lower.values import Scalar
from pimc.backends.lower.views import (
    Dim,
    View,
    address_of,
    contiguous,
    copy_view,
    filled_as,
    fresh,
    nest,
    set_view,
    view_of,
)
from pimc.ir import nn
from pimc.ir.nn.base import values_of


def lower_reshape(ctx: LoweringContext, op: nn.ReshapeOp) -> None:
    """The same bytes: free where they have no gaps."""
    lowered = ctx.values.get(op.x)
    if isinstance(lowered, Scalar):
        ctx.set(op.result, lowered)
    else:
        set_view(ctx, op.result, contiguous(ctx, view_of(ctx, op.x)).reshape(shape_of(op.result)))


def lower_transpose(ctx: LoweringContext, op: nn.TransposeOp) -> None:
    """Dimensions in another order."""
    set_view(ctx, op.result, view_of(ctx, op.x).permute(values_of(op.permutation)))


def lower_slice(ctx: LoweringContext, op: nn.SliceOp) -> None:
    """Part of each dimension; free where the part has no gaps."""
    view = view_of(ctx, op.x)
    bounds = zip(values_of(op.starts), values_of(op.steps), shape_of(op.result), strict=True)
    for dim, (start, step, count) in enumerate(bounds):
        view = view.slice(dim, start, count, step)
    set_view(ctx, op.result, view)


def lower_broadcast_to(ctx: LoweringContext, op: nn.BroadcastToOp) -> None:
    """Repeated along dimensions."""
    set_view(ctx, op.result, view_of(ctx, op.x).broadcast(shape_of(op.result)))


def lower_concat(ctx: LoweringContext, op: nn.ConcatOp) -> None:
    """One behind the other."""
    result = fresh(ctx, "concat", shape_of(op.result), element_bytes(op.result))
    axis, start = op.axis.value.data % result.rank, 0
    for operand in op.inputs:
        part = view_of(ctx, operand)
        copy_view(ctx, part, result.slice(axis, start, part.shape[axis]))
        start += part.shape[axis]
    set_view(ctx, op.result, result)


def lower_pad(ctx: LoweringContext, op: nn.PadOp) -> None:
    """x in the middle; around it a number, or dimension by dimension what is there already."""
    x, low, high = view_of(ctx, op.x), values_of(op.low), values_of(op.high)
    shape, mode = shape_of(op.result), op.mode.data
    if mode == "constant":
        result = filled_as(ctx, op.result, shape, op.value.value.data)
    else:
        result = fresh(ctx, "pad", shape, x.itemsize)
    middle = result
    for dim, extent in enumerate(x.shape):
        middle = middle.slice(dim, low[dim], extent)
    copy_view(ctx, x, middle)
    if mode != "constant":
        for dim, extent in enumerate(x.shape):
            area = result
            for later in range(dim + 1, x.rank):
                area = area.slice(later, low[later], x.shape[later])
            _pad(ctx, area, dim, _sources(extent, low[dim], high[dim], mode), low[dim], extent)
    set_view(ctx, op.result, result)


def _sources(extent: int, low: int, high: int, mode: str) -> list[int]:
    """The element that each place of a padded dimension shows."""
    numbers, around = np.arange(extent), (low, high)
    if mode == "reflect":
        padded = np.pad(numbers, around, "reflect")
    else:
        padded = np.pad(numbers, around, "edge") if mode == "edge" else np.pad(numbers, around, "wrap")
    return [int(number) for number in padded]


def _pad(ctx: LoweringContext, area: View, dim: int, sources: Sequence[int], low: int, extent: int) -> None:
    """Fill the places of a dimension outside of the middle; ``sources``: the place in the middle for each."""
    for first, part in ((0, sources[:low]), (low + extent, sources[low + extent :])):
        for start, source, count, step in _runs(part):
            copy_view(ctx, area.slice(dim, source + low, count, step), area.slice(dim, first + start, count))


def _runs(sources: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """(first place, its source, places, step) of maximal runs whose sources are a step of -1, 0 or 1 apart."""
    start, end = 0, len(sources)
    while start < end:
        stop = start + 1
        step = int(sources[stop] - sources[start]) if stop < end else 1
        if abs(step) <= 1:
            while stop < end and sources[stop] - sources[stop - 1] == step:
                stop += 1
        else:
            step = 1
        yield start, int(sources[start]), stop - start, step
        start = stop


def lower_iota(ctx: LoweringContext, op: nn.IotaOp) -> None:
    """Counted by the scalar unit along the axis, then repeated."""
    shape = shape_of(op.result)
    axis = op.axis.value.data % len(shape)
    line = fresh(ctx, "iota", (shape[axis],), INTEGER_BYTES)
    if line.elements:
        steps = [Dim(shape[axis], (INTEGER_BYTES, 1))] if shape[axis] > 1 else []
        with nest(ctx, steps, [address_of(ctx, line), ctx.core.const(0)]) as (place, number):
            ctx.core.sw(number, place, imm=0)
    if element_bytes(op.result) != INTEGER_BYTES:
        wide, half = fresh(ctx, "iota.wide", line.shape, 4), fresh(ctx, "iota.half", line.shape)
        map_views(ctx, "vitof", wide, line)
        map_views(ctx, "vcvt_h", half, wide)
        line = half
    for _ in range(axis + 1, len(shape)):
        line = line.expand_dims(line.rank)
    set_view(ctx, op.result, line.broadcast(shape))


#: Lowering of each operator of this module.
TABLE: Mapping[type[Operation], Callable[..., None]] = {
    nn.ReshapeOp: lower_reshape,
    nn.TransposeOp: lower_transpose,
    nn.SliceOp: lower_slice,
    nn.BroadcastToOp: lower_broadcast_to,
    nn.ConcatOp: lower_concat,
    nn.PadOp: lower_pad,
    nn.IotaOp: lower_iota,
}
