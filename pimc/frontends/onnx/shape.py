"""Converters of ONNX operators that arrange elements: shapes, slices, joins, padding, and tensors made of shapes."""

from __future__ import annotations

from itertools import accumulate
from math import prod
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32, i64
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.onnx.context import Converted, NodeContext, Table
from pimc.frontends.onnx.elements import element_of, element_of_array
from pimc.frontends.onnx.limits import bounded
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _shape(ctx: NodeContext) -> Converted:
    shape = ctx.shape(0)
    start, end = ctx.attr_int("start", 0), ctx.attr_int("end", len(shape))
    low, high = (min(max(bound + len(shape) if bound < 0 else bound, 0), len(shape)) for bound in (start, end))
    return ctx.constant(np.asarray(shape[low:high], np.int64), i64)


def _size(ctx: NodeContext) -> Converted:
    return ctx.constant(np.asarray(prod(ctx.shape(0)), np.int64), i64)


def _reshape(ctx: NodeContext) -> Converted:
    have, wanted = ctx.shape(0), ctx.ints(1, "the new shape")
    if not ctx.attr_int("allowzero", 0):
        wanted = [have[index] if size == 0 else size for index, size in enumerate(wanted)]
    if -1 in wanted:
        rest = prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = prod(have) // rest if rest else 0
    return ctx.reshape(ctx.value(0), wanted)


def _flatten(ctx: NodeContext) -> Converted:
    shape, axis = ctx.shape(0), ctx.attr_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return ctx.reshape(ctx.value(0), (prod(shape[:axis]), prod(shape[axis:])))


def _squeeze(ctx: NodeContext) -> Converted:
    shape = ctx.shape(0)
    given = axes_of(ctx)
    axes = {axis % len(shape) for axis in given} if given is not None else {i for i, n in enumerate(shape) if n == 1}
    return ctx.reshape(ctx.value(0), [size for index, size in enumerate(shape) if index not in axes])


def _unsqueeze(ctx: NodeContext) -> Converted:
    shape, given = list(ctx.shape(0)), axes_of(ctx)
    if given is None:
        raise UnsupportedError("the axes are missing")
    rank = len(shape) + len(given)
    axes = {axis % rank for axis in given}
    sizes = iter(shape)
    return ctx.reshape(ctx.value(0), [1 if index in axes else next(sizes) for index in range(rank)])


def axes_of(ctx: NodeContext, index: int = 1) -> list[int] | None:
    """Axes as an input (newer opsets) or an attribute (older ones); None where neither is given."""
    if ctx.has(index):
        return ctx.ints(index, "the axes")
    return ctx.attr_ints("axes") if ctx.has_attr("axes") else None


def _transpose(ctx: NodeContext) -> Converted:
    rank = len(ctx.shape(0))
    return ctx.transpose(ctx.value(0), ctx.attr_ints("perm", list(range(rank))[::-1]))


def _slice(ctx: NodeContext) -> Converted:
    shape = ctx.shape(0)
    starts = ctx.ints(1, "the starts") if ctx.count > 1 else ctx.attr_ints("starts")
    ends = ctx.ints(2, "the ends") if ctx.count > 1 else ctx.attr_ints("ends")
    axes = axes_of(ctx, 3) or list(range(len(starts)))
    steps = ctx.ints(4, "the steps") if ctx.has(4) else [1] * len(starts)
    low, high, by = [0] * len(shape), list(shape), [1] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape)
        low[axis], high[axis], by[axis] = _bounds(start, end, step, shape[axis])
    return ctx.slice(ctx.value(0), low, high, by)


def _bounds(start: int, end: int, step: int, size: int) -> tuple[int, int, int]:
    """Bounds as `nn.slice` has them: within the dimension, an empty slice where there is nothing between them."""
    taken = range(size)[slice(max(min(start, size), -size - 1), max(min(end, size), -size - 1), step)]
    if len(taken) == 0:
        return 0, 0, 1
    last = taken[-1]
    return taken[0], last + (1 if step > 0 else -1), step


