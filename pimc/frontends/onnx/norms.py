"""Normalisations and activations of transformer models: to the operators of the PyTorch route where the form fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _ones(context: NodeContext, size: int, like: SSAValue) -> SSAValue:
    return context.constant(np.ones(size), context.element_of(like))


def _vector(context: NodeContext, value: SSAValue, shape: Sequence[int]) -> SSAValue | None:
    """``value`` as one vector if it has exactly ``shape`` (but for leading ones); None otherwise."""
    have = list(context.shape_of(value))
    while len(have) > len(shape) and have[0] == 1:
        have.pop(0)
    return context.reshape(value, (math.prod(shape),)) if have == list(shape) else None


def layer_norm(
    context: NodeContext, x: SSAValue, axis: int, scale: SSAValue | None, bias: SSAValue | None, eps: float
) -> SSAValue:
    """Layer norm over the dimensions from ``axis`` on; ``scale`` and ``bias`` broadcast to x."""
    shape = context.shape_of(x)
    normalised = shape[axis:]
    flat = context.reshape(x, (*shape[:axis], math.prod(normalised)))
    weight = _vector(context, scale, normalised) if scale is not None else None
    offset = _vector(context, bias, normalised) if bias is not None else None
    fused = scale is None or weight is not None
    if weight is None:
        weight = _ones(context, math.prod(normalised), x)
    result = context.emit(nn.LayerNormOp(flat, weight, offset if fused else None, eps))
    result = context.reshape(result, shape)
    terms = Expressions(context)
    if not fused and scale is not None:
        result = terms.mul(result, scale)
    return terms.add(result, bias) if bias is not None and not (fused and offset is not None) else result


def rms_norm(context: NodeContext, x: SSAValue, axis: int, scale: SSAValue | None, eps: float) -> SSAValue:
    """RMS norm over the dimensions from ``axis`` on; ``scale`` broadcasts to x."""
    shape = context.shape_of(x)
    normalised = shape[axis:]
    flat = context.reshape(x, (*shape[:axis], math.prod(normalised)))
    weight = _vector(context, scale, normalised) if scale is not None else None
    if weight is not None:
        return context.reshape(context.emit(nn.RmsNormOp(flat, weight, eps)), shape)
    result = context.emit(nn.RmsNormOp(flat, _ones(context, math.prod(normalised), x), eps))
    result = context.reshape(result, shape)
    return Expressions(context).mul(result, scale) if scale is not None else result


def _statistics(context: NodeContext, x: SSAValue, axis: int, eps: float, centred: bool) -> tuple[SSAValue, SSAValue]:
    """Mean and ``1 / sqrt(variance + eps)`` over the dimensions from ``axis`` on, in f32 (sizes 1 there).

    Without ``centred`` the variance is the mean of the squares.
    """
    terms = Expressions(context)
    x = context.cast(x, f32)
    axes = range(axis, len(context.shape_of(x)))
    mean = terms.mean(x, axes)
    deviation = terms.sub(x, mean) if centred else x
    variance = terms.mean(terms.mul(deviation, deviation), axes)
    return mean, context.emit(nn.RsqrtOp(terms.add(variance, eps)))


def _axis(context: NodeContext, rank: int) -> int:
    axis = context.attr_int("axis", -1)
    return axis % rank if rank else 0


def _layer_normalization(context: NodeContext) -> Converted:
    x, scale = context.value(0), context.value(1)
    axis, eps = _axis(context, len(context.shape_of(x))), context.attr_float("epsilon", 1e-5)
    bias = context.value(2) if context.has(2) else None
    result = layer_norm(context, x, axis, scale, bias, eps)
    if context.outputs == 1:
        return result
    mean, deviation = _statistics(context, x, axis, eps, centred=True)
    return [result, mean, deviation]


def _rms_normalization(context: NodeContext) -> Converted:
    """RMSNormalization, and SimplifiedLayerNormalization with its second output."""
    x, scale = context.value(0), context.value(1)
    axis, eps = _axis(context, len(context.shape_of(x))), context.attr_float("epsilon", 1e-5)
    result = rms_norm(context, x, axis, scale, eps)
    if context.outputs == 1:
        return result
    return [result, _statistics(context, x, axis, eps, centred=False)[1]]


def _skip_norm(simplified: bool) -> Converter:
    """Norm of a sum: ``input + skip (+ bias)``; the sum is the fourth output."""

    def convert(context: NodeContext) -> Converted:
        terms = Expressions(context)
        place = 3 if simplified else 4
        total = terms.add(context.value(0), context.value(1))
        if context.has(place):
            total = terms.add(total, context.value(place))
        axis, eps = len(context.shape_of(total)) - 1, context.attr_float("epsilon", 1e-12)
        if simplified:
            result = rms_norm(context, total, axis, context.value(2), eps)
        else:
            offset = context.value(3) if context.has(3) else None
            result = layer_norm(context, total, axis, context.value(2), offset, eps)
        mean = deviation = None
        if context.wants(1) or context.wants(2):
            mean, deviation = _statistics(context, total, axis, eps, centred=not simplified)
        return [result, mean, deviation, total][: context.outputs]

    return convert


def _by_channel(context: NodeContext, value: SSAValue, rank: int) -> SSAValue:
    return Expressions(context).grow(value, rank)


def _in_groups(context: NodeContext, groups: int, eps: float) -> SSAValue:
    """Input 0 with each of ``groups`` groups of channels normalised over itself and all places."""
    x = context.value(0)
    shape = context.shape_of(x)
    if groups < 1 or shape[1] % groups:
        raise UnsupportedError(f"{shape[1]} channels in {groups} groups")
    flat = context.reshape(x, (shape[0], groups, math.prod(shape[1:]) // groups))
    return context.reshape(layer_norm(context, flat, 2, None, None, eps), shape)


def _group_normalization(context: NodeContext) -> Converted:
    terms = Expressions(context)
    groups = context.attr_int("num_groups")
    result = _in_groups(context, groups, context.attr_float("epsilon", 1e-5))
    shape = context.shape_of(result)
    factors = [context.value(1), context.value(2)]
    if context.opset < 21:  # one factor for each group rather than for each channel
        size = shape[1] // groups
        factors = [
            context.reshape(context.broadcast(context.reshape(f, (groups, 1)), (groups, size)), (shape[1],))
            for f in factors
        ]
    scale, bias = (_by_channel(context, factor, len(shape)) for factor in factors)
    return terms.add(terms.mul(result, scale), bias)


def _instance_normalization(context: NodeContext) -> Converted:
    terms = Expressions(context)
    result = _in_groups(context, context.shape(0)[1], context.attr_float("epsilon", 1e-5))
    rank = len(context.shape_of(result))
    scale, bias = (_by_channel(context, context.value(index), rank) for index in (1, 2))
    return terms.add(terms.mul(result, scale), bias)


def _batch_normalization(context: NodeContext) -> Converted:
    """``(x - mean) / sqrt(variance + eps) * scale + bias`` by channel; in training with the batch's own statistics."""
    terms = Expressions(context)
    x, scale, bias, mean, variance = (context.value(index) for index in range(5))
    rank = len(context.shape_of(x))
    running: list[SSAValue] = []
    if context.attr_int("training_mode", 0):
        keep = context.attr_float("momentum", 0.9)
        axes = [axis for axis in range(rank) if axis != 1]
        own_mean = terms.mean(x, axes)
        deviation = terms.sub(x, own_mean)
        own = [terms.mean(x, axes, keepdims=False), terms.mean(terms.mul(deviation, deviation), axes, keepdims=False)]
        pairs = zip((mean, variance), own, strict=True)
        running = [terms.add(terms.mul(old, keep), terms.mul(new, 1.0 - keep)) for old, new in pairs]
        mean, variance = own
    element = context.element_of(x)
    eps = context.attr_float("epsilon", 1e-5)
    spread = context.emit(nn.RsqrtOp(terms.add(context.cast(variance, element), eps)))
    factor = terms.mul(context.cast(scale, element), spread)
    offset = terms.sub(context.cast(bias, element), terms.mul(context.cast(mean, element), factor))
    factor, offset = (_by_channel(context, value, rank) for value in (factor, offset))
    return [terms.add(terms.mul(x, factor), offset), *running][: context.outputs]


