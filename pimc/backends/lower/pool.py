"""Pooling on the vector unit: one maximum a place of the window, of runs through all channels at once."""

from __future__ import annotations

from typing import Final

from pimc.backends.lower.context import LoweringContext, is_wide, shape_of
from pimc.backends.lower.sliding import Sliding
from pimc.backends.lower.views import MOVE, address_of, copy_at, fresh, set_view, view_of
from pimc.ir import nn

_LOWEST_INTEGER: Final = -(2**31)
_INTEGER_BYTES: Final = 4


def lower_max_pool(ctx: LoweringContext, op: nn.MaxPoolOp) -> None:
    """The whole result on every core."""
    core, x = ctx.core, view_of(ctx, op.x)
    result = fresh(ctx, "pool", shape_of(op.result), x.itemsize)
    if result.elements:
        batch, channels, *counts = result.shape
        s = Sliding(nn.window_of(op), tuple(op.places.get_values()), tuple(counts), 1, channels, x.itemsize)
        integers = x.itemsize == _INTEGER_BYTES and not is_wide(op.x)
        lowest = ctx.word(_LOWEST_INTEGER) if integers else ctx.f32(float("-inf"))
        greater = "vmax_i" if integers else "vmax_h"
        with ctx.each_row(batch) as number:
            at, to = address_of(ctx, x), address_of(ctx, result)
            if number is not None:
                at = core.add(at, core.mul(number, core.const(x.strides[0])))
                to = core.add(to, core.mul(number, core.const(result.strides[0])))
            one = x.index(0, 0).expand_dims(0)
            arranged = s.arrange(ctx, one, at, lowest)
            pitch = arranged.channel // x.itemsize
            flat = fresh(ctx, "pool.rows", (channels, pitch), x.itemsize)
            runs, count = address_of(ctx, flat), core.const((channels - 1) * pitch + s.run)
            core.emit(MOVE[x.itemsize], runs, arranged.at, count)
            with s.each_place(ctx, arranged, arranged.at) as (under, _):
                core.emit(greater, runs, runs, under, count)
            copy_at(ctx, s.between_rows(flat, result.shape[1:]), result.index(0, 0), runs, to)
    set_view(ctx, op.result, result)
