"""Reads and writes at computed indices: loops of the scalar unit that fetch an index, and move what it points to.

A negative index counts from the end; one outside of ``[-n, n)`` is taken as the nearest valid one (the interpreter
refuses it: a core has nobody to tell).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import TypeAlias

from xdsl.ir import SSAValue

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, shape_of
from pimc.backends.lower.views import (
    MOVE,
    Dim,
    View,
    address_of,
    copy_at,
    copy_view,
    dense_strides,
    fresh,
    nest,
    set_view,
    view_of,
)
from pimc.ir import nn

#: A nest of loops that gives addresses.
Places: TypeAlias = AbstractContextManager[tuple[SSAValue, ...]]
#: Vector instruction by which a scatter of fp16 numbers joins an update with an element.
_JOIN_HALF: Mapping[str, str] = {"add": "vadd_h", "mul": "vmul_h", "max": "vmax_h", "min": "vmin_h"}
#: Scalar instruction for integers.
_JOIN_INTEGER: Mapping[str, str] = {"add": "add", "mul": "mul", "max": "max", "min": "min"}


def position(ctx: LoweringContext, at: SSAValue, extent: int, offset: int = 0) -> SSAValue:
    """The index stored ``offset`` bytes behind address ``at`` as a position: 0 .. extent - 1."""
    core = ctx.core
    index = core.lw(at, imm=offset)
    from_end = core.and_(core.srai(index, imm=31), core.const(extent))
    return core.max(core.min(core.add(index, from_end), core.const(extent - 1)), core.const(0))


def lower_gather(ctx: LoweringContext, op: nn.GatherOp) -> None:
    """Slices along an axis: ``result[o, i, r] = x[o, indices[i], r]``."""
    x, indices = view_of(ctx, op.x), view_of(ctx, op.indices)
    axis = op.axis.value.data % x.rank
    outer, extent, inner = prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :])
    size, count = x.itemsize, indices.elements
    result = fresh(ctx, "gather", shape_of(op.result), size)
    if result.elements:
        source = View(x.buffer, (outer, inner), (extent * inner * size, size), 0, size)
        to = View(result.buffer, (outer, inner), (count * inner * size, size), 0, size)
        steps = [Dim(count, (INTEGER_BYTES, inner * size))] if count > 1 else []
        with nest(ctx, steps, [address_of(ctx, indices), address_of(ctx, result)]) as (index, place):
            chosen = ctx.core.mul(position(ctx, index, extent), ctx.core.const(inner * size))
            copy_at(ctx, source, to, ctx.core.add(address_of(ctx, x), chosen), place)
    set_view(ctx, op.result, result)


def lower_gather_elements(ctx: LoweringContext, op: nn.GatherElementsOp) -> None:
    """One element for each index: ``result[i, j] = x[indices[i, j], j]`` for axis 0."""
    x, indices = view_of(ctx, op.x), view_of(ctx, op.indices)
    axis = op.axis.value.data % x.rank
    result = fresh(ctx, "gather", indices.shape, x.itemsize)
    if result.elements:
        with _each_element(ctx, indices, x, axis, result) as (index, base, place):
            ctx.core.emit(MOVE[x.itemsize], place, _chosen(ctx, index, base, x, axis), ctx.core.const(1))
    set_view(ctx, op.result, result)


def lower_gather_nd(ctx: LoweringContext, op: nn.GatherNdOp) -> None:
    """Slices at tuples of indices: ``result[b, i] = x[b, indices[b, i, 0], indices[b, i, 1], ...]``."""
    x, indices = view_of(ctx, op.x), view_of(ctx, op.indices)
    batch, depth = op.batch_dims.value.data, indices.shape[-1]
    result = fresh(ctx, "gather", shape_of(op.result), x.itemsize)
    if result.elements:
        run = prod(x.shape[batch + depth :])
        with _each_tuple(ctx, indices, x, batch, result, run) as (index, base, place):
            ctx.core.emit(MOVE[x.itemsize], place, _tuple(ctx, index, base, x, batch, depth), ctx.core.const(run))
    set_view(ctx, op.result, result)


def lower_scatter_elements(ctx: LoweringContext, op: nn.ScatterElementsOp) -> None:
    """A copy of x with an update at each index."""
    result = _copy(ctx, op.x)
    indices, updates = view_of(ctx, op.indices), view_of(ctx, op.updates)
    axis = op.axis.value.data % result.rank
    if indices.elements:
        with _each_element(ctx, indices, result, axis, updates) as (index, base, update):
            _join(ctx, op.reduction.data, result, _chosen(ctx, index, base, result, axis), update, 1)
    set_view(ctx, op.result, result)


def lower_scatter_nd(ctx: LoweringContext, op: nn.ScatterNdOp) -> None:
    """A copy of x with a slice at each tuple of indices replaced."""
    result = _copy(ctx, op.x)
    indices, updates = view_of(ctx, op.indices), view_of(ctx, op.updates)
    depth = indices.shape[-1]
    if updates.elements:
        run = prod(result.shape[depth:])
        with _each_tuple(ctx, indices, result, 0, updates, run) as (index, base, update):
            _join(ctx, op.reduction.data, result, _tuple(ctx, index, base, result, 0, depth), update, run)
    set_view(ctx, op.result, result)


def _copy(ctx: LoweringContext, value: SSAValue) -> View:
    source = view_of(ctx, value)
    result = fresh(ctx, "scatter", source.shape, source.itemsize)
    copy_view(ctx, source, result)
    return result


def _each_element(ctx: LoweringContext, indices: View, x: View, axis: int, other: View) -> Places:
    """Loops over all indices: addresses of the index, of x's element at index 0 of the axis, and of ``other``'s."""
    dims = [
        Dim(extent, (step, 0 if dim == axis else x.strides[dim], beside))
        for dim, (extent, step, beside) in enumerate(zip(indices.shape, indices.strides, other.strides, strict=True))
        if extent > 1
    ]
    return nest(ctx, dims, [address_of(ctx, view) for view in (indices, x, other)])


def _chosen(ctx: LoweringContext, index: SSAValue, base: SSAValue, x: View, axis: int) -> SSAValue:
    """The address of x's element at an index of an axis."""
    core = ctx.core
    return core.add(base, core.mul(position(ctx, index, x.shape[axis]), core.const(x.strides[axis])))


