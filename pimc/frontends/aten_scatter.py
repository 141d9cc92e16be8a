"""ATen operators that write elements or slices at computed places -> `nn` primitives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32, i1, i32
from xdsl.ir import SSAValue

from pimc.frontends.aten_index import axis_and_index
from pimc.frontends.aten_shape import as_int, bounds
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

_REDUCTIONS: Final = {
    "add": "add", "sum": "add", "mean": "add", "multiply": "mul", "prod": "mul", "amax": "max", "amin": "min",
}  # fmt: skip
_NEUTRAL: Final = {"add": 0, "mul": 1}


def _source(context: NodeContext, sizes: tuple[int, ...]) -> SSAValue:
    """What is written, in the shape of the index: a number repeated, or the first elements of a tensor."""
    arguments, element = context.arguments, context.type.element_type
    if "value" in arguments:
        value = context.operand(arguments["value"], element)
        return context.broadcast(context.reshape(value, ()), sizes)
    source = context.operand(arguments["src"], element)
    source = context.reshape(source, nn.tensor_of(source).get_shape() or (1,))
    for dim, size in enumerate(sizes):
        source = context.cut(source, dim, 0, size)
    return source


def _scatter(reduction: str | None) -> Converter:
    """Elements of a source written (or added, ...) along a dimension; None: the reduction is an argument."""

    def convert(context: NodeContext) -> Meaning:
        arguments = context.arguments
        x = context.operand(arguments["self"], context.type.element_type)
        axis, line, index, sizes = axis_and_index(context, x)
        if 0 in sizes:
            return x
        name = str(arguments.get("reduce"))
        kind = reduction or _REDUCTIONS.get(name)
        if kind is None:
            raise UnsupportedError(f"the reduction {name!r}")
        source = _source(context, sizes)
        fresh = arguments.get("include_self") is False
        if fresh:
            # The old values at these places do not count: what is written there first is neutral, or written again.
            first = source
            if kind in _NEUTRAL:
                number = context.constant(_NEUTRAL[kind], context.type.element_type)
                first = context.broadcast(number, sizes)
            line = context.emit(nn.ScatterElementsOp(line, index, first, axis, "none"))
        written = context.emit(nn.ScatterElementsOp(line, index, source, axis, kind))
        if name == "mean" and reduction is None:
            written = _divided(context, written, index, axis, fresh)
        return context.reshape(written, context.shape)

    return convert


def _divided(context: NodeContext, total: SSAValue, index: SSAValue, axis: int, fresh: bool) -> SSAValue:
    """Sums divided by how many elements they have, the old one included unless ``fresh``."""
    shape, sizes = nn.tensor_of(total).get_shape(), nn.tensor_of(index).get_shape()
    start = context.broadcast(context.constant(0 if fresh else 1, f32), shape)
    ones = context.broadcast(context.constant(1, f32), sizes)
    count = context.emit(nn.ScatterElementsOp(start, index, ones, axis, "add"))
    count = context.emit(nn.MaximumOp(count, context.constant(1, f32)))
    element = nn.tensor_of(total).element_type
    if element == f32:
        return context.emit(nn.DivOp(total, count))
    divisor = context.cast(count, element)
    rest = context.emit(nn.ModOp(total, divisor, False))
    return context.emit(nn.DivOp(context.emit(nn.SubOp(total, rest)), divisor))


def _index_write(reduction: str) -> Converter:
    """Slices of a source (or a number) written or added at places along a dimension."""

    def convert(context: NodeContext) -> Meaning:
        arguments, element = context.arguments, context.type.element_type
        x = context.operand(arguments["self"], element)
        index = context.value(arguments["index"])
        shape, count = context.shape or (1,), math.prod(nn.tensor_of(index).get_shape())
        if count == 0 or 0 in shape:
            return x
        axis = as_int(arguments["dim"], "dimension") % len(shape)
        wanted = [count if dim == axis else size for dim, size in enumerate(shape)]
        given = arguments["source"] if "source" in arguments else arguments["value"]
        source = context.operand(given, element)
        if "source" in arguments:
            source = context.reshape(source, wanted)
        else:
            source = context.broadcast(context.reshape(source, ()), wanted)
        alpha = arguments.get("alpha", 1)
        if alpha != 1:
            source = context.emit(nn.MulOp(source, context.operand(alpha, element)))
        order = [axis, *(dim for dim in range(len(shape)) if dim != axis)]
        places = context.reshape(index, (count, 1))
        moved, source = (context.transpose(value, order) for value in (context.reshape(x, shape), source))
        written = context.emit(nn.ScatterNdOp(moved, places, source, reduction))
        return context.reshape(context.transpose(written, [int(dim) for dim in np.argsort(order)]), context.shape)

    return convert


def _replaced(context: NodeContext, dim: int, start: int, stop: int) -> Meaning:
    """The operand with ``src`` in place of its part from ``start`` to ``stop``."""
    element = context.type.element_type
    x = context.operand(context.arguments["self"], element)
    source = context.operand(context.arguments["src"], element)
    piece = [stop - start if axis == dim else size for axis, size in enumerate(context.shape)]
    size = context.shape[dim]
    parts = [context.reshape(source, piece)]
    if start > 0:
        parts.insert(0, context.cut(x, dim, 0, start))
    if stop < size:
        parts.append(context.cut(x, dim, stop, size))
    return context.concat(parts, dim)


def _select_scatter(context: NodeContext) -> Meaning:
    dim = as_int(context.arguments["dim"], "dimension") % len(context.shape)
    index = as_int(context.arguments["index"], "index") % context.shape[dim]
    return _replaced(context, dim, index, index + 1)


def _slice_scatter(context: NodeContext) -> Meaning:
    """A part of a dimension replaced; one with a step by a choice among the old and the new elements."""
    rank, element = len(context.shape), context.type.element_type
    dim = as_int(context.arguments["dim"], "dimension") % rank
    start, stop, step = bounds(context, context.shape[dim])
    if step == 1:
        return _replaced(context, dim, start, stop)
    numbers = np.arange(context.shape[dim])
    mask = (numbers >= start) & (numbers < stop) & ((numbers - start) % step == 0)
    x, source = (context.operand(context.arguments[name], element) for name in ("self", "src"))
    if not mask.any():
        return x
    place = np.where(mask, (numbers - start) // step, 0)
    spread = context.emit(nn.GatherOp(source, context.constant(place, i32), dim))
    column = context.constant(mask.reshape([-1 if axis == dim else 1 for axis in range(rank)]), i1)
    return context.emit(nn.SelectOp(column, spread, x))


TABLE: Final[Mapping[str, Converter]] = {
    **dict.fromkeys(("aten.scatter.src", "aten.scatter.value"), _scatter("none")),
    **dict.fromkeys(("aten.scatter.reduce", "aten.scatter.value_reduce", "aten.scatter_reduce.two"), _scatter(None)),
    "aten.scatter_add.default": _scatter("add"),
    **dict.fromkeys(
        ("aten.index_copy.default", "aten.index_fill.int_Scalar", "aten.index_fill.int_Tensor"), _index_write("none")
    ),
    "aten.index_add.default": _index_write("add"),
    "aten.select_scatter.default": _select_scatter,
    "aten.slice_scatter.default": _slice_scatter,
}
"""Converters by the operator's name."""
