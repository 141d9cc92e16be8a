"""Operators that move elements: reshape, transpose, slice, concat, broadcast, pad, iota; by views and copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from xdsl.ir import Operation

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, element_bytes, shape_of, whole_shape_of
from pimc.backends.lower.elementwise import map_views
from pimc.backends.lower.parts import (
    Part,
    blocks_of,
    clear_padding,
    copy_held,
    cut_of,
    fresh_parts,
    local_shape,
    parts_of,
    set_parts,
)
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
from pimc.ir.layout import layout_of
from pimc.ir.nn.base import values_of


def lower_reshape(ctx: LoweringContext, op: nn.ReshapeOp) -> None:
    """The same bytes: free where they have no gaps."""
    lowered = ctx.values.get(op.x)
    if isinstance(lowered, Scalar):
        ctx.set(op.result, lowered)
    else:
        _by_parts(ctx, op, lambda shape, x: contiguous(ctx, x).reshape(shape))


def lower_transpose(ctx: LoweringContext, op: nn.TransposeOp) -> None:
    """Dimensions in another order."""
    _by_parts(ctx, op, lambda _, x: x.permute(values_of(op.permutation)))


def lower_slice(ctx: LoweringContext, op: nn.SliceOp) -> None:
    """Part of each dimension; free where the part has no gaps."""
    starts, steps = values_of(op.starts), values_of(op.steps)

    def take(shape: tuple[int, ...], x: View) -> View:
        for dim, (start, step, count) in enumerate(zip(starts, steps, shape, strict=True)):
            x = x.slice(dim, start, count, step)
        return x

    _by_parts(ctx, op, take)


def lower_broadcast_to(ctx: LoweringContext, op: nn.BroadcastToOp) -> None:
    """Repeated along dimensions."""
    _by_parts(ctx, op, lambda shape, x: x.broadcast(shape))


def _by_parts(ctx: LoweringContext, op: Operation, view: Callable[[tuple[int, ...], View], View]) -> None:
    """A result that is a view of its one operand; ``view`` gives it from the result's shape and the operand, or from a
    core's part of both.
    """
    x, result = op.operands[0], op.results[0]
    layout = layout_of(result.type)
    if layout is None:
        set_view(ctx, result, view(shape_of(result), view_of(ctx, x)))
        return
    sources = parts_of(ctx, x)
    if len(sources) == 1:
        own = _own(ctx, view(local_shape(result), sources[0].view))
        set_parts(ctx, result, [Part(own, blocks_of(ctx, layout))])
        return
    results = fresh_parts(ctx, result, "part")
    for source, to in zip(sources, results, strict=True):
        copy_view(ctx, view(to.view.shape, source.view), to.view)
    set_parts(ctx, result, results)


def _own(ctx: LoweringContext, view: View) -> View:
    """A contiguous view at the start of its buffer."""
    return view if view.is_contiguous and not view.offset else _copied(ctx, view)


def _copied(ctx: LoweringContext, view: View) -> View:
    to = fresh(ctx, "part", view.shape, view.itemsize)
    copy_view(ctx, view, to)
    return to


def lower_concat(ctx: LoweringContext, op: nn.ConcatOp) -> None:
    """One behind the other."""
    axis = op.axis.value.data % len(whole_shape_of(op.result))
    results = fresh_parts(ctx, op.result, "concat")
    along = results[0].along(axis) is not None
    for index, result in enumerate(results):
        start = 0
        for operand in op.inputs:
            parts = parts_of(ctx, operand)
            part = parts[index if len(parts) > 1 else 0]
            if along:  # its parts lie as the result's do
                copy_held(ctx, part, result, whole_shape_of(operand))
                continue
            copy_view(ctx, part.view, result.view.slice(axis, start, part.view.shape[axis]))
            start += part.view.shape[axis]
        if along:
            clear_padding(ctx, result, whole_shape_of(op.result))
    set_parts(ctx, op.result, results)


def lower_pad(ctx: LoweringContext, op: nn.PadOp) -> None:
    """x in the middle; around it a number, or dimension by dimension what is there already."""
    low, high, mode = list(values_of(op.low)), list(values_of(op.high)), op.mode.data
    if layout_of(op.result.type) is None:
        set_view(ctx, op.result, _padded(ctx, op, view_of(ctx, op.x), low, high))
        return
    (part,), (dim, _) = parts_of(ctx, op.x), cut_of(ctx, op.result)
    if low[dim] or high[dim]:  # parts lie as the result's do; what is around x is theirs
        number = ctx.f32(op.value.value.data) if mode == "constant" else None
        part = replace(part, view=_copied(ctx, part.view))
        clear_padding(ctx, part, whole_shape_of(op.x), number)
        low[dim] = high[dim] = 0
    set_parts(ctx, op.result, [Part(_own(ctx, _padded(ctx, op, part.view, low, high)), part.cuts)])


def _padded(ctx: LoweringContext, op: nn.PadOp, x: View, low: Sequence[int], high: Sequence[int]) -> View:
    """x with what is around it."""
    mode, shape = op.mode.data, tuple(a + n + b for a, n, b in zip(low, x.shape, high, strict=True))
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
    return result


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
