"""Convolutions -> `nn.conv`; transposed ones after spreading x, those of integers as products."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32, i32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.elements import Array
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.quantize import dequantised, quantised
from pimc.frontends.onnx.windows import Windows, crop_or_pad, stretch, windows
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _convolve(
    context: NodeContext, x: SSAValue, weight: SSAValue, groups: int, over: Windows, bias: SSAValue | None
) -> SSAValue:
    """x ``[N, C, size...]``, weight ``[M, C / groups, kernel...]``; ``[N, M, output...]``."""
    channels, shape = context.shape_of(x)[1], context.shape_of(weight)
    if channels != shape[1] * groups or shape[0] % groups:
        raise UnsupportedError(f"{channels} channels in {groups} groups for a weight of {shape[1]}")
    window = nn.Window(over.strides, over.dilations, over.low, over.high)
    return context.emit(nn.ConvOp(x, weight, bias, window, groups))


def _integers(context: NodeContext, x: SSAValue, weight: SSAValue, groups: int, over: Windows) -> SSAValue:
    """The same of integers: a product with the elements under the windows, exact in i32."""
    terms = Expressions(context)
    batch, outputs, inner = context.shape_of(x)[0], *context.shape_of(weight)[:2]
    depth, places = inner * over.count, math.prod(over.output)
    patches = terms.stack(list(over.patches(context, x)), 2)
    columns = context.reshape(patches, (batch, groups, depth, places))
    matrix = context.reshape(weight, (groups, outputs // groups, depth))
    return context.reshape(terms.matmul(matrix, columns), (batch, outputs, *over.output))


def _conv(context: NodeContext) -> Converted:
    x = context.value(0)
    over = windows(context, context.shape_of(x)[2:], context.attr_ints("kernel_shape", context.shape(1)[2:]))
    bias = context.value(2) if context.has(2) else None
    return _convolve(context, x, context.value(1), context.attr_int("group", 1), over, bias)


def _transposed_pads(context: NodeContext, size: Sequence[int], kernel: Sequence[int]) -> tuple[list[int], list[int]]:
    """Elements cut off before and behind the full result of a transposed convolution."""
    rank = len(size)
    strides = context.attr_ints("strides", [1] * rank)
    dilations = context.attr_ints("dilations", [1] * rank)
    more = context.attr_ints("output_padding", [0] * rank)
    mode = context.attr_str("auto_pad", "NOTSET")
    wanted = context.attr_ints("output_shape", [])[-rank:]
    if not wanted and mode in ("NOTSET", "VALID"):
        pads = context.attr_ints("pads", [0] * 2 * rank) if mode == "NOTSET" else [0] * 2 * rank
        return pads[:rank], [pad - add for pad, add in zip(pads[rank:], more, strict=True)]
    low, high = [0] * rank, [0] * rank
    for axis in range(rank):
        full = strides[axis] * (size[axis] - 1) + dilations[axis] * (kernel[axis] - 1) + 1
        target = wanted[axis] if wanted else size[axis] * strides[axis]
        total = full + more[axis] - target
        half = max(0, total) // 2
        low[axis] = half if mode == "SAME_UPPER" else max(0, total) - half
        high[axis] = full - target - low[axis]
    return low, high


def _flipped(context: NodeContext, groups: int) -> SSAValue:
    """The weight ``[C, M / groups, kernel...]`` turned round, as a convolution's: ``[M, C / groups, kernel...]``."""
    shape = context.shape(1)
    kernel, rank = shape[2:], len(shape) - 2
    grouped = (groups, shape[0] // groups, *shape[1:])
    order = (0, 2, 1, *range(3, 3 + rank))
    final = (groups * shape[1], shape[0] // groups, *kernel)
    known = context.known(1)
    if known is not None:
        array: Array = np.flip(known, axis=tuple(range(2, 2 + rank))).reshape(grouped).transpose(order).reshape(final)
        return context.param(context.derived("kernel", array))
    starts, stops = [0, 0, *(size - 1 for size in kernel)], [*shape[:2], *[-1] * rank]
    turned = context.slice(context.value(1), starts, stops, [1, 1, *[-1] * rank])
    return context.reshape(context.transpose(context.reshape(turned, grouped), order), final)


def _conv_transpose(context: NodeContext) -> Converted:
    """A convolution of x with zeros between its elements, with the kernel turned round."""
    x, groups = context.value(0), context.attr_int("group", 1)
    size, kernel = context.shape_of(x)[2:], context.shape(1)[2:]
    rank = len(size)
    low, high = _transposed_pads(context, size, kernel)
    dilations = context.attr_ints("dilations", [1] * rank)
    reach = [dilation * (count - 1) for dilation, count in zip(dilations, kernel, strict=True)]
    wide = stretch(context, x, context.attr_ints("strides", [1] * rank))
    sides = [[r - side for r, side in zip(reach, cut, strict=True)] for cut in (low, high)]
    wide = crop_or_pad(context, wide, *([min(0, side) for side in each] for each in sides))
    before, behind = (tuple(max(0, side) for side in each) for each in sides)
    sizes = context.shape_of(wide)[2:]
    output = tuple(sum(each) for each in zip(sizes, before, behind, (-r for r in reach), strict=True))
    over = Windows(sizes, tuple(kernel), (1,) * rank, tuple(dilations), before, behind, output)
    bias = context.value(2) if context.has(2) else None
    return _convolve(context, wide, _flipped(context, groups), groups, over, bias)


def _conv_integer(context: NodeContext) -> Converted:
    """A convolution of integers, less their zero points, in i32."""
    terms = Expressions(context)
    x, weight = (context.cast(context.value(index), i32) for index in (0, 1))
    if context.has(2):
        x = terms.sub(x, context.cast(context.reshape(context.value(2), ()), i32))
    if context.has(3):
        weight = terms.sub(weight, context.cast(_by_output(context, 3, len(context.shape_of(weight))), i32))
    over = windows(context, context.shape_of(x)[2:], context.shape_of(weight)[2:])
    return _integers(context, x, weight, context.attr_int("group", 1), over)


def _by_output(context: NodeContext, index: int, rank: int) -> SSAValue:
    """A factor of a weight: one number, or one for each output channel."""
    value = context.value(index)
    one = math.prod(context.shape_of(value)) == 1
    return context.reshape(value, ()) if one else Expressions(context).grow(value, rank, 0)


def _qlinear_conv(context: NodeContext) -> Converted:
    """``quantise(conv(dequantise(x), dequantise(w)) + bias * scales)``."""
    terms = Expressions(context)
    shape = context.shape(3)
    x = dequantised(context, context.value(0), *(context.reshape(context.value(i), ()) for i in (1, 2)))
    scale, zero = (_by_output(context, index, len(shape)) for index in (4, 5))
    weight = dequantised(context, context.value(3), scale, zero)
    bias: SSAValue | None = None
    if context.has(8):
        by_channel = context.reshape(context.value(4), context.shape_of(scale)[:1])
        factor = terms.mul(by_channel, context.reshape(context.value(1), ()))
        bias = terms.mul(context.cast(context.value(8), f32), factor)
    over = windows(context, context.shape_of(x)[2:], shape[2:])
    result = _convolve(context, x, weight, context.attr_int("group", 1), over, bias)
    out_scale, out_zero = (context.reshape(context.value(index), ()) for index in (6, 7))
    return quantised(context, result, out_scale, out_zero, context.element(7))


TABLE: Final[Mapping[str, Converter]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
}
"""Converters by operator."""
