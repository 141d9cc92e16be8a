"""Where extremes are: ``arg_max``, ``arg_min`` and ``top_k`` along any axis.

Integers are compared as fp32 numbers: exact up to 2^24.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from xdsl.ir import Operation

from pimc.backends.lower.context import F32_BYTES, INTEGER_BYTES, LoweringContext
from pimc.backends.lower.elementwise import floats_of, map_views
from pimc.backends.lower.indexing import Places
from pimc.backends.lower.views import (
    MOVE,
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

#: Below every finite number of the hardware: what -inf is taken for, so that -inf itself marks what has been found.
LOWEST = float(np.finfo(np.float32).min)


def lower_arg(ctx: LoweringContext, op: nn.ArgMaxOp | nn.ArgMinOp) -> None:
    """The index of the first (or last) extreme of each run along the axis."""
    x = _axis_last(view_of(ctx, op.x), op.axis.value.data)
    width, last = x.shape[-1], bool(op.select_last.value.data)
    runs = _numbers(ctx, x.reverse(x.rank - 1) if last else x, negated=isinstance(op, nn.ArgMinOp))
    result = fresh(ctx, "index", x.shape[:-1], INTEGER_BYTES)
    name = "vargmax_h" if runs.itemsize == F32_BYTES // 2 else "vargmax_f"
    if result.elements:
        to, source = (address_of(ctx, result), INTEGER_BYTES), (address_of(ctx, runs), width * runs.itemsize)
        ctx.core.on_rows(name, result.elements, to, source, n=width)
    if last:
        map_views(ctx, "vsub_i", result, filled(ctx, (), width - 1, INTEGER_BYTES), result)
    shape = nn.tensor_of(op.result).get_shape()
    set_view(ctx, op.result, result.reshape(shape))


def lower_top_k(ctx: LoweringContext, op: nn.TopKOp) -> None:
    """The k greatest or least of each run along the axis, one after the other: find, note, strike out."""
    core, k, axis = ctx.core, op.k.value.data, op.axis.value.data
    source = view_of(ctx, op.x)
    x = contiguous(ctx, _axis_last(source, axis))
    width, size = x.shape[-1], x.itemsize
    values = fresh(ctx, "top.values", (*x.shape[:-1], k), size)
    indices = fresh(ctx, "top.indices", (*x.shape[:-1], k), INTEGER_BYTES)
    numbers = _floats(ctx, x, negated=not op.largest.value.data)
    with _each_run(ctx, numbers, [x, values, indices], [width, k, k]) as (run, original, to, index):
        steps = [Dim(k, (size, INTEGER_BYTES))] if k != 1 else []
        with nest(ctx, steps, [to, index]) as (value, place):
            core.vargmax_f(place, run, core.const(width))
            chosen = core.lw(place)
            picked = core.add(original, core.mul(chosen, core.const(size)))
            core.emit(MOVE[size], value, picked, core.const(1))
            struck = core.add(run, core.slli(chosen, imm=2))
            core.vfill_f(struck, struck, ctx.f32(-np.inf), core.const(1))
    for result, view in ((op.values, values), (op.indices, indices)):
        set_view(ctx, result, _axis_back(view, axis))


def _axis_last(x: View, axis: int) -> View:
    axis %= x.rank
    return x.permute([d for d in range(x.rank) if d != axis] + [axis])


def _axis_back(x: View, axis: int) -> View:
    axis %= x.rank
    order = list(range(x.rank - 1))
    return x.permute([*order[:axis], x.rank - 1, *order[axis:]])


def _numbers(ctx: LoweringContext, x: View, *, negated: bool) -> View:
    """x without gaps as fp16 or fp32 numbers, negated where the least is looked for."""
    if x.itemsize == INTEGER_BYTES:
        x = floats_of(ctx, contiguous(ctx, x))
    if not negated:
        return contiguous(ctx, x)
    result = fresh(ctx, "negated", x.shape, x.itemsize)
    copy_view(ctx, x, result)
    if result.elements:
        at = address_of(ctx, result)
        ctx.core.emit("vneg_f" if x.itemsize == F32_BYTES else "vneg_h", at, at, ctx.core.const(result.elements))
    return result


def _floats(ctx: LoweringContext, x: View, *, negated: bool) -> View:
    """A copy of x in fp32 with -inf raised to ``LOWEST``, negated where the least is looked for."""
    wide = floats_of(ctx, x)
    if wide.elements:
        at, count = address_of(ctx, wide), ctx.core.const(wide.elements)
        if negated:
            ctx.core.vneg_f(at, at, count)
        ctx.core.vmaxs_f(at, at, ctx.f32(LOWEST), count)
    return wide


def _each_run(ctx: LoweringContext, runs: View, others: list[View], widths: list[int]) -> Places:
    """Loops over the runs along the last axis: their addresses, and those of the other views' runs of ``widths``."""
    count = prod(runs.shape[:-1])
    steps = [runs.shape[-1] * runs.itemsize]
    steps += [width * view.itemsize for view, width in zip(others, widths, strict=True)]
    dims = [Dim(count, tuple(steps))] if count != 1 else []
    return nest(ctx, dims, [address_of(ctx, view) for view in (runs, *others)])


#: How each operation is lowered.
TABLE: Mapping[type[Operation], Callable[..., None]] = {
    nn.ArgMaxOp: lower_arg,
    nn.ArgMinOp: lower_arg,
    nn.TopKOp: lower_top_k,
}
