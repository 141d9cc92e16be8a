"""Pooling on the vector unit: one maximum a place of the window, of runs through all channels at once."""

from __future__ import annotations

from math import prod
from typing import Final

from pimc.backends.lower.context import LoweringContext, is_wide, whole_shape_of
from pimc.backends.lower.parts import Cut, Part, clear_padding, cut_of, parts_of, set_parts
from pimc.backends.lower.sliding import BLOCK_SHARE, Sliding
from pimc.backends.lower.views import MOVE, View, address_of, copy_at, fresh
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
        channels = _channels(ctx, window, places, result)
        s = Sliding(window, places, result.shape[2:], 1, channels, x.itemsize)
        with ctx.each_row(result.shape[0]) as number, ctx.row_blocks(result.shape[1], channels) as first:
            at, to = address_of(ctx, x), address_of(ctx, result)
            for index, steps in (
                (number, (x.strides[0], result.strides[0])),
                (first, (x.strides[1], result.strides[1])),
            ):
                if index is not None:
                    at, to = (core.add(each, core.mul(index, step)) for each, step in zip((at, to), steps, strict=True))
            block, own = x.index(0, 0).slice(0, 0, channels), result.index(0, 0).slice(0, 0, channels)
            arranged = s.arrange(ctx, block.expand_dims(0), at, lowest)
            pitch = arranged.channel // x.itemsize
            flat = fresh(ctx, "pool.rows", (channels, pitch), x.itemsize)
            runs, count = address_of(ctx, flat), core.const((channels - 1) * pitch + s.run)
            core.emit(MOVE[x.itemsize], runs, arranged.at, count)
            with s.each_place(ctx, arranged, arranged.at) as (under, _):
                core.emit(greater, runs, runs, under, count)
            copy_at(ctx, s.between_rows(flat, own.shape), own, runs, to)
    set_parts(ctx, op.result, [Part(result, cuts)])


def _channels(ctx: LoweringContext, window: nn.Window, places: tuple[int, ...], result: View) -> int:
    """Channels that are arranged at once: equal blocks that take their share of the memory."""
    one = Sliding(window, places, result.shape[2:], 1, 1, result.itemsize)
    size = result.itemsize * prod(one.rows) * (prod(one.phases) + 1)
    most = max(1, ctx.target.memory("activation").bytes // BLOCK_SHARE // size)
    return -(-result.shape[1] // -(-result.shape[1] // most))
