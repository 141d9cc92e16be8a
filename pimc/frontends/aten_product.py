"""ATen's products -> `nn` primitives: linear layers, matrix products, attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from xdsl.dialects.builtin import f32, i1
from xdsl.ir import SSAValue

from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning, ParamRef
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

LOWEST: Final = -(2.0 - 2.0**-23) * 2.0**127
"""The lowest f32: the score of a masked position (an infinity has no text form that parses back)."""


def _linear(context: NodeContext) -> Meaning:
    weight, bias = context.arguments["weight"], context.arguments["bias"]
    x = context.operand(context.arguments["input"], f32)
    found = context.meaning(weight)
    if isinstance(found, ParamRef):
        return context.emit(nn.LinearOp(x, context.param(found), None if bias is None else context.value(bias)))
    result = matmul(context, x, context.transpose(context.operand(weight, f32), (1, 0)))
    return result if bias is None else context.emit(nn.AddOp(result, context.operand(bias, f32)))


def matmul(context: NodeContext, a: SSAValue, b: SSAValue) -> SSAValue:
    """``torch.matmul``: vectors are a row on the left and a column on the right, and drop out of the result."""
    left, right = nn.tensor_of(a).get_shape(), nn.tensor_of(b).get_shape()
    if len(left) == 1:
        a = context.reshape(a, (1, *left))
    if len(right) == 1:
        b = context.reshape(b, (*right, 1))
    result = context.emit(nn.MatmulOp(a, b))
    shape = list(nn.tensor_of(result).get_shape())
    if len(right) == 1:
        shape.pop()
    if len(left) == 1:
        shape.pop(-2 if len(right) > 1 else -1)
    return context.reshape(result, shape)


def _product(context: NodeContext, left: object, right: object) -> SSAValue:
    """``left @ right``; with a weight matrix on the right it is a linear layer of its transpose."""
    found = context.meaning(right)
    x = context.operand(left, f32)
    if isinstance(found, ParamRef) and len(found.shape) == 2:
        return context.emit(nn.LinearOp(x, context.param(found.transposed())))
    return matmul(context, x, context.operand(right, f32))


def _matmul(context: NodeContext) -> Meaning:
    arguments = context.arguments
    right = next(arguments[name] for name in ("other", "mat2", "vec", "tensor") if name in arguments)
    return context.cast(_product(context, arguments["self"], right), context.type.element_type)


def _scaled(context: NodeContext, value: SSAValue, factor: object) -> SSAValue:
    return value if factor == 1 else context.emit(nn.MulOp(value, context.operand(factor, f32)))


def _addmm(context: NodeContext) -> Meaning:
    """``beta * self + alpha * (mat1 @ mat2)``; a linear layer with a bias where that is what it is."""
    arguments = context.arguments
    left, right = (
        (arguments["batch1"], arguments["batch2"]) if "batch1" in arguments else (arguments["mat1"], arguments["mat2"])
    )
    plain = (arguments["alpha"], arguments["beta"]) == (1, 1)
    weight = context.meaning(right)
    if arguments["beta"] == 0:
        return _scaled(context, _product(context, left, right), arguments["alpha"])
    bias = context.operand(arguments["self"], f32)
    if plain and isinstance(weight, ParamRef) and len(nn.tensor_of(bias).get_shape()) == 1 and len(weight.shape) == 2:
        return context.emit(nn.LinearOp(context.operand(left, f32), context.param(weight.transposed()), bias))
    product = _scaled(context, _product(context, left, right), arguments["alpha"])
    return context.emit(nn.AddOp(product, _scaled(context, bias, arguments["beta"])))


def _attention(context: NodeContext) -> Meaning:
    """Scaled dot-product attention, spelled out: scores, mask, softmax, weighted sum."""
    arguments = context.arguments
    query, key, value = (context.operand(arguments[name], f32) for name in ("query", "key", "value"))
    if arguments["dropout_p"] != 0.0:
        raise UnsupportedError("dropout in attention", "model.eval() turns it off")
    rank = len(nn.tensor_of(key).get_shape())
    if arguments.get("enable_gqa"):
        heads = nn.tensor_of(query).get_shape()[-3]
        key, value = (_repeat_heads(context, tensor, heads) for tensor in (key, value))
    order = [*range(rank - 2), rank - 1, rank - 2]
    scores = context.emit(nn.MatmulOp(query, context.emit(nn.TransposeOp(key, order))))
    scale = arguments["scale"]
    factor = float(str(scale)) if scale is not None else 1 / math.sqrt(nn.tensor_of(query).get_shape()[-1])
    scores = context.emit(nn.MulOp(scores, context.constant(factor, f32)))
    mask = arguments["attn_mask"]
    if mask is not None:
        scores = _masked(context, scores, context.value(mask))
    if arguments["is_causal"]:
        scores = _masked(context, scores, _causal_mask(context, scores))
    return context.emit(nn.MatmulOp(context.emit(nn.SoftmaxOp(scores)), value))


def _flash_attention(context: NodeContext) -> Meaning:
    """The form that decomposed programs have: the result, and the logarithms that only training needs."""
    found = _attention(context)
    assert isinstance(found, SSAValue)
    return [found]


def _repeat_heads(context: NodeContext, value: SSAValue, heads: int) -> SSAValue:
    """Every key/value head repeated for the query heads that share it: ``[B, Hkv, N, D]`` -> ``[B, H, N, D]``."""
    *batch, kv_heads, tokens, size = nn.tensor_of(value).get_shape()
    if kv_heads == heads:
        return value
    grouped = context.reshape(value, (*batch, kv_heads, 1, tokens, size))
    repeated = context.emit(nn.BroadcastToOp(grouped, (*batch, kv_heads, heads // kv_heads, tokens, size)))
    return context.reshape(repeated, (*batch, heads, tokens, size))


def _masked(context: NodeContext, scores: SSAValue, mask: SSAValue) -> SSAValue:
    if nn.tensor_of(mask).element_type == i1:
        return context.emit(nn.SelectOp(mask, scores, context.constant(LOWEST, f32)))
    return context.emit(nn.AddOp(scores, mask))


def _causal_mask(context: NodeContext, scores: SSAValue) -> SSAValue:
    queries, keys = nn.tensor_of(scores).get_shape()[-2:]
    lhs, rhs = context.iota((1, keys), 1), context.iota((queries, 1), 0)
    return context.emit(nn.CompareOp(lhs, rhs, "le"))


TABLE: Final[Mapping[str, Converter]] = {
    "aten.linear.default": _linear,
    **dict.fromkeys(
        ("aten.matmul.default", "aten.mm.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default"), _matmul
    ),
    **dict.fromkeys(("aten.addmm.default", "aten.baddbmm.default"), _addmm),
    "aten.scaled_dot_product_attention.default": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu.default": _flash_attention,
}
"""Converters by the operator's name."""
