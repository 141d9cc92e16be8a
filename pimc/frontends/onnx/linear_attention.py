"""Linear attention with a recurrent state, unrolled over the tokens of a call."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.limits import bounded, unrollable
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

_RULES: Final[Mapping[str, tuple[bool, bool]]] = {
    "linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True),
}  # fmt: skip
"""Update rule -> whether the state decays, whether only the error of the state is written."""


def _token(terms: Expressions, x: SSAValue, token: int) -> SSAValue:
    """One token of ``[B, H, T, D]``, in f32."""
    return terms.context.cast(terms.part(x, 2, token, token + 1), f32)


def _linear_attention(context: NodeContext) -> Converted:
    """``S = decay * S + k (outer) v``, ``o = scale * q S`` with a state ``[B, Hkv, Dk, Dv]`` for each head."""
    terms = Expressions(context)
    rule = context.attr_str("update_rule", "gated_delta")
    if rule not in _RULES:
        raise UnsupportedError(f"the update rule {rule!r}", ", ".join(_RULES))
    decays, corrects = _RULES[rule]
    heads, kv_heads = context.attr_int("q_num_heads"), context.attr_int("kv_num_heads")
    query = terms.split_heads(context.value(0), heads)
    key, value = (terms.split_heads(context.value(index), kv_heads) for index in (1, 2))
    batch, _, tokens, size = context.shape_of(key)
    element = context.element_of(query)
    scale = context.attr_float("scale", 0.0) or 1.0 / math.sqrt(size)
    decay = _by_head(context, 4, kv_heads) if decays else None
    rate = _by_head(context, 5, context.shape(5)[2]) if corrects else None
    if context.has(3):
        kept = context.element(3)
        state = context.cast(context.value(3), f32)
    else:
        kept = element
        shape = (batch, kv_heads, size, context.shape_of(value)[-1])
        bounded(shape)
        state = context.constant(np.zeros(shape), f32)
    outputs: list[SSAValue] = []
    for token in range(unrollable(tokens, "a recurrence")):
        k, v = (_token(terms, x, token) for x in (key, value))
        if decay is not None:
            state = terms.mul(state, terms.swap(context.emit(nn.ExpOp(_token(terms, decay, token)))))
        if rate is not None:
            v = terms.mul(terms.sub(v, terms.matmul(k, state)), _token(terms, rate, token))
        state = terms.add(state, terms.matmul(terms.swap(k), v))
        q = context.reshape(_token(terms, query, token), (batch, kv_heads, heads // kv_heads, size))
        outputs.append(terms.mul(terms.matmul(q, state), scale))
    rows = [context.reshape(output, (batch, 1, heads * context.shape_of(output)[-1])) for output in outputs]
    return [context.cast(context.concat(rows, 1), element), context.cast(state, kept)][: context.outputs]


def _by_head(context: NodeContext, index: int, heads: int) -> SSAValue:
    """``[B, T, H*D]`` -> ``[B, H, T, D]``."""
    return Expressions(context).split_heads(context.value(index), heads)


TABLE: Final[Mapping[str, Converter]] = {"LinearAttention": _linear_attention}
"""Converters by operator."""
