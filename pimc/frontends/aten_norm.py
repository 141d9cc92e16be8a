"""ATen's normalisations -> `nn` primitives: layer, RMS, group and batch norm, the softmax family."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from pimc.frontends.aten_conv import scaled_conv
from pimc.frontends.aten_shape import as_int, as_ints
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _axis(context: NodeContext) -> tuple[SSAValue, int]:
    """The operand, and its dimension that the operator works along (of a scalar: as a vector of one)."""
    x = context.operand(context.arguments["self"], f32)
    rank = len(nn.tensor_of(x).get_shape())
    if rank == 0:
        return context.reshape(x, (1,)), 0
    return x, as_int(context.arguments["dim"], "dimension") % rank


def _softmax(context: NodeContext) -> Meaning:
    x, axis = _axis(context)
    return context.reshape(context.emit(nn.SoftmaxOp(x, axis)), context.shape)


def _safe_softmax(context: NodeContext) -> Meaning:
    """Softmax; zeros where every element is minus infinity."""
    x, axis = _axis(context)
    hidden = nn.CompareOp(context.emit(nn.ReduceMaxOp(x, [axis], True)), context.constant(-math.inf, f32), "eq")
    found = nn.SelectOp(context.emit(hidden), context.constant(0.0, f32), context.emit(nn.SoftmaxOp(x, axis)))
    return context.reshape(context.emit(found), context.shape)


def _log_softmax(context: NodeContext) -> Meaning:
    """``x - max - log(sum(exp(x - max)))``, which loses no small probability to rounding."""
    x, axis = _axis(context)
    shifted = context.emit(nn.SubOp(x, context.emit(nn.ReduceMaxOp(x, [axis], True))))
    total = context.emit(nn.ReduceSumOp(context.emit(nn.ExpOp(shifted)), [axis], True))
    return context.reshape(context.emit(nn.SubOp(shifted, context.emit(nn.LogOp(total)))), context.shape)


def _folded(context: NodeContext, name: str) -> tuple[SSAValue, int]:
    """The operand with the normalised dimensions folded into one, and that one's size."""
    x = context.operand(context.arguments[name], f32)
    sizes = as_ints(context.arguments["normalized_shape"], "shape")
    size = math.prod(sizes)
    return context.reshape(x, (*nn.tensor_of(x).get_shape()[: -len(sizes)], size)), size


def _vector(context: NodeContext, name: str, size: int, default: float) -> SSAValue:
    """The weight or bias of a norm as a vector; ones or zeros where the model has none."""
    argument = context.arguments[name]
    if argument is None:
        return context.constant(np.full(size, default), f32)
    return context.reshape(context.operand(argument, f32), (size,))


def _layer_norm(context: NodeContext) -> Meaning:
    if 0 in nn.tensor_of(context.value(context.arguments["input"])).get_shape():
        return context.operand(context.arguments["input"], f32)
    x, size = _folded(context, "input")
    bias = _vector(context, "bias", size, 0.0) if context.arguments["bias"] is not None else None
    eps = context.number(context.arguments["eps"], "eps")
    shape = nn.tensor_of(context.value(context.arguments["input"])).get_shape()
    return context.reshape(context.emit(nn.LayerNormOp(x, _vector(context, "weight", size, 1.0), bias, eps)), shape)


def _first_of(converter: Converter) -> Converter:
    """An operator that also gives what only training needs."""

    def convert(context: NodeContext) -> Meaning:
        found = converter(context)
        assert isinstance(found, SSAValue)
        return [found]

    return convert


def _statistics(context: NodeContext, x: SSAValue, axes: Sequence[int], eps: float) -> tuple[SSAValue, SSAValue]:
    """The mean and ``1 / sqrt(variance + eps)`` over ``axes``, which stay as size 1."""
    mean = context.emit(nn.ReduceMeanOp(x, axes, True))
    centred = context.emit(nn.SubOp(x, mean))
    variance = context.emit(nn.ReduceMeanOp(context.emit(nn.MulOp(centred, centred)), axes, True))
    return mean, context.emit(nn.RsqrtOp(context.emit(nn.AddOp(variance, context.constant(eps, f32)))))


def _wants_more(context: NodeContext) -> bool:
    """Whether results other than the first are used."""
    return any(user.args[1] != 0 for user in context.node.users)


def _native_layer_norm(context: NodeContext) -> Meaning:
    """The normalised input and, if asked for, mean and reciprocal deviation."""
    found = _layer_norm(context)
    assert isinstance(found, SSAValue)
    if not _wants_more(context):
        return [found]
    x = context.operand(context.arguments["input"], f32)
    rank = len(nn.tensor_of(x).get_shape())
    count = len(as_ints(context.arguments["normalized_shape"], "shape"))
    eps = context.number(context.arguments["eps"], "eps")
    return [found, *_statistics(context, x, range(rank - count, rank), eps)]


def _fused_rms_norm(context: NodeContext) -> Meaning:
    """The normalised input and, if asked for, the reciprocal root of the mean square."""
    found = _rms_norm(context)
    assert isinstance(found, SSAValue)
    if not _wants_more(context):
        return [found]
    x = context.operand(context.arguments["input"], f32)
    rank = len(nn.tensor_of(x).get_shape())
    count = len(as_ints(context.arguments["normalized_shape"], "shape"))
    square = context.emit(nn.ReduceMeanOp(context.emit(nn.MulOp(x, x)), range(rank - count, rank), True))
    return [found, context.emit(nn.RsqrtOp(context.emit(nn.AddOp(square, context.constant(_rms_eps(context), f32)))))]


