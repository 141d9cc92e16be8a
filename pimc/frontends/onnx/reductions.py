"""Converters of ONNX reductions, searches along an axis, and running totals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext, Table
from pimc.frontends.onnx.shape import axes_of
from pimc.ir import nn

Reduction = Callable[[NodeContext, SSAValue, Sequence[int], bool], SSAValue]
Pointwise = Callable[[NodeContext, SSAValue], SSAValue]


def _reduce(op: type[nn.ReduceOp]) -> Reduction:
    def apply(ctx: NodeContext, x: SSAValue, axes: Sequence[int], keepdims: bool) -> SSAValue:
        return ctx.emit(op(x, axes, keepdims))

    return apply


def _log_sum_exp(ctx: NodeContext, x: SSAValue, axes: Sequence[int], keepdims: bool) -> SSAValue:
    """``max + log(sum(exp(x - max)))``; the maximum of an infinite row is left out, so that -inf stays -inf."""
    top = ctx.emit(nn.ReduceMaxOp(x, axes, True))
    finite = ctx.emit(nn.SelectOp(ctx.emit(nn.IsInfOp(top)), ctx.like(0.0, top), top))
    total = ctx.emit(nn.ReduceSumOp(ctx.emit(nn.ExpOp(ctx.emit(nn.SubOp(x, finite)))), axes, True))
    result = ctx.emit(nn.AddOp(ctx.emit(nn.LogOp(total)), finite))
    kept = ctx.shape_of(result)
    return result if keepdims else ctx.reshape(result, [n for i, n in enumerate(kept) if i not in axes])


def _around(before: Pointwise, after: Pointwise) -> Reduction:
    """A sum of a function of the elements, and a function of the sum."""

    def apply(ctx: NodeContext, x: SSAValue, axes: Sequence[int], keepdims: bool) -> SSAValue:
        return after(ctx, ctx.emit(nn.ReduceSumOp(before(ctx, x), axes, keepdims)))

    return apply


def _same(ctx: NodeContext, x: SSAValue) -> SSAValue:
    return x


def _abs(ctx: NodeContext, x: SSAValue) -> SSAValue:
    return ctx.emit(nn.AbsOp(x))


def _square(ctx: NodeContext, x: SSAValue) -> SSAValue:
    return ctx.emit(nn.MulOp(x, x))


def _sqrt(ctx: NodeContext, x: SSAValue) -> SSAValue:
    return ctx.emit(nn.SqrtOp(x))


def _log(ctx: NodeContext, x: SSAValue) -> SSAValue:
    return ctx.emit(nn.LogOp(x))


def _converter(reduction: Reduction, single: Reduction | None = None) -> Converter:
    """Axes as an input or an attribute; no axes are all, or none with ``noop_with_empty_axes`` (then ``single`` of each
    element is the result: by default the reduction over no axis).
    """

    def convert(ctx: NodeContext) -> Converted:
        rank = len(ctx.shape(0))
        axes = [axis % max(1, rank) for axis in axes_of(ctx) or ()]
        x = ctx.value(0)
        if not axes and ctx.attr_int("noop_with_empty_axes", 0):
            return (single or reduction)(ctx, x, [], True)
        return reduction(ctx, x, axes or list(range(rank)), bool(ctx.attr_int("keepdims", 1)))

    return convert


def _identity(ctx: NodeContext, x: SSAValue, axes: Sequence[int], keepdims: bool) -> SSAValue:
    return x


def _arg(op: type[nn.ArgMaxOp] | type[nn.ArgMinOp]) -> Converter:
    def convert(ctx: NodeContext) -> Converted:
        axis = ctx.attr_int("axis", 0)
        keepdims, last = (bool(ctx.attr_int(name, default)) for name, default in (
            ("keepdims", 1), ("select_last_index", 0),
        ))  # fmt: skip
        return ctx.emit(op(ctx.value(0), axis, keepdims, last))

    return convert


def _scan(op: type[nn.CumSumOp] | type[nn.CumProdOp]) -> Converter:
    def convert(ctx: NodeContext) -> Converted:
        axis = int(ctx.require(1, "the axis").reshape(-1)[0])
        return ctx.emit(op(ctx.value(0), axis, bool(ctx.attr_int("exclusive", 0)), bool(ctx.attr_int("reverse", 0))))

    return convert


def _top_k(ctx: NodeContext) -> Converted:
    k = int(ctx.require(1, "k").reshape(-1)[0]) if ctx.count > 1 else ctx.attr_int("k")
    largest, ordered = bool(ctx.attr_int("largest", 1)), bool(ctx.attr_int("sorted", 1))
    return ctx.emit_all(nn.TopKOp(ctx.value(0), k, ctx.attr_int("axis", -1), largest, ordered))


TABLE: Final[Table] = {
    "ArgMax": _arg(nn.ArgMaxOp),
    "ArgMin": _arg(nn.ArgMinOp),
    "CumProd": _scan(nn.CumProdOp),
    "CumSum": _scan(nn.CumSumOp),
    "ReduceL1": _converter(_around(_abs, _same)),
    "ReduceL2": _converter(_around(_square, _sqrt)),
    "ReduceLogSum": _converter(_around(_same, _log)),
    "ReduceLogSumExp": _converter(_log_sum_exp),
    "ReduceMax": _converter(_reduce(nn.ReduceMaxOp), _identity),
    "ReduceMean": _converter(_reduce(nn.ReduceMeanOp), _identity),
    "ReduceMin": _converter(_reduce(nn.ReduceMinOp), _identity),
    "ReduceProd": _converter(_reduce(nn.ReduceProdOp), _identity),
    "ReduceSum": _converter(_reduce(nn.ReduceSumOp), _identity),
    "ReduceSumSquare": _converter(_around(_square, _same)),
    "TopK": _top_k,
}
