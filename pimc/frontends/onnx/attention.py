"""Attention and rotary embeddings of the ONNX standard."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from xdsl.dialects.builtin import i32
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.onnx.attend import Attended, Mask, attend, lengths_column
from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.elements import element_of
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _heads(context: NodeContext, index: int, attribute: str) -> SSAValue:
    """Input ``index`` as ``[B, H, M, D]``; with three dimensions the heads are folded into the last."""
    value = context.value(index)
    if len(context.shape_of(value)) == 4:
        return value
    return Expressions(context).split_heads(value, context.attr_int(attribute))


def _mask(context: NodeContext, queries: int, keys: int, past: int) -> Mask:
    mask = Mask(context, queries, keys)
    offset: int | SSAValue = past
    lengths = lengths_column(context, context.value(6)) if context.has(6) else None
    if lengths is not None and not context.has(4):
        offset = Expressions(context).sub(lengths, queries)
    causal = bool(context.attr_int("is_causal", 0))
    if causal:
        mask.window(-1, 0, offset)
    mask.window(context.attr_int("left_window_size", -1), context.attr_int("right_window_size", -1), offset)
    if context.has(3):
        mask.given(context.value(3), context.known(3))
    if lengths is not None:
        mask.lengths(lengths)
    return mask


def _scores_output(context: NodeContext, found: Attended, mask: Mask) -> SSAValue:
    """The fourth output: the scores after the step that the attribute names."""
    match context.attr_int("qk_matmul_output_mode", 0):
        case 0:
            return found.raw
        case 1:
            return found.capped
        case 2:
            # A hidden score is shown as minus infinity, which is a logarithm because it has no text form.
            zero = context.like(0.0, found.capped)
            return mask.on(found.capped, context.emit(nn.LogOp(zero)))
        case 3:
            return mask.clear_empty(found.weights)
    raise UnsupportedError("an output of scores that does not exist")


def _attention(context: NodeContext) -> Converted:
    """Attention of opset 23 and later: result, present key and value, scores."""
    return attention(context)


def attention(context: NodeContext, *, last: bool = False) -> Converted:
    """As :func:`_attention`; ``last``: without a past among the inputs, the last query is at the last key."""
    terms = Expressions(context)
    folded = len(context.shape(0)) == 3
    query = _heads(context, 0, "q_num_heads")
    key, value = _heads(context, 1, "kv_num_heads"), _heads(context, 2, "kv_num_heads")
    past = 0
    if context.has(4):
        past = context.shape(4)[2]
        key, value = context.concat([context.value(4), key], 2), context.concat([context.value(5), value], 2)
    queries, keys = context.shape_of(query)[2], context.shape_of(key)[2]
    mask = _mask(context, queries, keys, keys - queries if last else past)
    precision: Attribute | None = None
    if context.attr_int("softmax_precision", 0):
        precision = element_of(context.attr_int("softmax_precision"))
    found = attend(
        context, query, key, value, mask,
        scale=context.attr_float("scale", 1.0 / math.sqrt(context.shape_of(query)[-1])),
        softcap=context.attr_float("softcap", 0.0), precision=precision,
    )  # fmt: skip
    result = terms.merge_heads(found.result) if folded else found.result
    scores = _scores_output(context, found, mask) if context.wants(3) else None
    return [result, key, value, scores][: context.outputs]


def rotate(context: NodeContext, x: SSAValue, cos: SSAValue, sin: SSAValue, *, interleaved: bool = False) -> SSAValue:
    """Rotary embedding of the first ``2 * cos.shape[-1]`` features of x ``[B, M, H, D]``; cos, sin ``[B, M, 1, R/2]``.

    Pairs are the two halves of the features, or with ``interleaved`` neighbours.  Halves are turned as the passes
    recognise it: ``x * cos + rotate_half(x) * sin``.
    """
    terms = Expressions(context)
    half, size = context.shape_of(cos)[-1], context.shape_of(x)[-1]
    turning, rest = terms.part(x, -1, 0, 2 * half), terms.part(x, -1, 2 * half, size) if 2 * half < size else None
    if interleaved:
        first, second = (terms.part(turning, -1, start, 2 * half, 2) for start in (0, 1))
        real = terms.sub(terms.mul(first, cos), terms.mul(second, sin))
        imaginary = terms.add(terms.mul(first, sin), terms.mul(second, cos))
        turned = context.reshape(terms.stack([real, imaginary], 4), context.shape_of(turning))
    else:
        first, second = terms.split(turning, -1, (half, half))
        swapped = context.concat([context.emit(nn.NegOp(second)), first], 3)
        both = [context.concat([table, table], 3) for table in (cos, sin)]
        turned = terms.add(terms.mul(turning, both[0]), terms.mul(swapped, both[1]))
    return turned if rest is None else context.concat([turned, rest], 3)


def rotary_rows(context: NodeContext, table: SSAValue, positions: SSAValue | None) -> SSAValue:
    """Rows of a cos or sin table as ``[B, M, 1, R/2]``: those of ``positions`` ``[B, M]``, or all given as they are."""
    rows = context.emit(nn.EmbeddingOp(table, positions)) if positions is not None else table
    batch, tokens, half = context.shape_of(rows)
    return context.reshape(rows, (batch, tokens, 1, half))


def _rotary_embedding(context: NodeContext) -> Converted:
    x = context.value(0)
    by_head = len(context.shape_of(x)) == 4
    if by_head:
        x = context.transpose(x, (0, 2, 1, 3))
    else:
        batch, tokens, features = context.shape_of(x)
        heads = context.attr_int("num_heads")
        x = context.reshape(x, (batch, tokens, heads, features // heads))
    positions = context.cast(context.value(3), i32) if context.has(3) else None
    cos, sin = (rotary_rows(context, context.value(index), positions) for index in (1, 2))
    interleaved = bool(context.attr_int("interleaved", 0))
    result = rotate(context, x, cos, sin, interleaved=interleaved)
    if by_head:
        return context.transpose(result, (0, 2, 1, 3))
    return context.reshape(result, context.shape(0))


TABLE: Final[Mapping[str, Converter]] = {
    "Attention": _attention,
    "RotaryEmbedding": _rotary_embedding,
}
"""Converters by operator."""
