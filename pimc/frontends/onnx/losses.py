"""Losses: negative log likelihood, and softmax cross entropy on top of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _weights(context: NodeContext, target: SSAValue, like: SSAValue) -> tuple[SSAValue, SSAValue | None]:
    """Class indices that are all in range, and the weight of each (None: all 1)."""
    terms = Expressions(context)
    valid: SSAValue | None = None
    if context.has_attr("ignore_index"):
        valid = terms.compare(target, "ne", context.attr_int("ignore_index"))
        target = terms.select(valid, target, 0)
    weight: SSAValue | None = None
    if context.has(2):
        weight = context.emit(nn.GatherOp(context.value(2), target, 0))
    if valid is not None:
        one = context.like(1.0, like)
        weight = terms.select(valid, one if weight is None else weight, 0.0)
    return target, weight


def _loss(context: NodeContext, log_probabilities: SSAValue) -> SSAValue:
    """Minus the log probability of input 1's classes (axis 1), weighted by input 2 and reduced."""
    terms = Expressions(context)
    target, weight = _weights(context, context.value(1), log_probabilities)
    shape = context.shape_of(target)
    column = context.reshape(target, (shape[0], 1, *shape[1:]))
    picked = context.emit(nn.GatherElementsOp(log_probabilities, column, 1))
    loss = context.emit(nn.NegOp(context.reshape(picked, shape)))
    axes = range(len(shape))
    if weight is not None:
        loss = terms.mul(loss, weight)
    match context.attr_str("reduction", "mean"):
        case "none":
            return loss
        case "sum":
            return terms.total(loss, axes, keepdims=False)
        case "mean" if weight is not None:
            whole = context.broadcast(weight, shape)
            return terms.div(terms.total(loss, axes, keepdims=False), terms.total(whole, axes, keepdims=False))
        case "mean":
            return terms.div(terms.total(loss, axes, keepdims=False), float(math.prod(shape)))
        case other:
            raise UnsupportedError(f"the reduction {other!r}", "none, sum or mean")


def log_softmax(context: NodeContext, x: SSAValue, axis: int) -> SSAValue:
    """``x - max - log(sum(exp(x - max)))`` along ``axis``."""
    terms = Expressions(context)
    shifted = terms.sub(x, terms.greatest(x, [axis]))
    total = terms.total(context.emit(nn.ExpOp(shifted)), [axis])
    return terms.sub(shifted, context.emit(nn.LogOp(total)))


def _negative_log_likelihood(context: NodeContext) -> Converted:
    return _loss(context, context.value(0))


def _softmax_cross_entropy(context: NodeContext) -> Converted:
    log_probabilities = log_softmax(context, context.value(0), 1)
    return [_loss(context, log_probabilities), log_probabilities][: context.outputs]


TABLE: Final[Mapping[str, Converter]] = {
    "NegativeLogLikelihoodLoss": _negative_log_likelihood,
    "SoftmaxCrossEntropyLoss": _softmax_cross_entropy,
}
"""Converters by operator."""