def _split(ctx: NodeContext) -> Converted:
    shape, axis = ctx.shape(0), ctx.attr_int("axis", 0)
    size = shape[axis]
    if ctx.has(1):
        parts = ctx.ints(1, "the sizes of the parts")
    elif ctx.has_attr("split"):
        parts = ctx.attr_ints("split")
    else:
        count = ctx.attr_int("num_outputs", ctx.outputs)
        each = -(-size // count)
        parts = [min(each, max(0, size - each * index)) for index in range(count)]
    ends = list(accumulate(parts))
    x = ctx.value(0)
    return [ctx.cut(x, axis, end - part, end) for part, end in zip(parts, ends, strict=True)]


def _concat(ctx: NodeContext) -> Converted:
    return ctx.concat(ctx.values(), ctx.attr_int("axis"))


def _tile(ctx: NodeContext) -> Converted:
    shape, repeats = ctx.shape(0), ctx.ints(1, "the repeats")
    x = ctx.reshape(ctx.value(0), [size for dim in shape for size in (1, dim)])
    spread = ctx.broadcast(x, [size for dim, count in zip(shape, repeats, strict=True) for size in (count, dim)])
    return ctx.reshape(spread, [dim * count for dim, count in zip(shape, repeats, strict=True)])


def _pad(ctx: NodeContext) -> Converted:
    shape = ctx.shape(0)
    pads = ctx.ints(1, "the paddings") if ctx.has(1) else ctx.attr_ints("pads")
    axes = [axis % len(shape) for axis in (axes_of(ctx, 3) or range(len(shape)))]
    value = 0.0
    if ctx.has(2):
        value = float(ctx.require(2, "the padding value").reshape(-1)[0])
    elif ctx.has_attr("value"):
        value = ctx.attr_float("value")
    low, high = [0] * len(shape), [0] * len(shape)
    for place, axis in enumerate(axes):
        low[axis], high[axis] = pads[place], pads[place + len(axes)]
    x = ctx.slice(
        ctx.value(0),
        [max(0, -before) for before in low],
        [size + min(0, after) for size, after in zip(shape, high, strict=True)],
    )
    low, high = [max(0, before) for before in low], [max(0, after) for after in high]
    if not any((*low, *high)):
        return x
    return ctx.emit(nn.PadOp(x, low, high, ctx.attr_str("mode", "constant"), value))


def _constant_of_shape(ctx: NodeContext) -> Converted:
    value = ctx.attr_tensor("value") if ctx.has_attr("value") else np.zeros(1, np.float32)
    return filled(ctx, value.reshape(-1)[0], element_of_array(value), ctx.ints(0, "the shape"))


def filled(ctx: NodeContext, number: float, element: Attribute, shape: list[int]) -> SSAValue:
    """A tensor of one number."""
    return ctx.broadcast(ctx.constant(number, element), shape)


def _range(ctx: NodeContext) -> Converted:
    first = ctx.require(0, "a bound of the range")
    start, limit, delta = (ctx.require(index, "a bound of the range").reshape(-1)[0] for index in range(3))
    count = max(0, int(np.ceil((limit - start) / delta)))
    bounded([count])
    return ctx.constant(start + delta * np.arange(count), element_of_array(first))


def _eye_like(ctx: NodeContext) -> Converted:
    rows, columns = ctx.shape(0)
    bounded([rows, columns])
    element = element_of(ctx.attr_int("dtype")) if ctx.has_attr("dtype") else ctx.element(0)
    return ctx.constant(np.eye(rows, columns, ctx.attr_int("k", 0)), element)


def _trilu(ctx: NodeContext) -> Converted:
    """Elements above (or below) diagonal k become zero."""
    x, shape = ctx.value(0), ctx.shape(0)
    k = int(ctx.require(1, "the diagonal").reshape(-1)[0]) if ctx.has(1) else 0
    rows, columns = shape[-2:]
    bounded([rows, columns])
    distance = np.arange(columns)[None, :] - np.arange(rows)[:, None]
    kept = distance >= k if ctx.attr_int("upper", 1) else distance <= k
    if prod(shape) == 0:
        return x
    zero = ctx.cast(ctx.constant(0.0, f32), ctx.element(0))
    return ctx.emit(nn.SelectOp(mask(ctx, kept), x, zero))


def mask(ctx: NodeContext, values: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> SSAValue:
    """A constant of truth values."""
    return ctx.constant(values, element_of_array(values))


def _depth_to_space(ctx: NodeContext) -> Converted:
    batch, depth, height, width = ctx.shape(0)
    block = ctx.attr_int("blocksize")
    rest = depth // block**2
    if ctx.attr_str("mode", "DCR") == "DCR":
        x = ctx.reshape(ctx.value(0), (batch, block, block, rest, height, width))
        x = ctx.transpose(x, (0, 3, 4, 1, 5, 2))
    else:
        x = ctx.reshape(ctx.value(0), (batch, rest, block, block, height, width))
        x = ctx.transpose(x, (0, 1, 4, 2, 5, 3))
    return ctx.reshape(x, (batch, rest, height * block, width * block))


def _space_to_depth(ctx: NodeContext) -> Converted:
    batch, depth, height, width = ctx.shape(0)
    block = ctx.attr_int("blocksize")
    rows, columns = height // block, width // block
    x = ctx.reshape(ctx.value(0), (batch, depth, rows, block, columns, block))
    if ctx.attr_str("mode", "DCR") == "DCR":
        x = ctx.transpose(x, (0, 3, 5, 1, 2, 4))
    else:
        x = ctx.transpose(x, (0, 1, 3, 5, 2, 4))
    return ctx.reshape(x, (batch, depth * block**2, rows, columns))


def _reverse_sequence(ctx: NodeContext) -> Converted:
    """Every sequence of the batch turned round up to its length."""
    shape = ctx.shape(0)
    time, batch = ctx.attr_int("time_axis", 0), ctx.attr_int("batch_axis", 1)
    lengths = ctx.ints(1, "the lengths")
    x = ctx.value(0)
    parts: list[SSAValue] = []
    for index, length in enumerate(lengths):
        row = ctx.cut(x, batch, index, index + 1)
        head = ctx.cut(row, time, length - 1, -1, -1) if length else None
        tail = ctx.cut(row, time, length, shape[time]) if length < shape[time] else None
        parts.append(ctx.concat([part for part in (head, tail) if part is not None], time))
    return ctx.concat(parts, batch)


TABLE: Final[Table] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
