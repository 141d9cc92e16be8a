"""Pooling over windows and over everything, and the inverse of taking windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from functools import reduce
from typing import Final

import numpy as np
from xdsl.dialects.builtin import IntegerType, i64
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.elements import Array
from pimc.frontends.onnx.expressions import Expressions, lowest
from pimc.frontends.onnx.limits import bounded
from pimc.frontends.onnx.quantize import limits
from pimc.frontends.onnx.windows import Windows, crop_or_pad, stretch, windows
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _pool(context: NodeContext) -> tuple[SSAValue, Windows]:
    x = context.value(0)
    up = bool(context.attr_int("ceil_mode", 0))
    return x, windows(context, context.shape_of(x)[2:], context.attr_ints("kernel_shape"), rounds_up=up)


def _places(over: Windows) -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
    """For each place in the kernel and each window: both, and the element's index (outside of x: padding)."""
    for cell in over.cells:
        for window in itertools.product(*map(range, over.output)):
            numbers = zip(window, cell, over.strides, over.dilations, over.low, strict=True)
            yield cell, window, tuple(w * stride + c * dilation - low for w, c, stride, dilation, low in numbers)


def _max_pool(context: NodeContext) -> Converted:
    """The greatest element under each window, and its index in x."""
    terms = Expressions(context)
    x, over = _pool(context)
    element = context.element_of(x)
    if not context.wants(1):
        high = tuple(side + extra for side, extra in zip(over.high, over.extra, strict=True))
        return context.emit(nn.MaxPoolOp(x, over.kernel, nn.Window(over.strides, over.dilations, over.low, high)))
    fill = limits(element)[0] if isinstance(element, IntegerType) else lowest(element)
    patches = list(over.patches(context, x, fill))
    result = reduce(terms.maximum, patches)
    shape = (*context.shape_of(x)[:2], len(patches), *over.output)
    best = context.emit(nn.ArgMaxOp(terms.stack(patches, 2), 2, keepdims=True))
    table = context.broadcast(context.constant(_flat_indices(context, over), i64), shape)
    inside = context.reshape(context.emit(nn.GatherElementsOp(table, best, 2)), context.shape_of(result))
    batch, channels = shape[:2]
    first = np.arange(batch * channels).reshape(batch, channels, *[1] * len(over.size)) * math.prod(over.size)
    return [result, terms.add(inside, context.constant(first, i64))]


def _flat_indices(context: NodeContext, over: Windows) -> Array:
    """``[1, 1, kernel places, output...]``: where in an image the element under each place is."""
    bounded([*over.kernel, *over.output])
    table = np.zeros((*over.kernel, *over.output), np.int64)
    order = over.size if not context.attr_int("storage_order", 0) else over.size[::-1]
    for cell, window, index in _places(over):
        numbers = index if not context.attr_int("storage_order", 0) else index[::-1]
        table[(*cell, *window)] = reduce(
            lambda total, pair: total * pair[0] + pair[1], zip(order, numbers, strict=True), 0
        )
    return table.reshape(1, 1, over.count, *over.output)


def _average_pool(context: NodeContext) -> Converted:
    """The mean of the elements under each window; padding counts where the attribute says so."""
    terms = Expressions(context)
    x, over = _pool(context)
    padded = bool(context.attr_int("count_include_pad", 0))
    bounded(over.output)
    counts = np.zeros(over.output)
    for _, window, index in _places(over):
        numbers = zip(index, over.size, over.low, over.high, strict=True)
        if all((-low if padded else 0) <= i < size + (high if padded else 0) for i, size, low, high in numbers):
            counts[window] += 1
    total = reduce(terms.add, over.patches(context, x))
    if (counts == counts.flat[0]).all():
        return terms.div(total, float(counts.flat[0]))
    return terms.div(total, context.constant(counts, context.element_of(x)))


