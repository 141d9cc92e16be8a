"""Reference meaning of convolutions: one product a place of the window."""

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


def convolve(x: Array, weight: Array, bias: Array | None, window: nn.Window, groups: int) -> Array:
    """x ``[N, C, sizes...]``, weight ``[O, C / groups, window...]``; ``[N, O, ...]``."""
    (batch, channels, *sizes), (outputs, _, *places) = x.shape, weight.shape
    counts = window.counts(sizes, places)
    padded = np.pad(x, ((0, 0), (0, 0), *zip(window.low, window.high, strict=True)))
    result = np.zeros((batch, groups, outputs // groups, prod(counts)), x.dtype)
    for place in np.ndindex(*places):
        under = tuple(
            slice(at * dilation, at * dilation + (count - 1) * stride + 1, stride)
            for at, dilation, stride, count in zip(place, window.dilations, window.strides, counts, strict=True)
        )
        part = padded[:, :, *under].reshape(batch, groups, channels // groups, -1)
        factor = weight[:, :, *place].reshape(groups, outputs // groups, channels // groups)
        result += factor @ part
    whole = result.reshape(batch, outputs, *counts)
    return whole if bias is None else whole + bias.reshape(-1, *(1,) * len(counts))
