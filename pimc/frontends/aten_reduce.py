"""ATen's reductions, searches and running sums -> `nn` primitives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

from xdsl.dialects.builtin import f32, i1, i32
from xdsl.ir import SSAValue

from pimc.frontends.aten_shape import as_int, as_ints
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning
from pimc.frontends.graph import Converter
from pimc.ir import nn

Reduction: TypeAlias = Callable[[SSAValue, Sequence[int], bool], nn.NnOp]


def _axes(context: NodeContext, value: SSAValue) -> tuple[list[int], bool]:
    """The dimensions to reduce (all where none is given), and whether they stay as size 1."""
    rank = len(nn.tensor_of(value).get_shape())
    dims = context.arguments.get("dim")
    everything = dims is None or dims == [] or rank == 0
    axes = list(range(rank)) if everything else [axis % rank for axis in as_ints(dims, "dimension")]
    return axes, bool(context.arguments.get("keepdim", False))


def _reduce(op: Reduction) -> Converter:
    """A reduction of the operand in the element type of the result."""

    def convert(context: NodeContext) -> Meaning:
        value = context.operand(context.arguments["self"], context.type.element_type)
        return context.reshape(context.emit(op(value, *_axes(context, value))), context.shape)

    return convert


def _count(value: SSAValue, axes: Sequence[int]) -> int:
    return math.prod(nn.tensor_of(value).get_shape()[axis] for axis in axes)


def _truth(op: Reduction) -> Converter:
    """``any`` is the largest, ``all`` the smallest of the truth values as numbers."""

    def convert(context: NodeContext) -> Meaning:
        value = context.cast(context.operand(context.arguments["self"], i1), i32)
        found = context.emit(op(value, *_axes(context, value)))
        return context.reshape(context.cast(found, i1), context.shape)

    return convert


def _variance(context: NodeContext) -> tuple[SSAValue, SSAValue]:
    """Variance and mean over the dimensions; divided by the count less ``correction`` (1 where not given)."""
    value = context.operand(context.arguments["self"], f32)
    axes, keep = _axes(context, value)
    correction = context.arguments.get("correction", 1 if context.arguments.get("unbiased", True) else 0)
    correction = 1 if correction is None else context.number(correction, "correction")
    mean = context.emit(nn.ReduceMeanOp(value, axes, True))
    centred = context.emit(nn.SubOp(value, mean))
    total = context.emit(nn.ReduceSumOp(context.emit(nn.MulOp(centred, centred)), axes, keep))
    divisor = context.constant(max(0.0, _count(value, axes) - correction), f32)
    variance = context.emit(nn.DivOp(total, divisor))
    return variance, context.reshape(mean, nn.tensor_of(variance).get_shape())


def _var(context: NodeContext) -> Meaning:
    return _variance(context)[0]


def _std(context: NodeContext) -> Meaning:
    return context.emit(nn.SqrtOp(_variance(context)[0]))


def _var_mean(context: NodeContext) -> Meaning:
    return list(_variance(context))


def _std_mean(context: NodeContext) -> Meaning:
    variance, mean = _variance(context)
    return [context.emit(nn.SqrtOp(variance)), mean]


def _arg(op: Callable[[SSAValue, int, bool, bool], nn.NnOp]) -> Converter:
    """The first place of the greatest or smallest; without a dimension, of the flattened tensor."""

    def convert(context: NodeContext) -> Meaning:
        value, axis = _line(context, flat=context.arguments["dim"] is None)
        place = context.emit(op(value, axis, True, False))
        return context.reshape(context.cast(place, i32), context.shape)

    return convert


def _line(context: NodeContext, *, flat: bool = False) -> tuple[SSAValue, int]:
    """The operand (truth values as numbers, a scalar as a vector), and the dimension to work along."""
    value = context.value(context.arguments["self"])
    if nn.tensor_of(value).element_type == i1:
        value = context.cast(value, i32)
    shape = nn.tensor_of(value).get_shape()
    if flat or not shape:
        return context.reshape(value, (math.prod(shape),)), 0
    return value, as_int(context.arguments["dim"], "dimension") % len(shape)


def _with_place(reduce: Reduction, arg: Callable[[SSAValue, int, bool, bool], nn.NnOp]) -> Converter:
    """The greatest (or smallest) along a dimension, and the first place where it is."""

    def convert(context: NodeContext) -> Meaning:
        value, axis = _line(context)
        types = context.types
        best = context.cast(context.emit(reduce(value, [axis], True)), types[0].element_type)
        results: list[Meaning] = [context.reshape(best, types[0].get_shape())]
        if any(user.args[1] == 1 for user in context.node.users):
            place = context.cast(context.emit(arg(value, axis, True, False)), i32)
            results.append(context.reshape(place, types[1].get_shape()))
        return results

    return convert


def _topk(context: NodeContext) -> Meaning:
    value, axis = _line(context)
    arguments = context.arguments
    return _ranked(context, value, axis, as_int(arguments["k"], "k"), bool(arguments["largest"]))


def _sort(context: NodeContext) -> Meaning:
    value, axis = _line(context)
    return _ranked(context, value, axis, nn.tensor_of(value).get_shape()[axis], bool(context.arguments["descending"]))


def _ranked(context: NodeContext, value: SSAValue, axis: int, count: int, largest: bool) -> list[Meaning]:
    values, places = context.emit_all(nn.TopKOp(value, count, axis, largest, True))
    types = context.types
    values = context.cast(values, types[0].element_type)
    return [
        context.reshape(values, types[0].get_shape()),
        context.reshape(context.cast(places, i32), types[1].get_shape()),
    ]


def _argsort(context: NodeContext) -> Meaning:
    value, axis = _line(context)
    size = nn.tensor_of(value).get_shape()[axis]
    largest = bool(context.arguments["descending"])
    places = context.emit_all(nn.TopKOp(value, size, axis, largest, True))[1]
    return context.reshape(context.cast(places, i32), context.shape)


def _cumulative(op: Callable[[SSAValue, int, bool, bool], nn.NnOp]) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        value = context.operand(context.arguments["self"], context.type.element_type)
        rank = len(context.shape)
        if rank == 0:
            return value
        return context.emit(op(value, as_int(context.arguments["dim"], "dimension") % rank, False, False))

    return convert


_REDUCTIONS: Final[Mapping[str, Reduction]] = {
    "mean.default": nn.ReduceMeanOp, "mean.dim": nn.ReduceMeanOp,
    "sum.default": nn.ReduceSumOp, "sum.dim_IntList": nn.ReduceSumOp,
    "prod.default": nn.ReduceProdOp, "prod.dim_int": nn.ReduceProdOp,
    "amax.default": nn.ReduceMaxOp, "max.default": nn.ReduceMaxOp,
    "amin.default": nn.ReduceMinOp, "min.default": nn.ReduceMinOp,
}  # fmt: skip

TABLE: Final[Mapping[str, Converter]] = {
    **{f"aten.{name}": _reduce(op) for name, op in _REDUCTIONS.items()},
    **{f"aten.any.{form}": _truth(nn.ReduceMaxOp) for form in ("default", "dim", "dims")},
    **{f"aten.all.{form}": _truth(nn.ReduceMinOp) for form in ("default", "dim", "dims")},
    **{f"aten.var.{form}": _var for form in ("default", "dim", "correction")},
    **{f"aten.std.{form}": _std for form in ("default", "dim", "correction")},
    **{f"aten.var_mean.{form}": _var_mean for form in ("default", "dim", "correction")},
    **{f"aten.std_mean.{form}": _std_mean for form in ("default", "dim", "correction")},
    "aten.argmax.default": _arg(nn.ArgMaxOp),
    "aten.argmin.default": _arg(nn.ArgMinOp),
    "aten.max.dim": _with_place(nn.ReduceMaxOp, nn.ArgMaxOp),
    "aten.min.dim": _with_place(nn.ReduceMinOp, nn.ArgMinOp),
    "aten.topk.default": _topk,
    **dict.fromkeys(("aten.sort.default", "aten.sort.stable"), _sort),
    **dict.fromkeys(("aten.argsort.default", "aten.argsort.stable"), _argsort),
    "aten.cumsum.default": _cumulative(nn.CumSumOp),
    "aten.cumprod.default": _cumulative(nn.CumProdOp),
}
"""Converters by the operator's name."""