def _root_of_powers(context: NodeContext, powers: SSAValue, order: int) -> SSAValue:
    if order == 1:
        return powers
    return context.emit(nn.SqrtOp(powers)) if order == 2 else Expressions(context).pow(powers, 1.0 / order)


def _powers(context: NodeContext, x: SSAValue, order: int) -> SSAValue:
    terms = Expressions(context)
    if order == 2:
        return terms.mul(x, x)
    size = context.emit(nn.AbsOp(x))
    return size if order == 1 else terms.pow(size, float(order))


def _lp_pool(context: NodeContext) -> Converted:
    """The norm of order p of the elements under each window."""
    x, over = _pool(context)
    order = context.attr_int("p", 2)
    total = reduce(Expressions(context).add, over.patches(context, _powers(context, x, order)))
    return _root_of_powers(context, total, order)


def _spatial(context: NodeContext) -> range:
    return range(2, len(context.shape(0)))


def _global_average_pool(context: NodeContext) -> Converted:
    return Expressions(context).mean(context.value(0), _spatial(context))


def _global_max_pool(context: NodeContext) -> Converted:
    return Expressions(context).greatest(context.value(0), _spatial(context))


def _global_lp_pool(context: NodeContext) -> Converted:
    order = context.attr_int("p", 2)
    total = Expressions(context).total(_powers(context, context.value(0), order), _spatial(context))
    return _root_of_powers(context, total, order)


def _max_unpool(context: NodeContext) -> Converted:
    """Zeros with the elements of x at the indices that max pooling gave."""
    x, indices = context.value(0), context.value(1)
    shape = context.shape_of(x)
    rank = len(shape) - 2
    strides, pads = context.attr_ints("strides", [1] * rank), context.attr_ints("pads", [0] * 2 * rank)
    kernel = context.attr_ints("kernel_shape")
    full = [
        *shape[:2],
        *((shape[i + 2] - 1) * strides[i] + kernel[i] - pads[i] - pads[rank + i] for i in range(rank)),
    ]
    wanted = context.ints(2, "the output's shape") if context.has(2) else full
    zeros = context.broadcast(context.like(0.0, x), (math.prod(full),))
    size = math.prod(shape)
    places, updates = context.reshape(indices, (size,)), context.reshape(x, (size,))
    result = context.reshape(context.emit(nn.ScatterElementsOp(zeros, places, updates, 0)), full)
    more = [want - have for want, have in zip(wanted[2:], full[2:], strict=True)]
    return crop_or_pad(context, result, [0] * rank, more)


def _col2im(context: NodeContext) -> Converted:
    """The sum of windows ``[N, C * kernel, places]`` put where they were taken: ``[N, C, image...]``."""
    terms = Expressions(context)
    image, kernel = (list(map(int, found)) for found in context.require_all((1, 2), "the shape of image or block"))
    rank = len(image)
    over = windows(context, image, kernel)
    batch, features, _ = context.shape(0)
    columns = context.reshape(context.value(0), (batch, features // over.count, over.count, *over.output))
    full = [low + size + high for low, size, high in zip(over.low, image, over.high, strict=True)]
    total: SSAValue | None = None
    for number, cell in enumerate(over.cells):
        part = stretch(context, terms.at(columns, 2, number), over.strides)
        before = [place * dilation for place, dilation in zip(cell, over.dilations, strict=True)]
        sizes = context.shape_of(part)[2:]
        behind = [whole - size - start for whole, size, start in zip(full, sizes, before, strict=True)]
        placed = crop_or_pad(context, part, before, behind)
        total = placed if total is None else terms.add(total, placed)
    if total is None:
        raise UnsupportedError("an empty block")
    stops = [low + size for low, size in zip(over.low, image, strict=True)]
    return context.slice(total, [0, 0, *over.low[:rank]], [batch, features // over.count, *stops])


TABLE: Final[Mapping[str, Converter]] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "GlobalLpPool": _global_lp_pool,
    "MaxUnpool": _max_unpool,
    "Col2Im": _col2im,
}
"""Converters by operator."""
