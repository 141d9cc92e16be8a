"""Sliding windows of convolutions and poolings: their geometry, and the elements under them as slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.limits import bounded
from pimc.frontends.unsupported import UnsupportedError

Sizes = tuple[int, ...]

_MAX_CELLS: Final = 1 << 14
"""Places in the largest kernel: there are operations for each of them."""


@dataclass(frozen=True)
class Windows:
    """Windows over the dimensions behind batch and channels; one number for each such dimension.

    ``low`` and ``high`` are paddings; ``extra`` is what windows reach beyond them (rounding up the output's size).
    """

    size: Sizes
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    low: Sizes
    high: Sizes
    output: Sizes

    def __post_init__(self) -> None:
        bounded(self.kernel, _MAX_CELLS)

    @property
    def extra(self) -> Sizes:
        """Elements behind the padding that the last window covers."""
        return tuple(
            max(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - (low + size + high))
            for size, kernel, stride, dilation, low, high, out in zip(
                self.size, self.kernel, self.strides, self.dilations, self.low, self.high, self.output, strict=True
            )
        )

    @property
    def cells(self) -> Iterator[Sizes]:
        """Places in the kernel in row-major order."""
        return itertools.product(*map(range, self.kernel))

    @property
    def count(self) -> int:
        """Places in the kernel."""
        return math.prod(self.kernel)

    def patches(self, context: NodeContext, x: SSAValue, fill: float = 0.0) -> Iterator[SSAValue]:
        """For each place in the kernel the elements of x under it: ``[N, C, output...]``; ``fill`` is the padding."""
        terms = Expressions(context)
        high = [high + extra for high, extra in zip(self.high, self.extra, strict=True)]
        padded = terms.pad(x, [0, 0, *self.low], [0, 0, *high], fill)
        shape = context.shape_of(padded)
        for cell in self.cells:
            starts = [place * dilation for place, dilation in zip(cell, self.dilations, strict=True)]
            stops = [
                start + (out - 1) * stride + 1
                for start, out, stride in zip(starts, self.output, self.strides, strict=True)
            ]
            yield context.slice(padded, [0, 0, *starts], [*shape[:2], *stops], [1, 1, *self.strides])


def windows(context: NodeContext, size: Sequence[int], kernel: Sequence[int], *, rounds_up: bool = False) -> Windows:
    """The windows that a node's attributes describe over ``size``."""
    rank = len(size)
    if len(kernel) != rank:
        raise UnsupportedError(f"a kernel of {len(kernel)} dimensions over {rank}")
    strides = context.attr_ints("strides", [1] * rank)
    dilations = context.attr_ints("dilations", [1] * rank)
    pads = context.attr_ints("pads", [0] * 2 * rank)
    low, high, output = pads[:rank], pads[rank:], [0] * rank
    mode = context.attr_str("auto_pad", "NOTSET")
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            output[axis] = -(-size[axis] // strides[axis])
            total = max(0, (output[axis] - 1) * strides[axis] + reach - size[axis])
            low[axis] = total // 2 if mode == "SAME_UPPER" else total - total // 2
            high[axis] = total - low[axis]
            continue
        if mode == "VALID":
            low[axis] = high[axis] = 0
        steps = low[axis] + size[axis] + high[axis] - reach
        if steps < 0 and not rounds_up:
            raise UnsupportedError(f"a window of {reach} over {size[axis]} elements")
        output[axis] = (-(-steps // strides[axis]) if rounds_up else steps // strides[axis]) + 1
        if rounds_up and (output[axis] - 1) * strides[axis] >= low[axis] + size[axis]:
            output[axis] -= 1  # the last window would start in the padding
    return Windows(tuple(size), tuple(kernel), tuple(strides), tuple(dilations), tuple(low), tuple(high), tuple(output))


def stretch(context: NodeContext, x: SSAValue, strides: Sequence[int]) -> SSAValue:
    """x with ``stride - 1`` zeros between neighbours in the dimensions behind batch and channels."""
    terms = Expressions(context)
    for axis, stride in enumerate(strides, start=2):
        shape = context.shape_of(x)
        if stride == 1 or shape[axis] == 0:
            continue
        column = context.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        high = [0] * (len(shape) + 1)
        high[axis + 1] = stride - 1
        wide = terms.pad(column, [0] * (len(shape) + 1), high)
        joined = context.reshape(wide, (*shape[:axis], shape[axis] * stride, *shape[axis + 1 :]))
        x = context.cut(joined, axis, 0, (shape[axis] - 1) * stride + 1)
    return x


def crop_or_pad(context: NodeContext, x: SSAValue, low: Sequence[int], high: Sequence[int]) -> SSAValue:
    """x with zeros around it in the dimensions behind batch and channels; negative numbers cut elements off."""
    terms = Expressions(context)
    shape = context.shape_of(x)
    starts = [0, 0, *(max(0, -number) for number in low)]
    stops = [*shape[:2], *(size - max(0, -number) for size, number in zip(shape[2:], high, strict=True))]
    part = context.slice(x, starts, stops)
    return terms.pad(part, [0, 0, *(max(0, n) for n in low)], [0, 0, *(max(0, n) for n in high)])