def _lp_normalization(context: NodeContext) -> Converted:
    """``x / |x|_p`` along one axis, 0 where the norm is 0."""
    terms = Expressions(context)
    x, axis, order = context.value(0), context.attr_int("axis", -1), context.attr_int("p", 2)
    if order == 1:
        norm = terms.total(context.emit(nn.AbsOp(x)), [axis])
    elif order == 2:
        norm = context.emit(nn.SqrtOp(terms.total(terms.mul(x, x), [axis])))
    else:
        raise UnsupportedError(f"the norm of order {order}", "order 1 or 2")
    empty = terms.compare(norm, "eq", 0.0)
    return terms.div(x, terms.select(empty, 1.0, norm))


def _mean_variance_normalization(context: NodeContext) -> Converted:
    terms = Expressions(context)
    x, axes = context.value(0), context.attr_ints("axes", [0, 2, 3])
    deviation = terms.sub(x, terms.mean(x, axes))
    spread = context.emit(nn.SqrtOp(terms.mean(terms.mul(deviation, deviation), axes)))
    return terms.div(deviation, terms.add(spread, 1e-9))


def _local_response(context: NodeContext) -> Converted:
    """LRN: ``x / (bias + alpha / size * sum of squares of neighbouring channels) ** beta``."""
    terms = Expressions(context)
    x, size = context.value(0), context.attr_int("size")
    shape = context.shape_of(x)
    before, behind = [0] * len(shape), [0] * len(shape)
    before[1], behind[1] = (size - 1) // 2, size // 2
    squares = terms.pad(terms.mul(x, x), before, behind)
    total = terms.part(squares, 1, 0, shape[1])
    for shift in range(1, size):
        total = terms.add(total, terms.part(squares, 1, shift, shift + shape[1]))
    factor = context.attr_float("alpha", 1e-4) / size
    base = terms.add(terms.mul(total, factor), context.attr_float("bias", 1.0))
    return terms.div(x, terms.pow(base, context.attr_float("beta", 0.75)))


