"""Values in DRAM: a core's part of them, or a block of its rows, to local memory and back."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation, SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.parts import Part, fresh_parts, parts_of, set_parts
from pimc.backends.lower.values import Dram
from pimc.backends.lower.views import Dim, View, coalesce, contiguous, dense_strides, nest, view_of
from pimc.ir import nn
from pimc.ir.layout import layout_of
from pimc.ir.pim.attributes import RegionAttr
from pimc.ir.pim.values import REGION, Area, EmptyOp, FillOp, ReadOp, SpillOp, WriteOp, areas_of


def lower_spill(ctx: LoweringContext, op: SpillOp) -> None:
    """Write the core's part."""
    place = _region(ctx, op)
    ctx.set(op.output, place)
    for view, area in zip(_local(ctx, op.input), _areas(ctx, op.output), strict=True):
        _move(ctx, view, _address(ctx, place, area), area.strides, write=True)


def lower_empty(ctx: LoweringContext, op: EmptyOp) -> None:
    """Only a place."""
    ctx.set(op.output, _region(ctx, op))


def lower_fill(ctx: LoweringContext, op: FillOp) -> None:
    """Read the core's part."""
    parts = fresh_parts(ctx, op.output, "fill")
    for view, area in zip(_views(op.output, parts), _areas(ctx, op.input), strict=True):
        _move(ctx, view, _address(ctx, _place(ctx, op.input), area), area.strides, write=False)
    set_parts(ctx, op.output, parts)


def lower_read(ctx: LoweringContext, op: ReadOp) -> None:
    """Read a block of rows."""
    parts = fresh_parts(ctx, op.output, "tile")
    _blocks(ctx, op, op.input, _views(op.output, parts), write=False)
    set_parts(ctx, op.output, parts)


def lower_write(ctx: LoweringContext, op: WriteOp) -> None:
    """Write a block of rows."""
    _blocks(ctx, op, op.input, _local(ctx, op.tile), write=True)
    ctx.rename(op.output, op.input)


def _blocks(ctx: LoweringContext, op: ReadOp | WriteOp, whole: SSAValue, tiles: Sequence[View], *, write: bool) -> None:
    """Move a block of rows of each group: of the one that a core has, or of all."""
    core, dim, (groups, per_group) = ctx.core, op.dim.value.data, op.groups
    layout = layout_of(whole.type)
    here = 1 if layout is not None and dim in layout.cuts else groups
    for view, area in zip(tiles, _areas(ctx, whole), strict=True):
        block = view.shape[dim] // here
        first = ctx.scalar(op.index)
        if per_group % block:
            first = core.min(first, core.const(per_group - block))
        at = core.add(_address(ctx, _place(ctx, whole), area), core.mul(first, core.const(area.strides[dim])))
        shape = (*view.shape[:dim], here, block, *view.shape[dim + 1 :])
        local = (*view.strides[:dim], block * view.strides[dim], *view.strides[dim:])
        there = (*area.strides[:dim], per_group * area.strides[dim], *area.strides[dim:])
        _move(ctx, View(view.buffer, shape, local, view.offset, view.itemsize), at, there, write=write)


def _move(ctx: LoweringContext, view: View, at: SSAValue, strides: Sequence[int], *, write: bool) -> None:
    """Move a view to or from the elements at an address of DRAM, ``strides`` apart: runs, in loops."""
    core = ctx.core
    dims = coalesce(view.shape, [view.strides, strides])
    run = dims.pop() if dims and dims[-1].strides == (view.itemsize,) * 2 else Dim(1, (view.itemsize,) * 2)
    size = core.const(run.extent * view.itemsize)
    with nest(ctx, dims, [core.address(view.buffer.value, view.offset), at]) as (here, there):
        if write:
            core.hwr(here, there, size)
        else:
            core.hrd(here, there, size)


def _local(ctx: LoweringContext, value: SSAValue) -> list[View]:
    """The local parts of a value, area by area; rows of features without gaps in them."""
    layout = layout_of(value.type)
    if layout is None or _is_run(tuple(layout.cuts), len(nn.tensor_of(value).get_shape())):
        view = view_of(ctx, value)
        return [view if not view.shape or view.strides[-1] == view.itemsize else contiguous(ctx, view)]
    return [part.view for part in parts_of(ctx, value)]


def _views(value: SSAValue, parts: Sequence[Part]) -> list[View]:
    """The same of parts without gaps; those along a leading dimension are one."""
    first = parts[0]
    if not _is_run(tuple(cut.dim for cut in first.cuts), first.view.rank):
        return [part.view for part in parts]
    shape = list(first.view.shape)
    shape[first.cut.dim] = first.cut.shard.max_local_size
    return [View(first.view.buffer, tuple(shape), dense_strides(shape, first.view.itemsize), 0, first.view.itemsize)]


def _is_run(dims: Sequence[int], rank: int) -> bool:
    """Whether one leading dimension is cut: then the rounds lie one behind the other along it."""
    return len(dims) == 1 and dims[0] < rank - 1


def _areas(ctx: LoweringContext, value: SSAValue) -> tuple[Area, ...]:
    return areas_of(nn.tensor_of(value), ctx.target.hbm.column_bytes)


def _address(ctx: LoweringContext, place: Dram, area: Area) -> SSAValue:
    base = ctx.core.const(place.base, place.name)
    return ctx.core.add(base, ctx.core.const(area.offset)) if area.offset else base


def _place(ctx: LoweringContext, value: SSAValue) -> Dram:
    place = ctx.values.get(value)
    if not isinstance(place, Dram):
        raise ctx.unsupported("this operand must be a value in DRAM")
    return place


def _region(ctx: LoweringContext, op: Operation) -> Dram:
    region = op.attributes.get(REGION)
    if not isinstance(region, RegionAttr):
        raise ctx.unsupported("it has no place in DRAM (run spill before lower)")
    return Dram(region.tensor.data, region.base.data)
