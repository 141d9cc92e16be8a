"""Converters of ONNX operators that read or write elements at indices."""

from __future__ import annotations

from math import prod
from typing import Final

import numpy as np
from xdsl.dialects.builtin import i64
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, NodeContext, Table
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _gather(ctx: NodeContext) -> Converted:
    """Rows of a stored table are an embedding; anything else a gather."""
    axis, rank = ctx.attr_int("axis", 0), len(ctx.shape(0))
    table = ctx.linear_weight(0) if axis % rank == 0 and ctx.known(1) is None else None
    if table is not None and len(ctx.shape(1)) == 2:
        return ctx.emit(nn.EmbeddingOp(ctx.param(table), ctx.value(1)))
    return ctx.emit(nn.GatherOp(ctx.value(0), ctx.value(1), axis % rank))


def _gather_elements(ctx: NodeContext) -> Converted:
    return ctx.emit(nn.GatherElementsOp(ctx.value(0), ctx.value(1), ctx.attr_int("axis", 0)))


def _gather_nd(ctx: NodeContext) -> Converted:
    return ctx.emit(nn.GatherNdOp(ctx.value(0), ctx.value(1), ctx.attr_int("batch_dims", 0)))


def _scatter_elements(ctx: NodeContext) -> Converted:
    operands = (ctx.value(0), ctx.value(1), ctx.value(2))
    return ctx.emit(nn.ScatterElementsOp(*operands, ctx.attr_int("axis", 0), ctx.attr_str("reduction", "none")))


def _scatter_nd(ctx: NodeContext) -> Converted:
    return ctx.emit(nn.ScatterNdOp(ctx.value(0), ctx.value(1), ctx.value(2), ctx.attr_str("reduction", "none")))


def _tensor_scatter(ctx: NodeContext) -> Converted:
    """A cache with an update written along ``axis`` from each sequence's write index on."""
    past, update = ctx.shape(0), ctx.shape(1)
    axis = ctx.attr_int("axis", -2) % len(past)
    circular = ctx.attr_str("mode", "linear") == "circular"
    steps = ctx.iota(update, axis, i64)
    if ctx.has(2):
        starts = ctx.cast(ctx.value(2), i64)
        starts = ctx.reshape(starts, [past[0], *[1] * (len(past) - 1)])
        steps = ctx.emit(nn.AddOp(steps, starts))
    if circular:
        steps = ctx.emit(nn.ModOp(steps, ctx.constant(past[axis], i64)))
    return ctx.emit(nn.ScatterElementsOp(ctx.value(0), ctx.broadcast(steps, update), ctx.value(1), axis))


def _one_hot(ctx: NodeContext) -> Converted:
    """``values[1]`` where the index is, ``values[0]`` elsewhere; an index out of range is nowhere."""
    depth = int(ctx.require(1, "the depth").reshape(-1)[0])
    indices, shape = ctx.cast(ctx.value(0), i64), ctx.shape(0)
    axis = ctx.attr_int("axis", -1) % (len(shape) + 1)
    result = (*shape[:axis], depth, *shape[axis:])
    size = ctx.constant(depth, i64)
    inside = ctx.emit(nn.SelectOp(
        ctx.emit(nn.CompareOp(indices, ctx.constant(0, i64), "lt")), ctx.emit(nn.AddOp(indices, size)), indices
    ))  # fmt: skip
    spread = ctx.reshape(inside, (*shape[:axis], 1, *shape[axis:]))
    hot = ctx.emit(nn.CompareOp(ctx.iota(result, axis, i64), spread, "eq"))
    values = ctx.value(2)
    off, on = (ctx.reshape(ctx.cut(values, 0, index, index + 1), ()) for index in (0, 1))
    return ctx.emit(nn.SelectOp(hot, on, off))


def _compress(ctx: NodeContext) -> Converted:
    condition = ctx.require(1, "the condition").reshape(-1).astype(bool)
    x, axis = ctx.value(0), 0
    if ctx.has_attr("axis"):
        axis = ctx.attr_int("axis")
    else:
        x = ctx.reshape(x, (prod(ctx.shape(0)),))
    places = np.flatnonzero(condition)
    return ctx.emit(nn.GatherOp(x, ctx.constant(places, i64), axis % len(ctx.shape_of(x))))


def _non_zero(ctx: NodeContext) -> Converted:
    found = np.stack(np.nonzero(ctx.require(0, "the tensor whose elements are searched")))
    return ctx.constant(found.astype(np.int64), i64)


def _unique(ctx: NodeContext) -> Converted:
    """Of a tensor known at import only: the result's shape depends on its values."""
    values = ctx.require(0, "the tensor whose elements are searched")
    axis = ctx.attr_int("axis") if ctx.has_attr("axis") else None
    if axis is None:
        values = values.reshape(-1)
    found, first, inverse, counts = np.unique(
        values, return_index=True, return_inverse=True, return_counts=True, axis=axis or 0
    )
    if not ctx.attr_int("sorted", 1):
        order = np.argsort(first)
        found, first, counts = np.take(found, order, axis or 0), first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    numbers: list[SSAValue | None] = [ctx.constant(array.reshape(-1), i64) for array in (first, inverse, counts)]
    return [ctx.constant(found, ctx.element(0)), *numbers]


def _array_feature_extractor(ctx: NodeContext) -> Converted:
    if ctx.count != 2:
        raise UnsupportedError("features without indices")
    rank = len(ctx.shape(0))
    return ctx.emit(nn.GatherOp(ctx.value(0), ctx.reshape(ctx.value(1), (ctx.shape(1)[-1],)), rank - 1))


TABLE: Final[Table] = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TensorScatter": _tensor_scatter,
    "Unique": _unique,
    "ai.onnx.ml::ArrayFeatureExtractor": _array_feature_extractor,
}
