"""Reference meaning of the `nn` reductions and of the operators that only move data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pimc.ir import nn
from pimc.ir.interpreter.core import Frame
from pimc.ir.interpreter.table import Array, ImplementationTable, Value
from pimc.ir.nn.base import tensor_of, values_of

TABLE = ImplementationTable()


def _register_reduction(op_type: type[nn.ReduceOp], function: Callable[..., Array]) -> None:
    @TABLE.register(op_type)
    def run(frame: Frame, op: nn.ReduceOp, args: Sequence[Any]) -> Sequence[Value]:
        return (function(args[0], axis=values_of(op.axes), keepdims=bool(op.keepdims.value.data)),)


def _mean(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """NaN of nothing."""
    total: Array = np.sum(x, axis=axis, keepdims=keepdims)
    mean: Array = total / np.asarray(math.prod(x.shape[index] for index in axis), total.dtype)
    return mean


def _extreme(function: Callable[..., Array], sign: int) -> Callable[..., Array]:
    """The maximum (sign -1: of nothing the lowest number) or the minimum (sign 1)."""

    def reduce(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
        if x.dtype.kind == "f":
            return function(x, axis=axis, keepdims=keepdims, initial=sign * np.inf)
        if x.dtype.kind == "b":
            return function(x, axis=axis, keepdims=keepdims, initial=sign > 0)
        limits = np.iinfo(x.dtype)
        return function(x, axis=axis, keepdims=keepdims, initial=limits.min if sign < 0 else limits.max)

    return reduce


_register_reduction(nn.ReduceSumOp, np.sum)
_register_reduction(nn.ReduceMeanOp, _mean)
_register_reduction(nn.ReduceProdOp, np.prod)
_register_reduction(nn.ReduceMaxOp, _extreme(np.max, -1))
_register_reduction(nn.ReduceMinOp, _extreme(np.min, 1))


@TABLE.register(nn.ReshapeOp, exact=True)
def _reshape(frame: Frame, op: nn.ReshapeOp, args: Sequence[Any]) -> Sequence[Value]:
    return (args[0].reshape(tensor_of(op.result).get_shape()),)


@TABLE.register(nn.TransposeOp, exact=True)
def _transpose(frame: Frame, op: nn.TransposeOp, args: Sequence[Any]) -> Sequence[Value]:
    return (args[0].transpose(values_of(op.permutation)),)


@TABLE.register(nn.SliceOp, exact=True)
def _slice(frame: Frame, op: nn.SliceOp, args: Sequence[Any]) -> Sequence[Value]:
    bounds = zip(values_of(op.starts), values_of(op.stops), values_of(op.steps), strict=True)
    return (args[0][tuple(nn.python_slice(*bound) for bound in bounds)],)


@TABLE.register(nn.ConcatOp, exact=True)
def _concat(frame: Frame, op: nn.ConcatOp, args: Sequence[Any]) -> Sequence[Value]:
    return (np.concatenate(args, axis=op.axis.value.data),)


@TABLE.register(nn.BroadcastToOp, exact=True)
def _broadcast_to(frame: Frame, op: nn.BroadcastToOp, args: Sequence[Any]) -> Sequence[Value]:
    return (np.broadcast_to(args[0], tensor_of(op.result).get_shape()),)
