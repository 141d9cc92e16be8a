"""Reference meaning of the `nn` operators that search, accumulate, and read or write at indices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.interpreter.core import Frame
from pimc.ir.interpreter.table import Array, ImplementationTable, Value
from pimc.ir.locations import where
from pimc.ir.nn.base import NnOp, values_of

TABLE = ImplementationTable()


def from_front(op: NnOp, indices: Array, size: int) -> Array:
    """``indices`` counted from the front; InputError unless all are in ``[-size, size)``."""
    bad = indices[(indices < -size) | (indices >= size)]
    if bad.size:
        raise InputError(f"{op.name}: index {int(bad.flat[0])} is out of range [-{size}, {size})", where=where(op))
    whole = indices.astype(np.int64)
    result: Array = np.where(whole < 0, whole + size, whole)
    return result


@TABLE.register(nn.GatherOp, exact=True)
def _gather(frame: Frame, op: nn.GatherOp, args: Sequence[Any]) -> Sequence[Value]:
    x, indices = args
    axis = op.axis.value.data
    return (np.take(x, from_front(op, indices, x.shape[axis]), axis=axis),)


@TABLE.register(nn.GatherElementsOp, exact=True)
def _gather_elements(frame: Frame, op: nn.GatherElementsOp, args: Sequence[Any]) -> Sequence[Value]:
    x, indices = args
    return (x[_element_index(op, indices, x.shape, op.axis.value.data)],)


def _element_index(op: NnOp, indices: Array, shape: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """The index tuple that takes dimension ``axis`` from ``indices`` and the others from their own places."""
    axis %= len(shape)
    places = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    places[axis] = from_front(op, indices, shape[axis])
    return tuple(np.broadcast_to(place, indices.shape) for place in places)


@TABLE.register(nn.GatherNdOp, exact=True)
def _gather_nd(frame: Frame, op: nn.GatherNdOp, args: Sequence[Any]) -> Sequence[Value]:
    x, indices = args
    batch = op.batch_dims.value.data
    depth = indices.shape[-1]
    parts = [from_front(op, indices[..., i], x.shape[batch + i]) for i in range(depth)]
    lead = np.ogrid[tuple(slice(size) for size in indices.shape[:-1])][:batch] if indices.ndim > 1 else []
    return (x[(*lead, *parts)],)


_UFUNC: dict[str, np.ufunc] = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter(x: Array, index: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    """A copy of x with ``updates`` put (or combined) at ``index``, later updates after earlier ones."""
    result = x.copy()
    if reduction == "none":
        result[index] = updates
    else:
        _UFUNC[reduction].at(result, index, updates)
    return result


@TABLE.register(nn.ScatterElementsOp)
def _scatter_elements(frame: Frame, op: nn.ScatterElementsOp, args: Sequence[Any]) -> Sequence[Value]:
    x, indices, updates = args
    index = _element_index(op, indices, x.shape, op.axis.value.data)
    return (_scatter(x, index, updates, op.reduction.data),)


@TABLE.register(nn.ScatterNdOp)
def _scatter_nd(frame: Frame, op: nn.ScatterNdOp, args: Sequence[Any]) -> Sequence[Value]:
    x, indices, updates = args
    index = tuple(from_front(op, indices[..., i], x.shape[i]) for i in range(indices.shape[-1]))
    return (_scatter(x, index, updates, op.reduction.data),)


def _arg(function: Callable[..., Array], op: nn.ArgMaxOp | nn.ArgMinOp, x: Array) -> Array:
    axis, keepdims = op.axis.value.data, bool(op.keepdims.value.data)
    if not op.select_last.value.data:
        return function(x, axis=axis, keepdims=keepdims)
    backward: Array = function(np.flip(x, axis=axis), axis=axis, keepdims=keepdims)
    return np.asarray(x.shape[axis] - 1 - backward)


@TABLE.register(nn.ArgMaxOp)
def _arg_max(frame: Frame, op: nn.ArgMaxOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_arg(np.argmax, op, args[0]),)


@TABLE.register(nn.ArgMinOp)
def _arg_min(frame: Frame, op: nn.ArgMinOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_arg(np.argmin, op, args[0]),)


@TABLE.register(nn.TopKOp)
def _top_k(frame: Frame, op: nn.TopKOp, args: Sequence[Any]) -> Sequence[Value]:
    x, axis = args[0], op.axis.value.data
    if op.largest.value.data:  # turned round twice, so that the lower index comes first among equals
        backward = np.argsort(np.flip(x, axis=axis), axis=axis, kind="stable")
        order = x.shape[axis] - 1 - np.flip(backward, axis=axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    indices = np.take(order, np.arange(op.k.value.data), axis=axis)
    return (np.take_along_axis(x, indices, axis=axis), indices)


def _scan(function: Callable[..., Array], neutral: int, op: nn.CumSumOp | nn.CumProdOp, x: Array) -> Array:
    axis = op.axis.value.data
    values = np.flip(x, axis=axis) if op.reverse.value.data else x
    if op.exclusive.value.data and x.shape[axis]:
        first = np.full_like(np.take(values, [0], axis=axis), neutral)
        values = np.concatenate([first, np.take(values, np.arange(x.shape[axis] - 1), axis=axis)], axis=axis)
    total = function(values, axis=axis)
    return np.flip(total, axis=axis) if op.reverse.value.data else total


@TABLE.register(nn.CumSumOp)
def _cum_sum(frame: Frame, op: nn.CumSumOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_scan(np.cumsum, 0, op, args[0]),)


@TABLE.register(nn.CumProdOp)
def _cum_prod(frame: Frame, op: nn.CumProdOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_scan(np.cumprod, 1, op, args[0]),)


@TABLE.register(nn.PadOp, exact=True)
def _pad(frame: Frame, op: nn.PadOp, args: Sequence[Any]) -> Sequence[Value]:
    widths = list(zip(values_of(op.low), values_of(op.high), strict=True))
    if not widths:
        return (args[0],)
    if op.mode.data == "constant":
        value = np.asarray(op.value.value.data).astype(args[0].dtype)
        return (np.pad(args[0], widths, constant_values=value),)
    mode = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[op.mode.data]
    return (np.pad(args[0], widths, mode=mode),)  # type: ignore[call-overload]
