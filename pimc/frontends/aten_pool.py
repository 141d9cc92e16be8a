"""ATen's pooling -> `nn.max_pool`; and where more is asked for, or a mean, slices of the input, one a place.

Windows of several sizes (adaptive pooling to a count that does not divide the input's) are gathered instead: shorter
ones repeat their last element, which changes no maximum and counts 0 in a mean.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32, i32
from xdsl.ir import SSAValue

from pimc.frontends.aten_shape import pad
from pimc.frontends.aten_window import Window, per_dim, slices
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning
from pimc.frontends.graph import Converter
from pimc.ir import nn
from pimc.ir.constants import LARGEST_HALF


@dataclass(frozen=True)
class _Pool:
    """A window over the last dimensions: sizes of the input, padding in front, and how many results."""

    window: Window
    sizes: tuple[int, ...]
    low: tuple[int, ...]
    counts: tuple[int, ...]

    def pads(self) -> list[int]:
        """Low and high of the last dimension first; ``ceil_mode`` lets the last window reach beyond the padding."""
        found: list[int] = []
        for dim, (size, low, count) in reversed(list(enumerate(zip(self.sizes, self.low, self.counts, strict=True)))):
            last = (count - 1) * self.window.stride[dim] + self.window.reach(dim)
            found += [low, max(0, last - size - low)]
        return found

    def positions(self, place: Sequence[int]) -> npt.NDArray[np.int64]:
        """Of one place in the window, at each position of it: the element's number in the input's last dimensions."""
        total = np.zeros(self.counts, dtype=np.int64)
        for dim, (size, low, count) in enumerate(zip(self.sizes, self.low, self.counts, strict=True)):
            at = np.arange(count) * self.window.stride[dim] + place[dim] * self.window.dilation[dim] - low
            total = total * size + _along(at, dim, len(self.sizes))
        return total

    def divisors(self, with_padding: bool) -> npt.NDArray[np.int64]:
        """How many elements each window has, those of the padding in front and behind included or not."""
        total = np.ones(self.counts, dtype=np.int64)
        for dim, (size, low, count) in enumerate(zip(self.sizes, self.low, self.counts, strict=True)):
            start = np.arange(count) * self.window.stride[dim] - low
            stop = np.minimum(start + self.window.size[dim], size + low)
            length = stop - start if with_padding else np.minimum(stop, size) - np.maximum(start, 0)
            total = total * _along(length, dim, len(self.sizes))
        return total


def _along(values: npt.NDArray[np.int64], dim: int, rank: int) -> npt.NDArray[np.int64]:
    return values.reshape([-1 if axis == dim else 1 for axis in range(rank)])


def _pool(context: NodeContext, dims: int, x: SSAValue, counts: Sequence[int]) -> _Pool:
    arguments = context.arguments
    size = per_dim(arguments["kernel_size"], dims, "kernel size")
    stride = per_dim(arguments["stride"], dims, "stride", size)
    window = Window(size, stride, per_dim(arguments.get("dilation", 1), dims, "dilation"))
    low = per_dim(arguments["padding"], dims, "padding")
    return _Pool(window, nn.tensor_of(x).get_shape()[-dims:], low, tuple(counts[-dims:]))


def _reduced(context: NodeContext, parts: Sequence[SSAValue], op: Callable[[SSAValue, SSAValue], nn.NnOp]) -> SSAValue:
    result = parts[0]
    for part in parts[1:]:
        result = context.emit(op(result, part))
    return result


def _max_pool(dims: int) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        x = context.operand(context.arguments["self"], f32)
        return _greatest(context, x, _pool(context, dims, x, context.shape), context.shape)

    return convert


def _greatest(context: NodeContext, x: SSAValue, pool: _Pool, shape: Sequence[int]) -> SSAValue:
    """The greatest element under each window; all dimensions before the window's are one."""
    sides = pool.pads()[::-1]
    window = nn.Window(pool.window.stride, pool.window.dilation, tuple(sides[1::2]), tuple(sides[::2]))
    channels = context.reshape(x, (1, math.prod(shape[: -len(pool.sizes)]), *pool.sizes))
    return context.reshape(context.emit(nn.MaxPoolOp(channels, pool.window.size, window)), shape)


def _wants_places(context: NodeContext) -> bool:
    return any(user.args[1] == 1 for user in context.node.users)


def _max_pool_with_places(dims: int) -> Converter:
    """The maxima and, if asked for, the number of each in the input's last dimensions."""

    def convert(context: NodeContext) -> Meaning:
        x = context.operand(context.arguments["self"], f32)
        pool = _pool(context, dims, x, context.types[0].get_shape())
        shape = context.types[0].get_shape()
        if not _wants_places(context):
            return [_greatest(context, x, pool, shape)]
        padded = pad(context, x, pool.pads(), "constant", -LARGEST_HALF)
        parts = slices(context, padded, pool.window)
        numbers = [pool.positions(place) for place in itertools.product(*map(range, pool.window.size))]
        best = parts[0]
        place = context.broadcast(context.constant(numbers[0], i32), shape)
        for part, number in zip(parts[1:], numbers[1:], strict=True):
            kept = context.emit(nn.CompareOp(best, part, "ge"))
            best = context.emit(nn.MaximumOp(best, part))
            place = context.emit(nn.SelectOp(kept, place, context.constant(number, i32)))
        return [best, place]

    return convert


