"""Reductions over any axes, running totals, softmax over any axis: f32 totals of rows, one rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import nan, prod

from xdsl.ir import Operation, SSAValue

from pimc.backends.lower.context import F32_BYTES, INTEGER_BYTES, LoweringContext, is_wide, shape_of
from pimc.backends.lower.elementwise import is_boolean, is_integer, kind_of, map_scalar, map_views
from pimc.backends.lower.rows import softmax_rows
from pimc.backends.lower.vector import lower_softmax
from pimc.backends.lower.views import (
    Dim,
    View,
    address_of,
    contiguous,
    copy_view,
    filled,
    fresh,
    nest,
    set_view,
    view_of,
)
from pimc.ir import nn
from pimc.ir.nn.base import values_of
from pimc.ir.nn.shape import ReduceOp


@dataclass(frozen=True)
class Reduction:
    """Instruction on a row of fp16 or f32 to an f32; on two i32 vectors (None: not of integers), total of nothing."""

    row: str
    integer: str | None = None
    nothing: int = 0
    booleans: bool = False


REDUCTIONS: Mapping[type[Operation], Reduction] = {
    nn.ReduceSumOp: Reduction("vrsum", "vadd_i"),
    nn.ReduceMeanOp: Reduction("vrsum"),
    nn.ReduceMaxOp: Reduction("vrmax", "vmax_i", -(2**31), True),
    nn.ReduceMinOp: Reduction("vrmin", "vmin_i", 2**31 - 1, True),
    nn.ReduceProdOp: Reduction("vrprod", "vmul_i", 1, True),
}


def lower_reduce(ctx: LoweringContext, op: ReduceOp) -> None:
    """A reduction: the reduced axes last, a vector instruction for each row."""
    how, x = REDUCTIONS[type(op)], view_of(ctx, op.x)
    axes = sorted(axis % x.rank for axis in values_of(op.axes))
    if not axes:
        set_view(ctx, op.result, x.reshape(shape_of(op.result)))
        return
    kept = [axis for axis in range(x.rank) if axis not in axes]
    width = prod(x.shape[axis] for axis in axes)
    if is_integer(op.x):
        set_view(ctx, op.result, _integers(ctx, op, how, x.permute([*axes, *kept]), width))
        return
    if is_boolean(op.x) and not how.booleans:
        raise ctx.unsupported("a sum of truth values; cast them to numbers first")
    rows = prod(x.shape[axis] for axis in kept)
    source = contiguous(ctx, x.permute([*kept, *axes])).reshape((rows, width))
    totals = fresh(ctx, "totals", (rows,), F32_BYTES)
    result = totals if is_wide(op.result) else fresh(ctx, "reduced", (rows,))
    if rows:
        places = (address_of(ctx, totals), F32_BYTES), (address_of(ctx, source), x.itemsize * width)
        ctx.core.on_rows(f"{how.row}_{kind_of(op.x)}", rows, *places, n=width)
        if isinstance(op, nn.ReduceMeanOp):
            map_scalar(ctx, "vmuls_f", totals, totals, 1.0 / width if width else nan)
        elif is_boolean(op.x):  # of nothing, infinities
            map_scalar(ctx, "vmaxs_f", totals, totals, 0.0)
            map_scalar(ctx, "vmins_f", totals, totals, 1.0)
        if result != totals:
            map_views(ctx, "vcvt_h", result, totals)
    set_view(ctx, op.result, result.reshape(shape_of(op.result)))


def _rows(
    ctx: LoweringContext, rows: int, views: Sequence[tuple[View, int]]
) -> AbstractContextManager[tuple[SSAValue, ...]]:
    """A loop over rows: the addresses of the row in each view, with its pitch."""
    dims = [Dim(rows, tuple(pitch for _, pitch in views))] if rows > 1 else []
    return nest(ctx, dims, [address_of(ctx, view) for view, _ in views])


def _integers(ctx: LoweringContext, op: ReduceOp, how: Reduction, x: View, width: int) -> View:
    """Integers: vectors of what is kept, one after the other; ``x`` has the reduced axes first."""
    if how.integer is None:
        raise ctx.unsupported("no mean of integers; cast them to numbers first")
    kept = prod(shape_of(op.result))
    total = filled(ctx, (kept,), how.nothing, INTEGER_BYTES)
    if kept and width:
        source = contiguous(ctx, x)
        with _rows(ctx, width, [(total, 0), (source, INTEGER_BYTES * kept)]) as (place, row):
            ctx.core.emit(how.integer, place, place, row, ctx.core.const(kept))
    return total.reshape(shape_of(op.result))


def lower_scan(ctx: LoweringContext, op: nn.CumSumOp | nn.CumProdOp) -> None:
    """A running total: along the axis, vectors of the other dimensions; f32 totals (integers: i32)."""
    x = view_of(ctx, op.x)
    axis = op.axis.value.data % x.rank
    order = [axis, *(dim for dim in range(x.rank) if dim != axis)]
    result = fresh(ctx, "running", x.shape, x.itemsize)
    if result.elements:
        source, to = x.permute(order), result.permute(order)
        if op.reverse.value.data:
            source, to = source.reverse(0), to.reverse(0)
        parts = fresh(ctx, "running.parts", source.shape, x.itemsize)
        _scan(ctx, op, contiguous(ctx, source), parts)
        copy_view(ctx, parts, to)
    set_view(ctx, op.result, result)


def _scan(ctx: LoweringContext, op: nn.CumSumOp | nn.CumProdOp, x: View, to: View) -> None:
    """Running totals along dimension 0 of contiguous views."""
    core, steps, width = ctx.core, x.shape[0], prod(x.shape[1:])
    name, start = ("vadd", 0) if isinstance(op, nn.CumSumOp) else ("vmul", 1)
    count = core.const(width)
    pitch = x.itemsize * width
    with_integers = is_integer(op.x)
    total = filled(ctx, (width,), start, INTEGER_BYTES) if with_integers else fresh(ctx, "total", (width,), F32_BYTES)
    term = fresh(ctx, "term", (width,), 4)
    at, wide = address_of(ctx, total), address_of(ctx, term)
    if not with_integers:
        core.vfill_f(at, at, ctx.f32(start), count)
    with _rows(ctx, steps, [(x, pitch), (to, pitch)]) as (row, place):
        move = "vcvt_h" if kind_of(op.x) == "h" else "vmov_f"
        if op.exclusive.value.data:
            core.emit(move, place, at, count)
        if kind_of(op.x) != "h":
            core.emit(f"{name}_{kind_of(op.x)}", at, at, row, count)
        else:
            core.vcvt_f(wide, row, count)
            core.emit(f"{name}_f", at, at, wide, count)
        if not op.exclusive.value.data:
            core.emit(move, place, at, count)


def lower_any_softmax(ctx: LoweringContext, op: nn.SoftmaxOp) -> None:
    """Softmax over any axis: the last one by rows; another one is moved there and back."""
    shape = shape_of(op.x)
    axis = op.axis.value.data % max(1, len(shape))
    if axis == len(shape) - 1 and 0 not in shape and not is_wide(op.x):
        lower_softmax(ctx, op)
        return
    kind = kind_of(op.x)
    order = [*(dim for dim in range(len(shape)) if dim != axis), axis]
    source = contiguous(ctx, view_of(ctx, op.x).permute(order))
    result = fresh(ctx, "softmax", source.shape, source.itemsize)
    width = shape[axis]
    rows, pitch = prod(source.shape[:-1]), source.itemsize * width
    if result.elements:
        to, row = ((address_of(ctx, view), pitch) for view in (result, source))
        softmax_rows(ctx, rows, to, row, n=width, most=rows, kind=kind)
    back = [order.index(dim) for dim in range(len(shape))]
    set_view(ctx, op.result, result.permute(back))


#: Lowering of each operator of this module.
TABLE: Mapping[type[Operation], Callable[..., None]] = {
    **dict.fromkeys(REDUCTIONS, lower_reduce),
    nn.CumSumOp: lower_scan,
    nn.CumProdOp: lower_scan,
    nn.SoftmaxOp: lower_any_softmax,
}
