"""Converters of ONNX operators that work on single elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Final

import numpy as np
from xdsl.dialects.builtin import IntegerType, i1
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext, Table
from pimc.frontends.onnx.elements import element_of
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn
from pimc.ir.nn.base import broadcast_shapes

Unary = Callable[[SSAValue], nn.NnOp]
Binary = Callable[[SSAValue, SSAValue], nn.NnOp]


def _unary(op: Unary) -> Converter:
    def convert(ctx: NodeContext) -> Converted:
        return ctx.emit(op(ctx.value(0)))

    return convert


def _binary(op: Binary) -> Converter:
    def convert(ctx: NodeContext) -> Converted:
        return ctx.emit(op(ctx.value(0), ctx.value(1)))

    return convert


def _variadic(op: Binary) -> Converter:
    def convert(ctx: NodeContext) -> Converted:
        return reduce(lambda a, b: ctx.emit(op(a, b)), ctx.values())

    return convert


def _mean(ctx: NodeContext) -> Converted:
    total = reduce(lambda a, b: ctx.emit(nn.AddOp(a, b)), ctx.values())
    return ctx.emit(nn.DivOp(total, ctx.like(ctx.count, total)))


def _compare(predicate: str) -> Converter:
    def convert(ctx: NodeContext) -> Converted:
        return ctx.emit(nn.CompareOp(ctx.value(0), ctx.value(1), predicate))

    return convert


def _mod(ctx: NodeContext) -> Converted:
    return ctx.emit(nn.ModOp(ctx.value(0), ctx.value(1), bool(ctx.attr_int("fmod", 0))))


def _shift(ctx: NodeContext) -> Converted:
    op = nn.ShiftLeftOp if ctx.attr_str("direction") == "LEFT" else nn.ShiftRightOp
    return ctx.emit(op(ctx.value(0), ctx.value(1)))


def _clip(ctx: NodeContext) -> Converted:
    value = ctx.value(0)
    low = ctx.value(1) if ctx.has(1) else ctx.like(ctx.attr_float("min"), value) if ctx.has_attr("min") else None
    high = ctx.value(2) if ctx.has(2) else ctx.like(ctx.attr_float("max"), value) if ctx.has_attr("max") else None
    if low is not None:
        value = ctx.emit(nn.MaximumOp(value, low))
    if high is not None:
        value = ctx.emit(nn.MinimumOp(value, high))
    return value


def _where(ctx: NodeContext) -> Converted:
    return ctx.emit(nn.SelectOp(ctx.value(0), ctx.value(1), ctx.value(2)))


def _cast(ctx: NodeContext) -> Converted:
    return ctx.cast(ctx.value(0), element_of(ctx.attr_int("to")))


def _cast_like(ctx: NodeContext) -> Converted:
    return ctx.cast(ctx.value(0), ctx.element(1))


def _is_inf(ctx: NodeContext) -> Converted:
    positive, negative = (bool(ctx.attr_int(f"detect_{sign}", 1)) for sign in ("positive", "negative"))
    return ctx.emit(nn.IsInfOp(ctx.value(0), positive, negative))


def _dropout(ctx: NodeContext) -> Converted:
    """Inference: the input; in training mode a ratio of 0 keeps everything, any other is random."""
    x = ctx.value(0)
    training = ctx.known(2)
    if ctx.has(2) and (training is None or bool(training.reshape(-1)[0])):
        ratio = ctx.require(1, "the dropout ratio") if ctx.has(1) else np.asarray(0.5)
        if training is None or float(ratio.reshape(-1)[0]) != 0.0:
            raise UnsupportedError("dropout in training is random", "the model exported for inference")
    if not ctx.wants(1):
        return [x]
    return [x, ctx.constant(np.ones(ctx.shape(0), np.bool_), i1)]


# -- activations ------------------------------------------------------------------------------------------------------


def _silu_like(ctx: NodeContext) -> Converted:
    """Swish: ``x * sigmoid(alpha x)``."""
    x, alpha = ctx.value(0), ctx.attr_float("alpha", 1.0)
    if alpha == 1.0:
        return ctx.emit(nn.SiluOp(x))
    scaled = ctx.emit(nn.MulOp(x, ctx.like(alpha, x)))
    return ctx.emit(nn.MulOp(x, ctx.emit(nn.SigmoidOp(scaled))))


def _softplus_of(ctx: NodeContext, x: SSAValue) -> SSAValue:
    """``log(1 + exp(x))`` as ``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    small = ctx.emit(nn.ExpOp(ctx.emit(nn.NegOp(ctx.emit(nn.AbsOp(x))))))
    log = ctx.emit(nn.LogOp(ctx.emit(nn.AddOp(small, ctx.like(1.0, x)))))
    return ctx.emit(nn.AddOp(ctx.emit(nn.ReluOp(x)), log))


def _softplus(ctx: NodeContext) -> Converted:
    return _softplus_of(ctx, ctx.value(0))


def _mish(ctx: NodeContext) -> Converted:
    x = ctx.value(0)
    return ctx.emit(nn.MulOp(x, ctx.emit(nn.TanhOp(_softplus_of(ctx, x)))))