def _gelu(form: str | None) -> Converter:
    """GELU of the sum of the inputs (a bias is the second); the form is the attribute's without ``form``."""

    def convert(context: NodeContext) -> Converted:
        x = context.value(0)
        if context.has(1):
            x = Expressions(context).add(x, context.value(1))
        return context.emit(nn.GeluOp(x, form or context.attr_str("approximate", "none")))

    return convert


def _quick_gelu(context: NodeContext) -> Converted:
    """``x * sigmoid(alpha x)``."""
    terms = Expressions(context)
    x, alpha = context.value(0), context.attr_float("alpha", 1.702)
    if alpha == 1.0:
        return context.emit(nn.SiluOp(x))
    return terms.mul(x, context.emit(nn.SigmoidOp(terms.mul(x, alpha))))


TABLE: Final[Mapping[str, Converter]] = {
    "LayerNormalization": _layer_normalization,
    "RMSNormalization": _rms_normalization,
    "SimplifiedLayerNormalization": _rms_normalization,
    "com.microsoft::SimplifiedLayerNormalization": _rms_normalization,
    "com.microsoft::SkipLayerNormalization": _skip_norm(simplified=False),
    "com.microsoft::SkipSimplifiedLayerNormalization": _skip_norm(simplified=True),
    "GroupNormalization": _group_normalization,
    "InstanceNormalization": _instance_normalization,
    "BatchNormalization": _batch_normalization,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance_normalization,
    "LRN": _local_response,
    "Gelu": _gelu(None),
    "com.microsoft::Gelu": _gelu("none"),
    "com.microsoft::BiasGelu": _gelu("none"),
    "com.microsoft::FastGelu": _gelu("tanh"),
    "com.microsoft::QuickGelu": _quick_gelu,
}
"""Converters by operator."""
