"""Operators of ONNX Runtime (domain com.microsoft) that exported transformers contain.

Their definitions: ONNX Runtime, ContribOperators.md.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32, i32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.attend import Mask, attend, lengths_column
from pimc.frontends.onnx.attention import rotary_rows, rotate
from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.nodes import node_name
from pimc.frontends.onnx.norms import layer_norm
from pimc.frontends.onnx.quantize import unpack_bits
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

_LOG: Final = logging.getLogger(__name__)


def _scale(context: NodeContext, size: int) -> float:
    given = context.attr_float("scale", 0.0)
    return given if given else 1.0 / math.sqrt(size)


def _with_past(context: NodeContext, past: tuple[int, int], key: SSAValue, value: SSAValue) -> list[SSAValue]:
    """Keys and values behind those of the inputs ``past``, if these are given; all ``[B, Hkv, N, D]``."""
    if not context.has(past[0]):
        return [key, value]
    pairs = zip(past, (key, value), strict=True)
    return [context.concat([context.value(index), new], 2) for index, new in pairs]


# -- rotary embeddings -------------------------------------------------------------------------------------------------


def _positions(context: NodeContext, given: SSAValue, batch: int, tokens: int) -> SSAValue:
    """Position ids ``[B, M]`` i32; one number is the position of the first token."""
    given = context.cast(given, i32)
    if len(context.shape_of(given)) == 2:
        return given
    count = context.iota((1, tokens), 1, i32)
    return context.broadcast(Expressions(context).add(count, context.reshape(given, (1, 1))), (batch, tokens))


def _rotary_embedding(context: NodeContext) -> Converted:
    """Inputs: x, position ids, cos and sin tables ``[S, R/2]``."""
    x = context.value(0)
    by_head = len(context.shape_of(x)) == 4
    half = context.shape(2)[1]
    if by_head:
        x = context.transpose(x, (0, 2, 1, 3))
    else:
        batch, tokens, features = context.shape_of(x)
        heads = context.attr_int("num_heads", 0)
        size = features // heads if heads else 2 * half
        x = context.reshape(x, (batch, tokens, features // size, size))
    batch, tokens = context.shape_of(x)[:2]
    positions = _positions(context, context.value(1), batch, tokens)
    cos, sin = (rotary_rows(context, context.value(index), positions) for index in (2, 3))
    scaled = context.attr_float("scale", 1.0)
    if scaled != 1.0:
        raise UnsupportedError("a rotary embedding with a scale")
    result = rotate(context, x, cos, sin, interleaved=bool(context.attr_int("interleaved", 0)))
    return context.transpose(result, (0, 2, 1, 3)) if by_head else context.reshape(result, context.shape(0))


# -- attention ---------------------------------------------------------------------------------------------------------


def _padding(context: NodeContext, index: int, mask: Mask, batch: int) -> None:
    """The key padding mask of input ``index``: lengths ``[B]``, 1 for keys to keep ``[B, N]`` or ``[B, M, N]``."""
    if not context.has(index):
        return
    terms = Expressions(context)
    given = context.cast(context.value(index), i32)
    shape = context.shape_of(given)
    filtered = context.attr_float("mask_filter_value", -10000.0)
    if len(shape) == 1 and shape[0] == batch:
        kept = terms.compare(terms.iota((1, mask.keys), 1), "lt", lengths_column(context, given))
    elif len(shape) == 2:
        kept = terms.compare(context.reshape(given, (shape[0], 1, 1, shape[1])), "ne", 0)
    elif len(shape) == 3:
        kept = terms.compare(context.reshape(given, (shape[0], 1, *shape[1:])), "ne", 0)
    else:
        raise UnsupportedError(f"a key padding mask of shape {'x'.join(map(str, shape))}", "lengths, or a mask of keys")
    zero = context.constant(0.0, f32)
    mask.add(terms.select(kept, zero, filtered))


def _multi_head(context: NodeContext) -> Converted:
    """MultiHeadAttention: queries, keys, values already projected, or packed in one tensor."""
    terms = Expressions(context)
    heads = context.attr_int("num_heads")
    query, key, value = _projected(context, heads)
    key, value = _with_past(context, (6, 7), key, value)
    batch, _, queries, size = context.shape_of(query)
    mask = Mask(context, queries, context.shape_of(key)[2])
    if context.attr_int("unidirectional", 0):
        mask.window(-1, 0, mask.keys - queries)
    _padding(context, 4, mask, batch)
    if context.has(5):
        mask.add(context.value(5))
    found = attend(context, query, key, value, mask, scale=_scale(context, size))
    scores = mask.on(found.raw) if context.wants(3) else None
    return [terms.merge_heads(found.result), key, value, scores][: context.outputs]


def _projected(context: NodeContext, heads: int) -> list[SSAValue]:
    """Query, key and value of MultiHeadAttention as ``[B, H, N, D]``, with the bias added."""
    terms = Expressions(context)
    biases: list[SSAValue | None] = [None, None, None]
    first = context.value(0)
    if len(context.shape_of(first)) == 5:  # [B, M, H, 3, D]
        parts = [terms.at(first, 3, index) for index in range(3)]
    elif context.has(1) and len(context.shape(1)) == 5:  # [B, N, H, 2, D]
        both = context.value(1)
        parts = [first, *(terms.at(both, 3, index) for index in range(2))]
    elif context.has(1) and context.has(2):
        parts = [first, context.value(1), context.value(2)]
    else:
        raise UnsupportedError("attention without keys or values")
    result: list[SSAValue] = []
    for index, part in enumerate(parts):
        shape = context.shape_of(part)
        if len(shape) == 4 and index > 0 and context.has(2):  # keys and values by head already: cross attention
            result.append(part)
            continue
        result.append(context.reshape(part, (*shape[:2], heads, math.prod(shape[2:]) // heads)))
    if context.has(3):
        sizes = [math.prod(context.shape_of(part)[2:]) for part in result]
        biases = list(terms.split(context.value(3), 0, sizes))
    return [_by_head(context, part, bias, heads) for part, bias in zip(result, biases, strict=True)]


def _by_head(context: NodeContext, part: SSAValue, bias: SSAValue | None, heads: int) -> SSAValue:
    """``[B, N, H, D]`` (with the bias ``[H*D]`` added) -> ``[B, H, N, D]``; that form stays as it is."""
    shape = context.shape_of(part)
    if shape[2] != heads and shape[1] == heads:
        return part
    if bias is not None:
        part = Expressions(context).add(part, context.reshape(bias, shape[2:]))
    return context.transpose(part, (0, 2, 1, 3))


def _fused_attention(context: NodeContext) -> Converted:
    """Attention of com.microsoft: one weight projects queries, keys and values."""
    terms = Expressions(context)
    if context.attr_int("do_rotary", 0):
        raise UnsupportedError("rotary embedding inside Attention", "RotaryEmbedding before it")
    heads, total = context.attr_int("num_heads"), context.shape(1)[1]
    sizes = context.attr_ints("qkv_hidden_sizes", [total // 3] * 3)
    weight = context.linear_weight(1)
    bias = context.value(2) if context.has(2) else None
    if weight is not None:
        all_three = context.emit(nn.LinearOp(context.value(0), context.param(weight.transposed()), bias))
    else:
        all_three = terms.matmul(context.value(0), context.value(1))
        all_three = terms.add(all_three, bias) if bias is not None else all_three
    query, key, value = (terms.split_heads(part, heads) for part in terms.split(all_three, -1, sizes))
    if context.has(4):
        past = context.value(4)
        key, value = (context.concat([terms.at(past, 0, i), new], 2) for i, new in enumerate((key, value)))
    batch, _, queries, size = context.shape_of(query)
    mask = Mask(context, queries, context.shape_of(key)[2])
    if context.attr_int("unidirectional", 0):
        mask.window(-1, 0, mask.keys - queries)
    _padding(context, 3, mask, batch)
    if context.has(5):
        mask.add(context.value(5))
    found = attend(context, query, key, value, mask, scale=_scale(context, size))
    present = terms.stack([key, value], 0) if context.wants(1) else None
    return [terms.merge_heads(found.result), present][: context.outputs]


def _grouped_query(context: NodeContext) -> Converted:
    """GroupQueryAttention whose past has no padding: every token of the past and of this call is attended to."""
    terms = Expressions(context)
    heads, kv_heads = context.attr_int("num_heads"), context.attr_int("kv_num_heads")
    if context.attr_int("smooth_softmax", 0) > 0 or context.has(11):
        raise UnsupportedError("attention with a sink", "attention without smooth_softmax and head_sink")
    first = context.value(0)
    if context.has(1):
        parts = [first, context.value(1), context.value(2)]
    else:
        size = context.shape_of(first)[-1] // (heads + 2 * kv_heads)
        parts = terms.split(first, -1, [heads * size, kv_heads * size, kv_heads * size])
    batch, queries, features = context.shape_of(parts[0])
    size = features // heads
    past = context.shape(3)[2] if context.has(3) else 0
    _check_lengths(context, past, queries, batch)
    query, key = parts[0], parts[1]
    if context.attr_int("do_rotary", 0):
        query = _turned(context, query, heads, past)
        key = _turned(context, key, kv_heads, past)
    query = terms.split_heads(query, heads)
    key, value = (terms.split_heads(part, kv_heads) for part in (key, parts[2]))
    key, value = _with_past(context, (3, 4), key, value) if past else [key, value]
    mask = Mask(context, queries, past + queries)
    mask.window(-1, 0, past)
    window = context.attr_int("local_window_size", -1)
    if window > 0:
        mask.window(window - 1, -1, past)
    if context.has(10):
        mask.add(context.value(10))
    found = attend(
        context, query, key, value, mask, scale=_scale(context, size), softcap=context.attr_float("softcap", 0.0)
    )
    return [terms.merge_heads(found.result), key, value][: context.outputs]


def _check_lengths(context: NodeContext, past: int, queries: int, batch: int) -> None:
    """UnsupportedError unless past and new tokens are all there are (as far as that is known)."""
    known = context.known(5)
    if known is not None and (known + 1 != past + queries).any() and past:
        raise UnsupportedError("sequences with padding in the past", "a past of exactly the tokens before")
    if known is None and past and batch > 1:
        raise UnsupportedError("sequences of several lengths behind a past", "a batch of one sequence")
    total = context.known(6)
    if total is not None and int(total.reshape(-1)[0]) != past + queries:
        raise UnsupportedError(
            f"a cache of {past} slots for {int(total.reshape(-1)[0])} tokens", "a past of exactly the tokens before"
        )


def _turned(context: NodeContext, x: SSAValue, heads: int, past: int) -> SSAValue:
    """Rotary embedding inside GroupQueryAttention of ``[B, M, H*D]``, from position ``past`` on."""
    terms = Expressions(context)
    batch, tokens, features = context.shape_of(x)
    positions = terms.add(context.iota((1, tokens), 1, i32), past) if past else context.iota((1, tokens), 1, i32)
    if context.has(9):
        positions = context.cast(context.value(9), i32)
    cos, sin = (rotary_rows(context, context.value(index), positions) for index in (7, 8))
    split = context.reshape(x, (batch, tokens, heads, features // heads))
    interleaved = bool(context.attr_int("rotary_interleaved", 0))
    return context.reshape(rotate(context, split, cos, sin, interleaved=interleaved), (batch, tokens, features))


# -- weights and embeddings --------------------------------------------------------------------------------------------


def _matmul_nbits(context: NodeContext) -> Converted:
    """``a @ dequantised(b).T``: weights of 2, 4 or 8 bits in blocks become ordinary ones at import."""
    rows, columns = context.attr_int("N"), context.attr_int("K")
    bits, block = context.attr_int("bits", 4), context.attr_int("block_size")
    if context.has(4):
        raise UnsupportedError("weights in the order of a group index")
    blocks = -(-columns // block)
    packed = context.require(1, "the packed weight").reshape(rows, -1)
    scales = context.require(2, "the scales").astype(np.float32).reshape(rows, blocks)
    zeros = np.full((rows, blocks), 2.0 ** (bits - 1), np.float32)
    if context.has(3):
        given = context.require(3, "the zero points")
        if given.dtype == np.uint8:
            given = unpack_bits(given.reshape(rows, -1), bits, blocks)
        zeros = given.astype(np.float32).reshape(rows, blocks)
    numbers = unpack_bits(packed, bits, blocks * block).astype(np.float32).reshape(rows, blocks, block)
    weight = ((numbers - zeros[..., None]) * scales[..., None]).reshape(rows, -1)[:, :columns]
    _LOG.info("%s: weight of %d bits dequantised at import", node_name(context.node), bits)
    bias = context.value(5) if context.has(5) else None
    return context.emit(nn.LinearOp(context.value(0), context.param(context.derived("dequantised", weight)), bias))


def _embed_layer_norm(context: NodeContext) -> Converted:
    """Word, position and segment embeddings summed and normalised; also the lengths of the mask, and the sum."""
    terms = Expressions(context)
    ids = context.cast(context.value(0), i32)
    batch, tokens = context.shape_of(ids)
    total = context.emit(nn.EmbeddingOp(context.value(2), ids))
    if context.has(8):
        positions = context.cast(context.value(8), i32)
        place = context.emit(nn.EmbeddingOp(context.value(3), positions))
    else:
        place = terms.part(context.value(3), 0, 0, tokens)
    total = terms.add(total, place)
    if context.has(1) and context.has(4):
        segments = context.emit(nn.EmbeddingOp(context.value(4), context.cast(context.value(1), i32)))
        total = terms.add(total, segments)
    eps = context.attr_float("epsilon", 1e-12)
    result = layer_norm(context, total, 2, context.value(5), context.value(6), eps)
    if context.has(7):
        lengths = terms.total(context.cast(context.value(7), i32), [1], keepdims=False)
    else:
        lengths = context.constant(np.zeros(batch, np.int32), i32)
    return [result, lengths, total][: context.outputs]


def _domain(name: str) -> str:
    return f"com.microsoft::{name}"


TABLE: Final[Mapping[str, Converter]] = {
    _domain("RotaryEmbedding"): _rotary_embedding,
    _domain("MultiHeadAttention"): _multi_head,
    _domain("Attention"): _fused_attention,
    _domain("GroupQueryAttention"): _grouped_query,
    _domain("MatMulNBits"): _matmul_nbits,
    _domain("EmbedLayerNormalization"): _embed_layer_norm,
}
"""Converters by operator."""
