"""ATen's convolutions -> `nn.conv`; batch norm behind one goes into its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32, i32
from xdsl.ir import SSAValue
from xdsl.rewriter import Rewriter

from pimc.frontends.aten_shape import as_int, pad, sizes_of
from pimc.frontends.aten_window import per_dim
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning, ParamRef
from pimc.frontends.graph import Converter
from pimc.ir import nn


def _conv(context: NodeContext) -> Meaning:
    """``[N, C, sizes...]`` (or without N) with weights ``[O, C / groups, window...]``."""
    arguments = context.arguments
    weight = _held(context, arguments["weight"])
    dims = len(sizes_of(weight)) - 2
    groups = as_int(arguments["groups"], "groups")
    x = context.operand(arguments["input"], f32)
    shape = nn.tensor_of(x).get_shape()
    if len(shape) == dims + 1:
        x = context.reshape(x, (1, *shape))
    if 0 in context.shape:
        return context.empty()
    strides, dilations = (per_dim(arguments[name], dims, name) for name in ("stride", "dilation"))
    reach = [dilation * (size - 1) for dilation, size in zip(dilations, sizes_of(weight)[2:], strict=True)]
    if arguments.get("transposed"):
        # A plain one of the input with zeros between its elements.
        weight = _turned(context, arguments["weight"], groups)
        x = _spread(context, x, strides)
        low, high = _transposed_padding(context, reach)
        x = pad(context, x, [side for pair in _last_first(low, high) for side in _negative(pair)], "constant", 0.0)
        strides = (1,) * dims
    else:
        low, high = _padding(arguments["padding"], reach)
    window = nn.Window(strides, dilations, *(tuple(max(0, side) for side in sides) for sides in (low, high)))
    value = context.param(weight) if isinstance(weight, ParamRef) else weight
    bias = None if arguments["bias"] is None else context.operand(arguments["bias"], f32)
    return context.reshape(context.emit(nn.ConvOp(x, value, bias, window, groups)), context.shape)


def _padding(value: object, reach: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Before and behind each dimension; "same" and "valid" by name."""
    if value == "valid":
        return (0,) * len(reach), (0,) * len(reach)
    if value == "same":
        return tuple(total // 2 for total in reach), tuple(total - total // 2 for total in reach)
    sides = per_dim(value, len(reach), "padding")
    return sides, sides


def _last_first(low: Sequence[int], high: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of sides, the last dimension first, as ``pad`` takes them."""
    return list(zip(low, high, strict=True))[::-1]


def _negative(sides: tuple[int, int]) -> tuple[int, int]:
    """What a padding cuts off."""
    return min(0, sides[0]), min(0, sides[1])


def _held(context: NodeContext, argument: object) -> ParamRef | SSAValue:
    """A weight of the model as a reference to it, a computed one as a value."""
    found = context.meaning(argument)
    return found if isinstance(found, ParamRef) else context.operand(argument, f32)


def _turned(context: NodeContext, argument: object, groups: int) -> ParamRef | SSAValue:
    """Weights ``[C, O / groups, *window]`` of a transposed convolution as those of a plain one, back to front."""
    known = context.known(argument)
    if known is not None:
        backwards = np.flip(known.astype(np.float32), tuple(range(2, known.ndim)))
        return context.derived("transposed", _regrouped(backwards, groups))
    value = context.operand(argument, f32)
    inputs, outputs, *size = nn.tensor_of(value).get_shape()
    for dim, count in enumerate(size):
        value = context.emit(nn.GatherOp(value, context.constant(np.arange(count)[::-1], i32), 2 + dim))
    rank = 3 + len(size)
    split = context.reshape(value, (groups, inputs // groups, outputs, *size))
    return context.reshape(
        context.transpose(split, (0, 2, 1, *range(3, rank))), (groups * outputs, inputs // groups, *size)
    )


def _regrouped(weight: npt.NDArray[np.float32], groups: int) -> npt.NDArray[np.float32]:
    """``[C, O / groups, *window]`` as ``[O, C / groups, *window]``."""
    inputs, outputs, *size = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, *size).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(groups * outputs, inputs // groups, *size))


def _spread(context: NodeContext, x: SSAValue, stride: Sequence[int]) -> SSAValue:
    """The elements with ``stride - 1`` zeros between neighbours."""
    for dim, step in enumerate(stride):
        shape = nn.tensor_of(x).get_shape()
        axis = len(shape) - len(stride) + dim
        if step > 1:
            column = context.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
            pads = [0] * 2 * (len(shape) - axis - 1) + [0, step - 1]
            wide = pad(context, column, pads, "constant", 0.0)
            joined = context.reshape(wide, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
            x = context.cut(joined, axis, 0, (shape[axis] - 1) * step + 1)
    return x


def _transposed_padding(context: NodeContext, reach: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Around the spread input of a transposed convolution: the reach of the window less its padding."""
    inner = per_dim(context.arguments["padding"], len(reach), "padding")
    outer = per_dim(context.arguments["output_padding"], len(reach), "output padding")
    low = tuple(total - side for total, side in zip(reach, inner, strict=True))
    return low, tuple(side + more for side, more in zip(low, outer, strict=True))


def scaled_conv(
    context: NodeContext, argument: object, scale: npt.NDArray[np.float32], shift: npt.NDArray[np.float32]
) -> SSAValue | None:
    """``conv * scale + shift`` a channel as one convolution; None unless ``argument`` is one over stored weights that
    nothing else uses.
    """
    found = context.meaning(argument)
    op = found.owner if isinstance(found, SSAValue) else None
    if not isinstance(op, nn.ConvOp) or any(op.result.uses) or len(argument.users) != 1:  # type: ignore[attr-defined]
        return None
    weights = context.importer.weights
    stored = [value.owner for value in op.operands[1:] if isinstance(value.owner, nn.ParamOp)]
    names = [each.weight_name.data for each in stored]
    if len(stored) != len(op.operands) - 1 or not all(map(weights.has_values, names)):
        return None
    weight, *bias = (weights[name].astype(np.float32) for name in names)
    moved = shift + (bias[0] * scale if bias else 0)
    factors = context.derived("folded", weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)))
    summands = context.derived("folded_bias", np.broadcast_to(moved, (len(weight),)).astype(np.float32))
    window, groups = nn.window_of(op), op.groups.value.data
    new = nn.ConvOp(op.x, context.param(factors), context.param(summands), window, groups)
    for old in (op, *stored):
        Rewriter.erase_op(old)
    return context.emit(new)


_CONVOLUTIONS: Final = [f"aten.conv{n}d.{form}" for n in (1, 2, 3) for form in ("default", "padding")]

TABLE: Final[Mapping[str, Converter]] = dict.fromkeys([*_CONVOLUTIONS, "aten.convolution.default"], _conv)
"""Converters by the operator's name."""