def _each_tuple(ctx: LoweringContext, indices: View, x: View, batch: int, other: View, run: int) -> Places:
    """Loops over all tuples: addresses of the tuple, of x's slice of the batch, and of ``other``'s run of elements."""
    tuples = indices.shape[:-1]
    beside = [stride * run for stride in dense_strides(tuples, other.itemsize)]
    dims = [
        Dim(extent, (indices.strides[dim], x.strides[dim] if dim < batch else 0, beside[dim]))
        for dim, extent in enumerate(tuples)
        if extent > 1
    ]
    return nest(ctx, dims, [address_of(ctx, view) for view in (indices, x, other)])


def _tuple(ctx: LoweringContext, index: SSAValue, base: SSAValue, x: View, batch: int, depth: int) -> SSAValue:
    """The address of x's slice at a tuple of indices."""
    core, address = ctx.core, base
    for number in range(depth):
        at = position(ctx, index, x.shape[batch + number], INTEGER_BYTES * number)
        address = core.add(address, core.mul(at, core.const(x.strides[batch + number])))
    return address


def _join(ctx: LoweringContext, reduction: str, x: View, to: SSAValue, update: SSAValue, count: int) -> None:
    """``count`` elements at ``to`` with updates: replaced, or joined."""
    core = ctx.core
    if reduction == "none":
        core.emit(MOVE[x.itemsize], to, update, core.const(count))
    elif x.itemsize == INTEGER_BYTES:
        with nest(ctx, [Dim(count, (INTEGER_BYTES, INTEGER_BYTES))], [to, update]) as (place, source):
            joined = core.emit(_JOIN_INTEGER[reduction], core.lw(place), core.lw(source)).results[0]
            core.sw(joined, place)
    else:
        core.emit(_JOIN_HALF[reduction], to, to, update, core.const(count))