def _softsign(ctx: NodeContext) -> Converted:
    x = ctx.value(0)
    return ctx.emit(nn.DivOp(x, ctx.emit(nn.AddOp(ctx.emit(nn.AbsOp(x)), ctx.like(1.0, x)))))


def _negative_part(ctx: NodeContext, x: SSAValue, alpha: float, gamma: float = 1.0) -> SSAValue:
    """ELU and its kin: ``gamma * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))``."""
    zero, one = ctx.like(0.0, x), ctx.like(1.0, x)
    below = ctx.emit(nn.SubOp(ctx.emit(nn.ExpOp(ctx.emit(nn.MinimumOp(x, zero)))), one))
    total = ctx.emit(nn.AddOp(ctx.emit(nn.ReluOp(x)), ctx.emit(nn.MulOp(below, ctx.like(alpha, x)))))
    return total if gamma == 1.0 else ctx.emit(nn.MulOp(total, ctx.like(gamma, x)))


def _elu(ctx: NodeContext) -> Converted:
    return _negative_part(ctx, ctx.value(0), ctx.attr_float("alpha", 1.0))


def _selu(ctx: NodeContext) -> Converted:
    alpha, gamma = ctx.attr_float("alpha", 1.6732632423543772), ctx.attr_float("gamma", 1.0507009873554805)
    return _negative_part(ctx, ctx.value(0), alpha, gamma)


def _celu(ctx: NodeContext) -> Converted:
    x, alpha = ctx.value(0), ctx.attr_float("alpha", 1.0)
    zero = ctx.like(0.0, x)
    scaled = ctx.emit(nn.DivOp(ctx.emit(nn.MinimumOp(x, zero)), ctx.like(alpha, x)))
    below = ctx.emit(nn.SubOp(ctx.emit(nn.ExpOp(scaled)), ctx.like(1.0, x)))
    return ctx.emit(nn.AddOp(ctx.emit(nn.ReluOp(x)), ctx.emit(nn.MulOp(below, ctx.like(alpha, x)))))


def _slope_below(ctx: NodeContext, x: SSAValue, slope: SSAValue) -> SSAValue:
    """``x`` above 0, ``slope * x`` below."""
    below = ctx.emit(nn.MulOp(x, slope))
    return ctx.emit(nn.SelectOp(ctx.emit(nn.CompareOp(x, ctx.like(0, x), "lt")), below, x))


def _leaky_relu(ctx: NodeContext) -> Converted:
    x = ctx.value(0)
    return _slope_below(ctx, x, ctx.like(ctx.attr_float("alpha", 0.01), x))


def _prelu(ctx: NodeContext) -> Converted:
    return _slope_below(ctx, ctx.value(0), ctx.value(1))


def _relu(ctx: NodeContext) -> Converted:
    x = ctx.value(0)
    if ctx.is_float(0):
        return ctx.emit(nn.ReluOp(x))
    return ctx.emit(nn.MaximumOp(x, ctx.like(0, x)))


def _thresholded_relu(ctx: NodeContext) -> Converted:
    x = ctx.value(0)
    above = ctx.emit(nn.CompareOp(x, ctx.like(ctx.attr_float("alpha", 1.0), x), "gt"))
    return ctx.emit(nn.SelectOp(above, x, ctx.like(0.0, x)))


def _hard_sigmoid_of(ctx: NodeContext, x: SSAValue, alpha: float, beta: float) -> SSAValue:
    line = ctx.emit(nn.AddOp(ctx.emit(nn.MulOp(x, ctx.like(alpha, x))), ctx.like(beta, x)))
    return ctx.emit(nn.MinimumOp(ctx.emit(nn.MaximumOp(line, ctx.like(0.0, x))), ctx.like(1.0, x)))


def _hard_sigmoid(ctx: NodeContext) -> Converted:
    return _hard_sigmoid_of(ctx, ctx.value(0), ctx.attr_float("alpha", 0.2), ctx.attr_float("beta", 0.5))


def _hard_swish(ctx: NodeContext) -> Converted:
    x = ctx.value(0)
    return ctx.emit(nn.MulOp(x, _hard_sigmoid_of(ctx, x, 1 / 6, 0.5)))


def _shrink(ctx: NodeContext) -> Converted:
    x, bias, limit = ctx.value(0), ctx.attr_float("bias", 0.0), ctx.attr_float("lambd", 0.5)
    zero = ctx.like(0.0, x)
    low = ctx.emit(nn.CompareOp(x, ctx.like(-limit, x), "lt"))
    high = ctx.emit(nn.CompareOp(x, ctx.like(limit, x), "gt"))
    above = ctx.emit(nn.SelectOp(high, ctx.emit(nn.SubOp(x, ctx.like(bias, x))), zero))
    return ctx.emit(nn.SelectOp(low, ctx.emit(nn.AddOp(x, ctx.like(bias, x))), above))


