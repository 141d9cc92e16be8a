"""ATen operators that give what lies under a window: unfold and im2col -> slices; and resizes, which are products.

Windows that do not overlap are a reshape; others are one strided slice a place in the window.  (Convolutions:
:mod:`pimc.frontends.aten_conv`.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from pimc.frontends.aten_shape import as_int, as_ints, pad
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning
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


def _padding(context: NodeContext, window: Window) -> list[int]:
    """Low and high of the last dimension first, as pads are given."""
    sides = per_dim(context.arguments["padding"], len(window.size), "padding")
    return [side for size in reversed(sides) for side in (size, size)]


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
    x = pad(context, context.value(arguments["self"]), _padding(context, window), "constant", 0.0)
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

TABLE: Final[Mapping[str, Converter]] = {
    **dict.fromkeys(_SEPARABLE, _resized),
    "aten.unfold.default": _unfold,
    "aten.im2col.default": _im2col,
}
"""Converters by the operator's name."""
