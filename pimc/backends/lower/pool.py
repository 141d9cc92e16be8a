"""Pooling on the vector unit: one maximum a place of the window, of runs through all channels at once."""

from __future__ import annotations

from typing import Final

from pimc.backends.lower.context import LoweringContext, is_wide, whole_shape_of
from pimc.backends.lower.parts import Cut, Part, clear_padding, cut_of, parts_of, set_parts
from pimc.backends.lower.sliding import Sliding
from pimc.backends.lower.views import MOVE, address_of, copy_at, fresh
from pimc.ir import nn
from pimc.ir.layout import layout_of

_LOWEST_INTEGER: Final = -(2**31)
_INTEGER_BYTES: Final = 4
_WINDOW: Final = 2
"""The first dimension that the window moves along."""


def lower_max_pool(ctx: LoweringContext, op: nn.MaxPoolOp) -> None:
    """This core's part of the result, or all of it."""
    core, part = ctx.core, parts_of(ctx, op.x)[0]
    places, counts = tuple(op.places.get_values()), list(whole_shape_of(op.result))
    integers = part.view.itemsize == _INTEGER_BYTES and not is_wide(op.x)
    lowest = ctx.word(_LOWEST_INTEGER) if integers else ctx.f32(float("-inf"))
    greater = "vmax_i" if integers else "vmax_h"
    window = nn.window_of(op)
    layout = layout_of(op.result.type)
    cuts: tuple[Cut, ...] = ()
    if layout is not None:
        dim, shard = cut_of(ctx, op.result)
        cuts = (Cut(dim, shard),)
        counts[dim] = shard.max_local_size
        if dim >= _WINDOW:  # what is around x is here already
            clear_padding(ctx, part, whole_shape_of(op.x), lowest)
            window = window.without_padding(dim - _WINDOW)
    x, result = part.view, fresh(ctx, "pool", counts, part.view.itemsize)
    if result.elements:
        batch, channels, *positions = result.shape
        s = Sliding(window, places, tuple(positions), 1, channels, x.itemsize)
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
    set_parts(ctx, op.result, [Part(result, cuts)])