def _along_axis(function: Callable[[NodeContext, SSAValue, int], SSAValue]) -> Converter:
    """Softmax and its kin: over one axis since opset 13; before, over all dimensions from ``axis`` on."""

    def convert(ctx: NodeContext) -> Converted:
        x, shape = ctx.value(0), ctx.shape(0)
        if ctx.opset >= 13:
            return function(ctx, x, ctx.attr_int("axis", -1) % len(shape))
        axis = ctx.attr_int("axis", 1) % len(shape)
        flat = ctx.reshape(x, (prod(shape[:axis]), prod(shape[axis:])))
        return ctx.reshape(function(ctx, flat, 1), shape)

    return convert


def _softmax(ctx: NodeContext, x: SSAValue, axis: int) -> SSAValue:
    return ctx.emit(nn.SoftmaxOp(x, axis))


def log_softmax(ctx: NodeContext, x: SSAValue, axis: int) -> SSAValue:
    """``x - max - log(sum(exp(x - max)))`` along ``axis``."""
    shifted = ctx.emit(nn.SubOp(x, ctx.emit(nn.ReduceMaxOp(x, [axis], keepdims=True))))
    total = ctx.emit(nn.ReduceSumOp(ctx.emit(nn.ExpOp(shifted)), [axis], keepdims=True))
    return ctx.emit(nn.SubOp(shifted, ctx.emit(nn.LogOp(total))))


def _hardmax(ctx: NodeContext, x: SSAValue, axis: int) -> SSAValue:
    """1 at the first maximum along ``axis``, 0 elsewhere."""
    index = ctx.emit(nn.ArgMaxOp(x, axis, True))
    places = ctx.iota(ctx.shape_of(x), axis, ctx.element_of(index))
    return ctx.cast(ctx.emit(nn.CompareOp(places, index, "eq")), ctx.element_of(x))


def _same_type(ctx: NodeContext) -> Converted:
    return ctx.value(0)


def _expand(ctx: NodeContext) -> Converted:
    shape = broadcast_shapes([ctx.shape(0), tuple(ctx.ints(1, "the shape"))])
    return ctx.broadcast(ctx.value(0), shape)


def _abs(ctx: NodeContext) -> Converted:
    element = ctx.element(0)
    unsigned = isinstance(element, IntegerType) and element.signedness.data.name == "UNSIGNED"
    return ctx.value(0) if unsigned else ctx.emit(nn.AbsOp(ctx.value(0)))


_UNARY: Final[dict[str, Unary]] = {
    "Acos": nn.AcosOp, "Acosh": nn.AcoshOp, "Asin": nn.AsinOp, "Asinh": nn.AsinhOp, "Atan": nn.AtanOp,
    "Atanh": nn.AtanhOp, "BitwiseNot": nn.BitNotOp,
    "Ceil": nn.CeilOp, "Cos": nn.CosOp, "Cosh": nn.CoshOp, "Erf": nn.ErfOp, "Exp": nn.ExpOp,
    "Floor": nn.FloorOp, "IsNaN": nn.IsNanOp, "Log": nn.LogOp, "Neg": nn.NegOp, "Not": nn.NotOp,
    "Reciprocal": nn.RecipOp, "Round": nn.RoundOp, "Sigmoid": nn.SigmoidOp,
    "Sign": nn.SignOp, "Sin": nn.SinOp, "Sinh": nn.SinhOp,
    "Sqrt": nn.SqrtOp, "Tan": nn.TanOp, "Tanh": nn.TanhOp,
}  # fmt: skip
_BINARY: Final[dict[str, Binary]] = {
    "Add": nn.AddOp, "And": nn.AndOp, "BitwiseAnd": nn.AndOp, "BitwiseOr": nn.OrOp, "BitwiseXor": nn.XorOp,
    "Div": nn.DivOp, "Mul": nn.MulOp, "Or": nn.OrOp, "Pow": nn.PowOp, "Sub": nn.SubOp, "Xor": nn.XorOp,
}  # fmt: skip
_COMPARISONS: Final = {"Equal": "eq", "Greater": "gt", "GreaterOrEqual": "ge", "Less": "lt", "LessOrEqual": "le"}

TABLE: Final[Table] = {
    **{name: _unary(op) for name, op in _UNARY.items()},
    **{name: _binary(op) for name, op in _BINARY.items()},
    **{name: _compare(predicate) for name, predicate in _COMPARISONS.items()},
    "Abs": _abs,
    "BitShift": _shift,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Celu": _celu,
    "Clip": _clip,
    "Dropout": _dropout,
    "Elu": _elu,
    "Expand": _expand,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Hardmax": _along_axis(_hardmax),
    "Identity": _same_type,
    "IsInf": _is_inf,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _along_axis(log_softmax),
    "Max": _variadic(nn.MaximumOp),
    "Mean": _mean,
    "Min": _variadic(nn.MinimumOp),
    "Mish": _mish,
    "Mod": _mod,
    "PRelu": _prelu,
    "Relu": _relu,
    "Selu": _selu,
    "Shrink": _shrink,
    "Softmax": _along_axis(_softmax),
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Sum": _variadic(nn.AddOp),
    "Swish": _silu_like,
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
}