def _avg_pool(dims: int) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        arguments = context.arguments
        x = context.operand(arguments["self"], f32)
        pool = _pool(context, dims, x, context.shape)
        counts: npt.NDArray[np.int64] | float
        if arguments.get("divisor_override") is not None:
            counts = context.number(arguments["divisor_override"], "divisor")
        else:
            counts = pool.divisors(bool(arguments["count_include_pad"]))
            if bool((counts == counts.flat[0]).all()):
                counts = float(counts.flat[0])
        padded = pad(context, x, pool.pads(), "constant", 0.0)
        total = _reduced(context, slices(context, padded, pool.window), nn.AddOp)
        return context.emit(nn.DivOp(total, context.constant(counts, f32)))

    return convert


def _spans(size: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Of ``count`` windows that cover ``size`` elements: the elements of each, and which of them are no repetition."""
    starts = [index * size // count for index in range(count)]
    stops = [-(-(index + 1) * size // count) for index in range(count)]
    widest = max(stop - start for start, stop in zip(starts, stops, strict=True))
    places = np.array(starts)[:, None] + np.arange(widest)
    last = np.array(stops)[:, None] - 1
    return np.minimum(places, last), places <= last


def _adaptive_avg_pool(dims: int) -> Converter:
    """Equal windows are a mean of a reshaped input; others are gathered, one dimension after the other."""

    def convert(context: NodeContext) -> Meaning:
        x = context.operand(context.arguments["self"], f32)
        sizes, wanted = nn.tensor_of(x).get_shape()[-dims:], context.shape[-dims:]
        if 0 in context.shape:
            return context.empty()
        if any(size % count for size, count in zip(sizes, wanted, strict=True)):
            for dim in range(dims):
                x = _mean_of_spans(context, x, len(context.shape) - dims + dim, wanted[dim])
            return x
        size = tuple(have // count for have, count in zip(sizes, wanted, strict=True))
        lead = nn.tensor_of(x).get_shape()[:-dims]
        split = [number for pair in zip(wanted, size, strict=True) for number in pair]
        axes = [len(lead) + 2 * dim + 1 for dim in range(dims)]
        return context.emit(nn.ReduceMeanOp(context.reshape(x, (*lead, *split)), axes, False))

    return convert


def _mean_of_spans(context: NodeContext, x: SSAValue, axis: int, count: int) -> SSAValue:
    shape = nn.tensor_of(x).get_shape()
    if shape[axis] == count:
        return x
    places, real = _spans(shape[axis], count)
    weights = real / real.sum(1, keepdims=True)
    spread = context.emit(nn.GatherOp(x, context.constant(places, i32), axis))
    factors = context.constant(weights.reshape(*weights.shape, *(1,) * (len(shape) - axis - 1)), f32)
    return context.emit(nn.ReduceSumOp(context.emit(nn.MulOp(spread, factors)), [axis + 1], False))


def _adaptive_max_pool(dims: int) -> Converter:
    """The maxima of gathered windows and, if asked for, the number of each in the input's last dimensions."""

    def convert(context: NodeContext) -> Meaning:
        x = context.operand(context.arguments["self"], f32)
        shape, sizes = context.types[0].get_shape(), nn.tensor_of(x).get_shape()[-dims:]
        if 0 in shape:
            empty = context.constant(0, f32), context.constant(0, i32)
            return [context.broadcast(value, shape) for value in empty]
        lead, wanted = shape[:-dims], shape[-dims:]
        numbers = np.zeros((1,) * 2 * dims, dtype=np.int64)
        for dim in range(dims):
            places, _ = _spans(sizes[dim], wanted[dim])
            x = context.emit(nn.GatherOp(x, context.constant(places, i32), len(lead) + 2 * dim))
            spread = [1] * 2 * dims
            spread[2 * dim : 2 * dim + 2] = places.shape
            numbers = numbers * sizes[dim] + places.reshape(spread)
        order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)]
        table = numbers.transpose(order).reshape(math.prod(wanted), -1)
        moved = context.transpose(x, [*range(len(lead)), *(len(lead) + dim for dim in order)])
        rows = context.reshape(moved, (math.prod(lead), *table.shape))
        best = context.reshape(context.emit(nn.ReduceMaxOp(rows, [2], False)), shape)
        if not _wants_places(context):
            return [best]
        place = context.cast(context.emit(nn.ArgMaxOp(rows, 2, True, False)), i32)
        spread_table = context.broadcast(context.constant(table, i32), (math.prod(lead), *table.shape))
        return [best, context.reshape(context.emit(nn.GatherElementsOp(spread_table, place, 2)), shape)]

    return convert


TABLE: Final[Mapping[str, Converter]] = {
    **{f"aten.max_pool{n}d.default": _max_pool(n) for n in (1, 2, 3)},
    **{f"aten.max_pool{n}d_with_indices.default": _max_pool_with_places(n) for n in (1, 2, 3)},
    **{f"aten.avg_pool{n}d.default": _avg_pool(n) for n in (1, 2, 3)},
    **{f"aten.{kind}adaptive_avg_pool{n}d.default": _adaptive_avg_pool(n) for n in (1, 2, 3) for kind in ("", "_")},
    **{f"aten.adaptive_max_pool{n}d.default": _adaptive_max_pool(n) for n in (1, 2, 3)},
}
"""Converters by the operator's name."""
