"""Reference meaning of operators with a sliding window: one product, or one maximum, a place of the window."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from pimc.ir import nn
from pimc.ir.interpreter.core import Frame
from pimc.ir.interpreter.table import Array, ImplementationTable, Value

TABLE = ImplementationTable()


@TABLE.register(nn.ConvOp)
def _conv(frame: Frame, op: nn.ConvOp, args: Sequence[Any]) -> Sequence[Value]:
    x, weight, *bias = args
    return (convolve(x, weight, bias[0] if bias else None, nn.window_of(op), op.groups.value.data),)


@TABLE.register(nn.MaxPoolOp)
def _max_pool(frame: Frame, op: nn.MaxPoolOp, args: Sequence[Any]) -> Sequence[Value]:
    (x,) = args
    window, places = nn.window_of(op), op.places.get_values()
    counts = window.counts(x.shape[2:], places)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    around = ((0, 0), (0, 0), *zip(window.low, window.high, strict=True))
    padded = np.pad(x, around, constant_values=lowest)
    parts = [padded[:, :, *under(window, place, counts)] for place in np.ndindex(*places)]
    return (np.maximum.reduce(parts),)


def under(window: nn.Window, place: Sequence[int], counts: Sequence[int]) -> tuple[slice, ...]:
    """What lies under one place of the window, at all of its positions."""
    return tuple(
        slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
        for at, dilation, stride, count in zip(place, window.dilations, window.strides, counts, strict=True)
    )


def convolve(x: Array, weight: Array, bias: Array | None, window: nn.Window, groups: int) -> Array:
    """x ``[N, C, sizes...]``, weight ``[O, C / groups, window...]``; ``[N, O, ...]``."""
    (batch, channels, *sizes), (outputs, _, *places) = x.shape, weight.shape
    counts = window.counts(sizes, places)
    padded = np.pad(x, ((0, 0), (0, 0), *zip(window.low, window.high, strict=True)))
    result = np.zeros((batch, groups, outputs // groups, prod(counts)), x.dtype)
    for place in np.ndindex(*places):
        part = padded[:, :, *under(window, place, counts)].reshape(batch, groups, channels // groups, -1)
        factor = weight[:, :, *place].reshape(groups, outputs // groups, channels // groups)
        result += factor @ part
    whole = result.reshape(batch, outputs, *counts)
    return whole if bias is None else whole + bias.reshape(-1, *(1,) * len(counts))
