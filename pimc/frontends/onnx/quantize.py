"""Quantised tensors: 8 and 16 bit integers with a scale and a zero point, computed with in float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from xdsl.dialects.builtin import IntegerType, Signedness, f32, i32
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.elements import element_of
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def limits(element: Attribute) -> tuple[int, int]:
    """Least and greatest number of an integer type of up to 16 bits."""
    if not isinstance(element, IntegerType) or not 8 <= element.width.data <= 16:
        raise UnsupportedError(f"quantisation to {element}", "8 or 16 bit integers")
    width = element.width.data
    if element.signedness.data == Signedness.UNSIGNED:
        return 0, 2**width - 1
    return -(2 ** (width - 1)), 2 ** (width - 1) - 1


def spread(context: NodeContext, value: SSAValue, shape: tuple[int, ...], axis: int, block: int) -> SSAValue:
    """A scale or zero point so that it broadcasts to ``shape``: one number, one along ``axis``, or one for a block."""
    have = context.shape_of(value)
    if len(have) == 0 or have == (1,):
        return context.reshape(value, ())
    axis %= len(shape)
    if len(have) == 1 and block == 0:
        return Expressions(context).grow(value, len(shape), axis)
    if block <= 0:
        return value
    wide = context.reshape(value, (*have[: axis + 1], 1, *have[axis + 1 :]))
    wide = context.broadcast(wide, (*have[: axis + 1], block, *have[axis + 1 :]))
    wide = context.reshape(wide, (*have[:axis], have[axis] * block, *have[axis + 1 :]))
    return context.cut(wide, axis, 0, shape[axis])


def quantised(
    context: NodeContext, x: SSAValue, scale: SSAValue, zero: SSAValue | None, element: Attribute
) -> SSAValue:
    """``saturate(round(x / scale) + zero)``; scale and zero point broadcast to x."""
    terms = Expressions(context)
    whole = context.emit(nn.RoundOp(terms.div(context.cast(x, f32), context.cast(scale, f32))))
    if zero is not None:
        whole = terms.add(whole, context.cast(zero, f32))
    low, high = limits(element)
    return context.cast(terms.clip(whole, low, high), element)


def dequantised(context: NodeContext, x: SSAValue, scale: SSAValue, zero: SSAValue | None) -> SSAValue:
    """``(x - zero) * scale`` in f32; the difference in integers, where nothing is rounded."""
    terms = Expressions(context)
    if zero is not None:
        x = terms.sub(context.cast(x, i32), context.cast(zero, i32))
    return terms.mul(context.cast(x, f32), context.cast(scale, f32))


def _quantize_linear(context: NodeContext) -> Converted:
    x = context.value(0)
    shape, axis, block = context.shape_of(x), context.attr_int("axis", 1), context.attr_int("block_size", 0)
    zero = context.value(2) if context.has(2) else None
    if zero is not None:
        element = context.element_of(zero)
        zero = spread(context, zero, shape, axis, block)
    else:
        element = element_of(context.attr_int("output_dtype", 0) or 2)
    return quantised(context, x, spread(context, context.value(1), shape, axis, block), zero, element)


def _dequantize_linear(context: NodeContext) -> Converted:
    x, scale = context.value(0), context.value(1)
    shape, axis, block = context.shape_of(x), context.attr_int("axis", 1), context.attr_int("block_size", 0)
    zero = spread(context, context.value(2), shape, axis, block) if context.has(2) else None
    wanted = context.attr_int("output_dtype", 0)
    element = element_of(wanted) if wanted else context.element_of(scale)
    return context.cast(dequantised(context, x, spread(context, scale, shape, axis, block), zero), element)


def _by_row(context: NodeContext, value: SSAValue, rank: int) -> SSAValue:
    """A factor of a product's first operand: one number, or one for each row."""
    if len(context.shape_of(value)) != 1:
        return value
    return context.reshape(value, ()) if context.shape_of(value) == (1,) else Expressions(context).grow(value, rank, -2)


def _qlinear_matmul(context: NodeContext) -> Converted:
    """``quantise(dequantise(a) @ dequantise(b))``."""
    a, b = context.value(0), context.value(3)
    rank = len(context.shape_of(a))
    left = dequantised(context, a, *(_by_row(context, context.value(index), rank) for index in (1, 2)))
    right = dequantised(context, b, context.value(4), context.value(5))
    product = Expressions(context).matmul(left, right)
    zero = context.value(7)
    element = context.element_of(zero)
    scale, zero = (_by_row(context, value, rank) for value in (context.value(6), zero))
    return quantised(context, product, scale, zero, element)


def _matmul_integer(context: NodeContext) -> Converted:
    """``(a - zero of a) @ (b - zero of b)`` in i32."""
    terms = Expressions(context)
    a, b = (context.cast(context.value(index), i32) for index in (0, 1))
    if context.has(2):
        zero = _by_row(context, context.value(2), len(context.shape_of(a)))
        a = terms.sub(a, context.cast(zero, i32))
    if context.has(3):
        b = terms.sub(b, context.cast(context.value(3), i32))
    return terms.matmul(a, b)


def _dynamic_quantize_linear(context: NodeContext) -> Converted:
    """ui8 with scale and zero point from the least and greatest element (0 among them); those are outputs too."""
    terms = Expressions(context)
    x, element = context.value(0), element_of(2)
    axes = range(len(context.shape_of(x)))
    low = terms.minimum(terms.least(x, axes, keepdims=False), 0.0)
    high = terms.maximum(terms.greatest(x, axes, keepdims=False), 0.0)
    scale = terms.div(terms.sub(high, low), 255.0)
    start = terms.clip(context.emit(nn.NegOp(terms.div(low, scale))), 0.0, 255.0)
    zero = context.cast(context.emit(nn.RoundOp(start)), element)
    return [quantised(context, x, scale, zero, element), scale, zero]


def unpack_bits(
    packed: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], bits: int, count: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The first ``count`` numbers of ``bits`` bits in each row of bytes, lowest bits first."""
    if bits not in (2, 4, 8):
        raise UnsupportedError(f"weights of {bits} bits", "2, 4 or 8 bits")
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    numbers = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return numbers.reshape(*packed.shape[:-1], -1)[..., :count]


TABLE: Final[Mapping[str, Converter]] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _dequantize_linear,
    "com.microsoft::QuantizeLinear": _quantize_linear,
    "com.microsoft::DequantizeLinear": _dequantize_linear,
    "DynamicQuantizeLinear": _dynamic_quantize_linear,
    "QLinearMatMul": _qlinear_matmul,
    "MatMulInteger": _matmul_integer,
}
"""Converters by operator."""