def _rms_norm(context: NodeContext) -> Meaning:
    x, size = _folded(context, "input")
    normed = context.emit(nn.RmsNormOp(x, _vector(context, "weight", size, 1.0), _rms_eps(context)))
    return context.reshape(normed, nn.tensor_of(context.value(context.arguments["input"])).get_shape())


def _rms_eps(context: NodeContext) -> float:
    """Without eps torch takes the machine epsilon of the element type."""
    eps = context.arguments["eps"]
    return 2.0**-23 if eps is None else context.number(eps, "eps")


def _per_channel(context: NodeContext, x: SSAValue, scale: SSAValue | None, shift: SSAValue | None) -> SSAValue:
    """``x * scale + shift`` with one number a channel (dimension 1)."""
    shape = nn.tensor_of(x).get_shape()
    column = (shape[1], *(1,) * (len(shape) - 2))
    if scale is not None:
        x = context.emit(nn.MulOp(x, context.reshape(scale, column)))
    return x if shift is None else context.emit(nn.AddOp(x, context.reshape(shift, column)))


def _group_norm(context: NodeContext) -> Meaning:
    """Each group of channels is normalised as one row."""
    arguments = context.arguments
    x = context.operand(arguments["input"], f32)
    shape = nn.tensor_of(x).get_shape()
    groups = as_int(arguments.get("num_groups", arguments.get("group")), "number of groups")
    size = math.prod(shape[1:]) // groups
    rows = context.reshape(x, (shape[0], groups, size))
    eps = context.number(arguments["eps"], "eps")
    normed = context.emit(nn.LayerNormOp(rows, context.constant(np.ones(size), f32), None, eps))
    scale, shift = (
        None if arguments[name] is None else context.operand(arguments[name], f32) for name in ("weight", "bias")
    )
    return _per_channel(context, context.reshape(normed, shape), scale, shift)


def _batch_norm(context: NodeContext) -> Meaning:
    """With the statistics of training: one factor and one summand a channel, computed here where they are known.

    Without any, those of the batch.
    """
    arguments = context.arguments
    x = context.operand(arguments["input"], f32)
    if 0 in nn.tensor_of(x).get_shape():
        return x
    eps = context.number(arguments["eps"], "eps")
    names = ("running_mean", "running_var", "weight", "bias")
    if arguments["running_mean"] is None or arguments["running_var"] is None:
        return _own_batch_norm(context, x, eps)
    if arguments.get("training"):
        raise UnsupportedError("batch norm in training", "model.eval() uses the statistics of training")
    mean, variance, weight, bias = (_floats(context, arguments[name]) for name in names)
    if (
        mean is None
        or variance is None
        or any(arguments[name] is not None and found is None for name, found in (("weight", weight), ("bias", bias)))
    ):
        return _computed_batch_norm(context, x, eps)
    scale = (np.float32(1) if weight is None else weight) / np.sqrt(variance + np.float32(eps))
    shift = (np.float32(0) if bias is None else bias) - mean * scale
    folded = scaled_conv(context, arguments["input"], np.asarray(scale, np.float32), np.asarray(shift, np.float32))
    if folded is not None:
        return folded
    parts = [context.param(context.derived(name, part)) for name, part in (("scale", scale), ("shift", shift))]
    return _per_channel(context, x, *parts)


def _own_batch_norm(context: NodeContext, x: SSAValue, eps: float) -> SSAValue:
    """Each channel by the mean and variance of this batch."""
    axes = [axis for axis in range(len(nn.tensor_of(x).get_shape())) if axis != 1]
    mean, scale = _statistics(context, x, axes, eps)
    normed = context.emit(nn.MulOp(context.emit(nn.SubOp(x, mean)), scale))
    weight, bias = (
        None if context.arguments[name] is None else context.operand(context.arguments[name], f32)
        for name in ("weight", "bias")
    )
    return _per_channel(context, normed, weight, bias)


def _floats(context: NodeContext, argument: object) -> npt.NDArray[np.float32] | None:
    known = context.known(argument)
    return None if known is None else known.astype(np.float32)


def _computed_batch_norm(context: NodeContext, x: SSAValue, eps: float) -> SSAValue:
    arguments = context.arguments
    mean, variance = (context.operand(arguments[name], f32) for name in ("running_mean", "running_var"))
    scale = context.emit(nn.RsqrtOp(context.emit(nn.AddOp(variance, context.constant(eps, f32)))))
    if arguments["weight"] is not None:
        scale = context.emit(nn.MulOp(scale, context.operand(arguments["weight"], f32)))
    shift = context.emit(nn.NegOp(context.emit(nn.MulOp(mean, scale))))
    if arguments["bias"] is not None:
        shift = context.emit(nn.AddOp(shift, context.operand(arguments["bias"], f32)))
    return _per_channel(context, x, scale, shift)


TABLE: Final[Mapping[str, Converter]] = {
    **dict.fromkeys(("aten.softmax.int", "aten._softmax.default"), _softmax),
    "aten._safe_softmax.default": _safe_softmax,
    **dict.fromkeys(("aten.log_softmax.int", "aten._log_softmax.default"), _log_softmax),
    "aten.layer_norm.default": _layer_norm,
    "aten.native_layer_norm.default": _native_layer_norm,
    "aten.rms_norm.default": _rms_norm,
    "aten._fused_rms_norm.default": _fused_rms_norm,
    "aten.group_norm.default": _group_norm,
    "aten.batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _first_of(_batch_norm),
}
"""Converters by the operator's name."""
