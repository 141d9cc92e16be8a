"""Converters of the operators that :mod:`pimc.frontends.onnx.caches` puts into a decoder's graph."""

from __future__ import annotations

from typing import Final

from xdsl.dialects.arith import ConstantOp as IndexConstantOp
from xdsl.dialects.builtin import IndexType, IntegerAttr, TensorType, i32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.attention import attention
from pimc.frontends.onnx.context import Converted, NodeContext, Table
from pimc.ir import nn


def _cache_update(ctx: NodeContext) -> Converted:
    """New keys or values ``[1, Hkv, M, D]`` written at the position; all slots ``[1, Hkv, S, D]``."""
    symbol, slots = ctx.attr_str("symbol"), ctx.attr_int("slots")
    _, heads, tokens, size = ctx.shape(0)
    layer = ctx.emit(IndexConstantOp(IntegerAttr(ctx.attr_int("layer"), IndexType())))
    folded = ctx.reshape(ctx.transpose(ctx.value(0), (0, 2, 1, 3)), (1, tokens, heads * size))
    ctx.emit_all(nn.CacheWriteOp(symbol, layer, folded, ctx.value(1)))
    read = ctx.emit(nn.CacheReadOp(symbol, layer, TensorType(ctx.element(0), (1, slots, heads, size))))
    return ctx.transpose(read, (0, 2, 1, 3))


def _positions(ctx: NodeContext) -> Converted:
    """``[1, M]`` i32: the position of each token."""
    count = ctx.attr_int("count")
    own: SSAValue = ctx.emit(nn.AddOp(ctx.value(0), ctx.iota((count,), 0, i32)))
    return ctx.reshape(own, (1, count))


def _select_token(ctx: NodeContext) -> Converted:
    """The logits of token ``length - 1``."""
    return ctx.emit(nn.SelectTokenOp(ctx.value(0), ctx.value(1)))


def _cached_attention(ctx: NodeContext) -> Converted:
    """``Attention`` over all slots: windows count from the last one, which is the last query's."""
    return attention(ctx, last=True)


TABLE: Final[Table] = {
    "pimc::CachedAttention": _cached_attention,
    "pimc::CacheUpdate": _cache_update,
    "pimc::Positions": _positions,
    "pimc::SelectToken": _select_token,
}
