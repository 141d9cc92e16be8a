"""ATen operators that slide a window: convolution, pooling, unfold -> slices, linear layers, elementwise work.

A convolution is a linear layer over the patches under the window (im2col).  Windows that do not overlap (the patch
embedding of a vision transformer) are a reshape; others are one strided slice a place in the window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from pimc.frontends.aten_shape import as_int, as_ints, pad
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning, ParamRef
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

_LOWEST: Final = -65504.0
"""Padding of a maximum: the lowest fp16."""


@dataclass(frozen=True)
class Window:
    """A window over the last ``len(size)`` dimensions: one number each of size, stride, dilation."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def reach(self, dim: int) -> int:
        """From the first to behind the last element under the window."""
        return self.dilation[dim] * (self.size[dim] - 1) + 1

    def counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """How often the window fits."""
        return tuple((size - self.reach(dim)) // self.stride[dim] + 1 for dim, size in enumerate(sizes))


def _per_dim(value: object, dims: int, what: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """One number a dimension; a single one counts for all."""
    numbers = as_ints(value, what) if value is not None else []
    numbers = numbers or list(default)
    return tuple(numbers * dims if len(numbers) == 1 else numbers)


def _slices(context: NodeContext, x: SSAValue, window: Window) -> list[SSAValue]:
    """For each place in the window, what lies under it at every position of the window."""
    sizes = nn.tensor_of(x).get_shape()
    first = len(sizes) - len(window.size)
    counts = window.counts(sizes[first:])
    found: list[SSAValue] = []
    for place in itertools.product(*map(range, window.size)):
        part = x
        for dim, offset in enumerate(place):
            start = offset * window.dilation[dim]
            stop = start + (counts[dim] - 1) * window.stride[dim] + 1
            part = context.cut(part, first + dim, start, stop, window.stride[dim])
        found.append(part)
    return found


def _patches(context: NodeContext, x: SSAValue, window: Window) -> SSAValue:
    """``[N, C, *sizes]`` -> ``[N, *counts, C, window]``: what lies under the window at each position."""
    shape = nn.tensor_of(x).get_shape()
    batch, channels, *sizes = shape
    dims = len(sizes)
    counts = window.counts(sizes)
    if window.stride == window.size and set(window.dilation) <= {1}:
        for dim, count in enumerate(counts):
            x = context.cut(x, 2 + dim, 0, count * window.size[dim])
        split = [size for pair in zip(counts, window.size, strict=True) for size in pair]
        x = context.reshape(x, (batch, channels, *split))
        order = [0, *range(2, 2 + 2 * dims, 2), 1, *range(3, 3 + 2 * dims, 2)]
        return context.reshape(context.transpose(x, order), (batch, *counts, channels, math.prod(window.size)))
    parts = [context.reshape(part, (batch, channels, 1, *counts)) for part in _slices(context, x, window)]
    joined = context.concat(parts, 2)
    return context.transpose(joined, [0, *range(3, 3 + dims), 1, 2])


def _padding(context: NodeContext, window: Window) -> list[int]:
    """Low and high of the last dimension first, as pads are given; "same" and "valid" by name."""
    value = context.arguments["padding"]
    dims = len(window.size)
    if value == "valid":
        return [0] * 2 * dims
    if value == "same":
        total = [window.reach(dim) - 1 for dim in range(dims)]
        return [side for size in reversed(total) for side in (size // 2, size - size // 2)]
    sides = _per_dim(value, dims, "padding")
    return [side for size in reversed(sides) for side in (size, size)]


def _conv(context: NodeContext) -> Meaning:
    """``[N, C, *sizes]`` with weights ``[O, C / groups, *window]``."""
    arguments = context.arguments
    if arguments.get("transposed"):
        raise UnsupportedError("a transposed convolution", "an upsampling and a convolution")
    weight = context.meaning(arguments["weight"])
    if not isinstance(weight, ParamRef):
        raise UnsupportedError("a convolution with computed weights", "weights that are parameters")
    size = weight.shape[2:]
    dims = len(size)
    stride, dilation = (_per_dim(arguments[name], dims, name) for name in ("stride", "dilation"))
    window = Window(size, stride, dilation)
    x = context.operand(arguments["input"], f32)
    shape = nn.tensor_of(x).get_shape()
    if len(shape) == dims + 1:
        x = context.reshape(x, (1, *shape))
    x = pad(context, x, _padding(context, window), "constant", 0.0)
    groups = as_int(arguments["groups"], "groups")
    bias = arguments["bias"]
    if groups == nn.tensor_of(x).get_shape()[1] == weight.shape[0] and groups > 1:
        result = _depthwise(context, x, weight, window)
        if bias is not None:
            column = context.reshape(context.value(bias), (groups, *(1,) * dims))
            result = context.emit(nn.AddOp(result, column))
        return context.reshape(result, context.shape)
    matrix = _matrix(context, weight)
    return context.reshape(_grouped(context, _patches(context, x, window), matrix, bias, groups), context.shape)


def _matrix(context: NodeContext, weight: ParamRef) -> ParamRef:
    """The weights as ``[O, C / groups * window]``: a weight of its own that shares memory."""
    rows = weight.shape[0]
    importer = context.importer
    name = f"{weight.name}.matrix"
    shape = (rows, math.prod(weight.shape[1:]))
    if name not in importer.weights:
        importer.weights.add_reshaped(name, weight.name, shape)
    return ParamRef(name, shape)


def _grouped(context: NodeContext, patches: SSAValue, matrix: ParamRef, bias: object, groups: int) -> SSAValue:
    """Linear layers over ``[N, *counts, C, window]``, one a group of channels; ``[N, O, *counts]``."""
    *lead, channels, places = nn.tensor_of(patches).get_shape()
    dim = len(lead)
    found = None if bias is None else context.meaning(bias)
    if not isinstance(found, ParamRef | None):
        raise UnsupportedError("a convolution with a computed bias", "add it afterwards")
    rows, width = matrix.shape[0] // groups, channels // groups
    results: list[SSAValue] = []
    for group in range(groups):
        part = context.cut(patches, dim, group * width, (group + 1) * width)
        x = context.reshape(part, (*lead, width * places))
        span = (group * rows, (group + 1) * rows)
        shift = None if found is None else context.param(found.rows(*span))
        results.append(context.emit(nn.LinearOp(x, context.param(matrix.rows(*span)), shift)))
    result = context.concat(results, dim)
    return context.transpose(result, [0, dim, *range(1, dim)])


def _depthwise(context: NodeContext, x: SSAValue, weight: ParamRef, window: Window) -> SSAValue:
    """Each channel by itself: one product and one sum a place in the window."""
    channels, dims = weight.shape[0], len(window.size)
    table = context.reshape(context.param(weight), (channels, math.prod(window.size)))
    total: SSAValue | None = None
    for place, part in enumerate(_slices(context, x, window)):
        factor = context.reshape(context.cut(table, 1, place, place + 1), (channels, *(1,) * dims))
        product = context.emit(nn.MulOp(part, factor))
        total = product if total is None else context.emit(nn.AddOp(total, product))
    assert total is not None
    return total


def _pool_window(context: NodeContext, dims: int) -> Window:
    arguments = context.arguments
    if arguments.get("ceil_mode"):
        raise UnsupportedError("pooling with ceil_mode", "pad the input")
    size = _per_dim(arguments["kernel_size"], dims, "kernel size")
    stride = _per_dim(arguments["stride"], dims, "stride", size)
    return Window(size, stride, _per_dim(arguments.get("dilation", 1), dims, "dilation"))


def _pooled(context: NodeContext, x: SSAValue, window: Window, op: Callable[..., nn.NnOp]) -> SSAValue:
    parts = _slices(context, x, window)
    result = parts[0]
    for part in parts[1:]:
        result = context.emit(op(result, part))
    return result


def _max_pool(dims: int) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        window = _pool_window(context, dims)
        x = context.operand(context.arguments["self"], f32)
        x = pad(context, x, _padding(context, window), "constant", _LOWEST)
        return _pooled(context, x, window, nn.MaximumOp)

    return convert


def _max_pool_with_places(dims: int) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        return [_max_pool(dims)(context)]

    return convert


def _avg_pool(dims: int) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        arguments = context.arguments
        window = _pool_window(context, dims)
        x = context.operand(arguments["self"], f32)
        pads = _padding(context, window)
        count: SSAValue | float = float(math.prod(window.size))
        if arguments.get("divisor_override") is not None:
            count = context.number(arguments["divisor_override"], "divisor")
        elif any(pads) and not arguments["count_include_pad"]:
            sizes = nn.tensor_of(x).get_shape()[-dims:]
            ones = np.pad(np.ones(sizes), [(pads[2 * (dims - 1 - dim)],) * 2 for dim in range(dims)])
            count = context.constant(_window_sums(ones, window), f32)
        total = _pooled(context, pad(context, x, pads, "constant", 0.0), window, nn.AddOp)
        divisor = count if isinstance(count, SSAValue) else context.constant(count, f32)
        return context.emit(nn.DivOp(total, divisor))

    return convert


def _window_sums(array: npt.NDArray[np.float64], window: Window) -> npt.NDArray[np.float64]:
    views = np.lib.stride_tricks.sliding_window_view(array, window.size)
    steps = tuple(slice(None, None, stride) for stride in window.stride)
    sums: npt.NDArray[np.float64] = views[steps].sum(axis=tuple(range(-len(window.size), 0)))
    return sums


def _adaptive_avg_pool(dims: int) -> Converter:
    """Equal windows that tile the input; others would be of several sizes."""

    def convert(context: NodeContext) -> Meaning:
        x = context.operand(context.arguments["self"], f32)
        sizes = nn.tensor_of(x).get_shape()[-dims:]
        wanted = context.shape[-dims:]
        if any(size % count for size, count in zip(sizes, wanted, strict=True)):
            raise UnsupportedError("adaptive pooling to windows of several sizes", "sizes that divide the input's")
        size = tuple(have // count for have, count in zip(sizes, wanted, strict=True))
        lead = nn.tensor_of(x).get_shape()[:-dims]
        split = [number for pair in zip(wanted, size, strict=True) for number in pair]
        spread = context.reshape(x, (*lead, *split))
        axes = [len(lead) + 2 * dim + 1 for dim in range(dims)]
        return context.emit(nn.ReduceMeanOp(spread, axes, False))

    return convert


def _unfold(context: NodeContext) -> Meaning:
    """Windows along one dimension, their elements in a new last dimension."""
    value = context.value(context.arguments["self"])
    shape = nn.tensor_of(value).get_shape()
    dim = as_int(context.arguments["dimension"], "dimension") % len(shape)
    size, step = (as_int(context.arguments[name], name) for name in ("size", "step"))
    count = (shape[dim] - size) // step + 1
    parts = [
        context.reshape(context.cut(value, dim, place, place + (count - 1) * step + 1, step), (*context.shape[:-1], 1))
        for place in range(size)
    ]
    return context.concat(parts, len(shape))


def _im2col(context: NodeContext) -> Meaning:
    """``[N, C, H, W]`` -> ``[N, C * window, positions]``."""
    arguments = context.arguments
    window = Window(*(_per_dim(arguments[name], 2, name) for name in ("kernel_size", "stride", "dilation")))
    x = pad(context, context.value(arguments["self"]), _padding(context, window), "constant", 0.0)
    patches = _patches(context, x, window)
    return context.reshape(context.transpose(patches, (0, 3, 4, 1, 2)), context.shape)


_CONVOLUTIONS: Final = [f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")]

TABLE: Final[Mapping[str, Converter]] = {
    **dict.fromkeys([*_CONVOLUTIONS, "aten.convolution.default"], _conv),
    **{f"aten.max_pool{n}d.default": _max_pool(n) for n in (1, 2, 3)},
    **{f"aten.max_pool{n}d_with_indices.default": _max_pool_with_places(n) for n in (2, 3)},
    **{f"aten.avg_pool{n}d.default": _avg_pool(n) for n in (1, 2, 3)},
    **{f"aten.{kind}adaptive_avg_pool{n}d.default": _adaptive_avg_pool(n) for n in (1, 2, 3) for kind in ("", "_")},
    "aten.unfold.default": _unfold,
    "aten.im2col.default": _im2col,
}
"""Converters by the operator's name."""
