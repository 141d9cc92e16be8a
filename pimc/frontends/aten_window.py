"""ATen operators that slide a window: convolution, pooling, unfold -> slices, linear layers, elementwise work.

A convolution is a linear layer over the patches under the window (im2col).  Windows that do not overlap (the patch
embedding of a vision transformer) are a reshape; others are one strided slice a place in the window.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32, i32
from xdsl.ir import SSAValue

from pimc.frontends.aten_shape import as_int, as_ints, pad, sizes_of
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning, ParamRef
from pimc.frontends.graph import Converter
from pimc.ir import nn


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


def per_dim(value: object, dims: int, what: str, default: Sequence[int] = ()) -> tuple[int, ...]:
    """One number a dimension; a single one counts for all."""
    numbers = as_ints(value, what) if value is not None else []
    numbers = numbers or list(default)
    return tuple(numbers * dims if len(numbers) == 1 else numbers)


def slices(context: NodeContext, x: SSAValue, window: Window) -> list[SSAValue]:
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
    parts = [context.reshape(part, (batch, channels, 1, *counts)) for part in slices(context, x, window)]
    joined = context.concat(parts, 2)
    return context.transpose(joined, [0, *range(3, 3 + dims), 1, 2])


def padding(context: NodeContext, window: Window) -> list[int]:
    """Low and high of the last dimension first, as pads are given; "same" and "valid" by name."""
    value = context.arguments["padding"]
    dims = len(window.size)
    if value == "valid":
        return [0] * 2 * dims
    if value == "same":
        total = [window.reach(dim) - 1 for dim in range(dims)]
        return [side for size in reversed(total) for side in (size // 2, size - size // 2)]
    sides = per_dim(value, dims, "padding")
    return [side for size in reversed(sides) for side in (size, size)]


def _conv(context: NodeContext) -> Meaning:
    """``[N, C, *sizes]`` with weights ``[O, C / groups, *window]``.

    A transposed one is a plain one of the input with zeros between its elements.
    """
    arguments = context.arguments
    weight = _held(context, arguments["weight"])
    dims = len(sizes_of(weight)) - 2
    groups = as_int(arguments["groups"], "groups")
    x = context.operand(arguments["input"], f32)
    shape = nn.tensor_of(x).get_shape()
    if len(shape) == dims + 1:
        x = context.reshape(x, (1, *shape))
    if 0 in context.shape:
        return context.empty()
    stride, dilation = (per_dim(arguments[name], dims, name) for name in ("stride", "dilation"))
    window = Window(sizes_of(weight)[2:], stride, dilation)
    if arguments.get("transposed"):
        weight = _turned(context, arguments["weight"], groups)
        x = _spread(context, x, stride)
        pads = _transposed_padding(context, window)
        window = Window(window.size, (1,) * dims, dilation)
    else:
        pads = padding(context, window)
    x = pad(context, x, pads, "constant", 0.0)
    if groups == nn.tensor_of(x).get_shape()[1] == sizes_of(weight)[0] and groups > 1:
        result, bias = _depthwise(context, x, weight, window), arguments["bias"]
    else:
        result, bias = _grouped(context, _patches(context, x, window), weight, groups)
    if bias is not None:
        column = context.reshape(context.operand(bias, f32), (sizes_of(weight)[0], *(1,) * dims))
        result = context.emit(nn.AddOp(result, column))
    return context.reshape(result, context.shape)


def _held(context: NodeContext, argument: object) -> ParamRef | SSAValue:
    """A weight of the model as a reference to it, a computed one as a value."""
    found = context.meaning(argument)
    return found if isinstance(found, ParamRef) else context.operand(argument, f32)


def _turned(context: NodeContext, argument: object, groups: int) -> ParamRef | SSAValue:
    """Weights ``[C, O / groups, *window]`` of a transposed convolution as those of a plain one, back to front."""
    known = context.known(argument)
    if known is not None:
        backwards = np.flip(known.astype(np.float32), tuple(range(2, known.ndim)))
        return context.derived("transposed", _regrouped(backwards, groups))
    value = context.operand(argument, f32)
    inputs, outputs, *size = nn.tensor_of(value).get_shape()
    for dim, count in enumerate(size):
        value = context.emit(nn.GatherOp(value, context.constant(np.arange(count)[::-1], i32), 2 + dim))
    rank = 3 + len(size)
    split = context.reshape(value, (groups, inputs // groups, outputs, *size))
    return context.reshape(
        context.transpose(split, (0, 2, 1, *range(3, rank))), (groups * outputs, inputs // groups, *size)
    )


def _regrouped(weight: npt.NDArray[np.float32], groups: int) -> npt.NDArray[np.float32]:
    """``[C, O / groups, *window]`` as ``[O, C / groups, *window]``."""
    inputs, outputs, *size = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, *size).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(groups * outputs, inputs // groups, *size))


def _spread(context: NodeContext, x: SSAValue, stride: Sequence[int]) -> SSAValue:
    """The elements with ``stride - 1`` zeros between neighbours."""
    for dim, step in enumerate(stride):
        shape = nn.tensor_of(x).get_shape()
        axis = len(shape) - len(stride) + dim
        if step > 1:
            column = context.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
            pads = [0] * 2 * (len(shape) - axis - 1) + [0, step - 1]
            wide = pad(context, column, pads, "constant", 0.0)
            joined = context.reshape(wide, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
            x = context.cut(joined, axis, 0, (shape[axis] - 1) * step + 1)
    return x


def _transposed_padding(context: NodeContext, window: Window) -> list[int]:
    """What lies around the spread input of a transposed convolution: the reach of the window less its padding."""
    dims = len(window.size)
    inner = per_dim(context.arguments["padding"], dims, "padding")
    outer = per_dim(context.arguments["output_padding"], dims, "output padding")
    return [
        side
        for dim in reversed(range(dims))
        for side in (window.reach(dim) - 1 - inner[dim], window.reach(dim) - 1 - inner[dim] + outer[dim])
    ]


def _matrix(context: NodeContext, weight: ParamRef) -> ParamRef:
    """The weights as ``[O, C / groups * window]``: a weight of its own that shares memory."""
    rows = weight.shape[0]
    importer = context.importer
    name = f"{weight.name}.matrix"
    shape = (rows, math.prod(weight.shape[1:]))
    if name not in importer.weights:
        importer.weights.add_reshaped(name, weight.name, shape)
    return ParamRef(name, shape)


def _grouped(
    context: NodeContext, patches: SSAValue, weight: ParamRef | SSAValue, groups: int
) -> tuple[SSAValue, object]:
    """Linear layers over ``[N, *counts, C, window]``, one a group of channels, as ``[N, O, *counts]``.

    The second result is the bias if it has still to be added.
    """
    *lead, channels, places = nn.tensor_of(patches).get_shape()
    dim = len(lead)
    bias: object = context.arguments["bias"]
    found = None if bias is None else context.meaning(bias)
    shape = sizes_of(weight)
    rows, width = shape[0] // groups, channels // groups
    flat = (shape[0], math.prod(shape[1:]))
    matrix = _matrix(context, weight) if isinstance(weight, ParamRef) else context.reshape(weight, flat)
    results: list[SSAValue] = []
    for group in range(groups):
        part = context.cut(patches, dim, group * width, (group + 1) * width)
        x = context.reshape(part, (*lead, width * places))
        span = (group * rows, (group + 1) * rows)
        if isinstance(matrix, ParamRef):
            shift = context.param(found.rows(*span)) if isinstance(found, ParamRef) else None
            results.append(context.emit(nn.LinearOp(x, context.param(matrix.rows(*span)), shift)))
        else:
            columns = context.transpose(context.cut(matrix, 0, *span), (1, 0))
            results.append(context.emit(nn.MatmulOp(x, columns)))
    result = context.transpose(context.concat(results, dim), [0, dim, *range(1, dim)])
    added = isinstance(matrix, ParamRef) and isinstance(found, ParamRef)
    return result, None if added else bias


def _depthwise(context: NodeContext, x: SSAValue, weight: ParamRef | SSAValue, window: Window) -> SSAValue:
    """Each channel by itself: one product and one sum a place in the window."""
    channels, dims = sizes_of(weight)[0], len(window.size)
    values = context.param(weight) if isinstance(weight, ParamRef) else weight
    table = context.reshape(values, (channels, math.prod(window.size)))
    total: SSAValue | None = None
    for place, part in enumerate(slices(context, x, window)):
        factor = context.reshape(context.cut(table, 1, place, place + 1), (channels, *(1,) * dims))
        product = context.emit(nn.MulOp(part, factor))
        total = product if total is None else context.emit(nn.AddOp(total, product))
    assert total is not None
    return total


def _unfold(context: NodeContext) -> Meaning:
    """Windows along one dimension, their elements in a new last dimension."""
    value = context.value(context.arguments["self"])
    shape = nn.tensor_of(value).get_shape() or (1,)
    value = context.reshape(value, shape)
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
    window = Window(*(per_dim(arguments[name], 2, name) for name in ("kernel_size", "stride", "dilation")))
    x = pad(context, context.value(arguments["self"]), padding(context, window), "constant", 0.0)
    patches = _patches(context, x, window)
    return context.reshape(context.transpose(patches, (0, 3, 4, 1, 2)), context.shape)


def _resized(context: NodeContext) -> Meaning:
    """A resize that is a matrix along each of the last dimensions, whose entries PyTorch says."""
    import torch

    x = context.operand(context.arguments["self"], f32)
    first = len(context.shape) - 2
    scales = [context.arguments[name] for name in ("scales_h", "scales_w")]
    for dim in range(2):
        size, wanted = nn.tensor_of(x).get_shape()[first + dim], context.shape[first + dim]
        units = torch.eye(size).reshape(1, 1, size, size)
        matrix = context.node.target(units, [size, wanted], context.arguments["align_corners"], None, scales[dim])
        rows = context.constant(matrix.reshape(size, wanted).numpy(), f32)
        last = [0, 1, 2, 3] if dim == 1 else [0, 1, 3, 2]
        x = context.transpose(context.emit(nn.MatmulOp(context.transpose(x, last), rows)), last)
    return x


_SEPARABLE: Final = [f"aten._upsample_{kind}2d_aa.default" for kind in ("bilinear", "bicubic", "lanczos")]
_CONVOLUTIONS: Final = [f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")]

TABLE: Final[Mapping[str, Converter]] = {
    **dict.fromkeys([*_CONVOLUTIONS, "aten.convolution.default"], _conv),
    **dict.fromkeys(_SEPARABLE, _resized),
    "aten.unfold.default": _unfold,
    "aten.im2col.default": _im2col,
}
"""Converters by the operator's name."""
