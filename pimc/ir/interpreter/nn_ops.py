"""Reference meaning of the `nn` operators: numpy, in float32; the interpreter rounds the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import BFloat16Type, Float16Type, IntegerType
from xdsl.ir import Operation

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.interpreter.core import Frame, dense_values, held_dtype, to_bf16
from pimc.ir.interpreter.table import Array, ImplementationTable, Value
from pimc.ir.locations import where
from pimc.ir.nn.base import tensor_of
from pimc.ir.weights import FamilyName

TABLE = ImplementationTable()


# Values from outside


@TABLE.register(nn.ParamOp, exact=True)
def _param(frame: Frame, op: nn.ParamOp, args: Sequence[Any]) -> Sequence[Value]:
    family = FamilyName(op.weight_name.data)
    name = family.member(int(args[0])) if args else family.text
    return (frame.interpreter.weight(name, op.result.type, op),)


@TABLE.register(nn.ConstantOp)
def _constant(frame: Frame, op: nn.ConstantOp, args: Sequence[Any]) -> Sequence[Value]:
    return (dense_values(op.value),)


def check_range(op: Operation, indices: Array, size: int, what: str) -> None:
    """InputError unless all ``indices`` are in ``[0, size)``."""
    bad = indices[(indices < 0) | (indices >= size)]
    if bad.size:
        raise InputError(f"{op.name}: {what} {int(bad.flat[0])} is out of range [0, {size})", where=where(op))


@TABLE.register(nn.EmbeddingOp, exact=True)
def _embedding(frame: Frame, op: nn.EmbeddingOp, args: Sequence[Any]) -> Sequence[Value]:
    table, ids = args
    check_range(op, ids, table.shape[0], "id")
    return (table[ids],)


@TABLE.register(nn.PositionsOp)
def _positions(frame: Frame, op: nn.PositionsOp, args: Sequence[Any]) -> Sequence[Value]:
    return (args[0][0] + np.arange(op.count.value.data, dtype=np.int64)[None, :],)


@TABLE.register(nn.IotaOp)
def _iota(frame: Frame, op: nn.IotaOp, args: Sequence[Any]) -> Sequence[Value]:
    shape = tensor_of(op.result).get_shape()
    axis = op.axis.value.data % len(shape)
    count = np.arange(shape[axis]).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    return (np.broadcast_to(count, shape),)


@TABLE.register(nn.SelectTokenOp, exact=True)
def _select_token(frame: Frame, op: nn.SelectTokenOp, args: Sequence[Any]) -> Sequence[Value]:
    x, length = args
    check_range(op, length - 1, x.shape[1], "token")
    row = int(length[0]) - 1
    return (x[:, row : row + 1],)


# Products


@TABLE.register(nn.LinearOp)
def _linear(frame: Frame, op: nn.LinearOp, args: Sequence[Any]) -> Sequence[Value]:
    x, weight = args[0], args[1]
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) @ weight.T
    if len(args) == 3:
        rows = rows + args[2]
    return (rows.reshape(*x.shape[:-1], weight.shape[0]),)


@TABLE.register(nn.MatmulOp)
def _matmul(frame: Frame, op: nn.MatmulOp, args: Sequence[Any]) -> Sequence[Value]:
    return (args[0] @ args[1],)


# Normalisations


@TABLE.register(nn.RmsNormOp)
def _rms_norm(frame: Frame, op: nn.RmsNormOp, args: Sequence[Any]) -> Sequence[Value]:
    x, weight = args
    mean = np.mean(x * x, axis=-1, keepdims=True)
    return (x / np.sqrt(mean + np.float32(op.eps.value.data)) * weight,)


@TABLE.register(nn.LayerNormOp)
def _layer_norm(frame: Frame, op: nn.LayerNormOp, args: Sequence[Any]) -> Sequence[Value]:
    x, weight = args[0], args[1]
    centred = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    result = centred / np.sqrt(variance + np.float32(op.eps.value.data)) * weight
    return (result + args[2] if len(args) == 3 else result,)


def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax along ``axis``, shifted by the maximum."""
    powers = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    result: Array = powers / np.sum(powers, axis=axis, keepdims=True)
    return result


@TABLE.register(nn.SoftmaxOp)
def _softmax(frame: Frame, op: nn.SoftmaxOp, args: Sequence[Any]) -> Sequence[Value]:
    return (softmax(args[0], op.axis.value.data),)


# Attention


@TABLE.register(nn.RopeOp)
def _rope(frame: Frame, op: nn.RopeOp, args: Sequence[Any]) -> Sequence[Value]:
    x, table = args
    size = op.turned
    heads = x.reshape(*x.shape[:2], -1, op.head_dim.value.data)
    cos, sin = table[:, :, None, :size], table[:, :, None, size:]
    first, second, rest = heads[..., : size // 2], heads[..., size // 2 : size], heads[..., size:]
    turned = heads[..., :size] * cos + np.concatenate([-second, first], axis=-1) * sin
    return (np.concatenate([turned, rest], axis=-1).reshape(x.shape),)


@TABLE.register(nn.CacheWriteOp, exact=True)
def _cache_write(frame: Frame, op: nn.CacheWriteOp, args: Sequence[Any]) -> Sequence[Value]:
    layer, x, position = args
    cache = frame.interpreter.state[op.cache.root_reference.data]
    start, tokens = int(position[0]), x.shape[1]
    if not (0 <= layer < cache.shape[0] and start >= 0 and start + tokens <= cache.shape[1]):
        raise InputError(
            f"nn.cache_write: layer {layer}, positions {start}..{start + tokens - 1} are outside a cache of "
            f"{cache.shape[0]} layers and {cache.shape[1]} positions",
            where=where(op),
        )
    cache[layer, start : start + tokens] = x.reshape(tokens, *cache.shape[2:])
    return ()


@TABLE.register(nn.CacheReadOp, exact=True)
def _cache_read(frame: Frame, op: nn.CacheReadOp, args: Sequence[Any]) -> Sequence[Value]:
    cache = frame.interpreter.state[op.cache.root_reference.data]
    layer = int(args[0])
    check_range(op, np.array([layer]), cache.shape[0], "layer")
    return (cache[layer : layer + 1].copy(),)


def attend(q: Array, k: Array, v: Array, scale: float, mask: Array | None, softcap: float | None = None) -> Array:
    """Grouped-query attention: q ``[M, H, D]``, k, v ``[P, Hkv, D]``, additive mask to ``[H, M, P]``; ``[M,
    H, D]``.
    """
    tokens, heads, size = q.shape
    keys, kv_heads = k.shape[:2]
    group = heads // kv_heads
    queries = q.reshape(tokens, kv_heads, group, size).transpose(1, 2, 0, 3)
    scores = queries @ k.transpose(1, 2, 0)[:, None] * np.float32(scale)
    if softcap is not None:
        scores = np.tanh(scores / np.float32(softcap)) * np.float32(softcap)
    if mask is not None:
        full = np.broadcast_to(mask, (heads, tokens, keys))
        scores = scores + full.reshape(kv_heads, group, tokens, keys)
    result = softmax(scores) @ v.transpose(1, 0, 2)[:, None]
    return result.transpose(2, 0, 1, 3).reshape(tokens, heads, size)


def causal_mask(tokens: int, keys: int, first: int) -> Array:
    """``[tokens, keys]``: 0 where key <= first + token, else -inf."""
    allowed = np.arange(keys)[None, :] <= first + np.arange(tokens)[:, None]
    return np.where(allowed, np.float32(0), np.float32(-np.inf))


def window_mask(tokens: int, keys: int, first: int, window: int) -> Array:
    """``[tokens, keys]``: -inf where key <= first + token - window, else 0."""
    seen = np.arange(keys)[None, :] > first + np.arange(tokens)[:, None] - window
    return np.where(seen, np.float32(0), np.float32(-np.inf))


def alibi(slopes: Sequence[float], tokens: int, keys: int, first: int) -> Array:
    """``[heads, tokens, keys]``: slope * (key - (first + token))."""
    distance = np.arange(keys)[None, :] - first - np.arange(tokens)[:, None]
    return np.asarray(slopes, np.float32)[:, None, None] * distance.astype(np.float32)


def by_distance(bias: Array, tokens: int, keys: int, first: int) -> Array:
    """``[H, tokens, keys]`` of a bias ``[H, S]`` by the distance of key s from query m at ``first + m``; of keys behind
    the query that of distance 0.
    """
    distance = first + np.arange(tokens)[:, None] - np.arange(keys)[None, :]
    return bias[:, np.maximum(distance, 0)]


@TABLE.register(nn.AttentionOp)
def _attention(frame: Frame, op: nn.AttentionOp, args: Sequence[Any]) -> Sequence[Value]:
    q, layer, position, *table = args
    tokens, start = q.shape[1], int(position[0])
    state = frame.interpreter.state
    keys, values = state[op.k.root_reference.data], state[op.v.root_reference.data]
    stop = start + tokens
    if not (0 <= layer < keys.shape[0] and start >= 0 and stop <= keys.shape[1]):
        raise InputError(f"nn.attention: layer {layer}, position {stop - 1} is outside the cache", where=where(op))
    heads = q.reshape(tokens, op.heads.value.data, op.head_dim.value.data)
    mask = causal_mask(tokens, stop, start) if op.causal.value.data and tokens > 1 else None
    if op.window is not None:
        hidden = window_mask(tokens, stop, start, op.window.value.data)
        mask = hidden if mask is None else mask + hidden
    if op.slopes is not None:
        bias = alibi(op.slopes.get_values(), tokens, stop, start)
        mask = bias if mask is None else mask + bias
    if table:
        added = by_distance(table[0], tokens, stop, start)
        mask = added if mask is None else mask + added
    softcap = None if op.softcap is None else op.softcap.value.data
    result = attend(heads, keys[layer, :stop], values[layer, :stop], op.scale.value.data, mask, softcap)
    return (result.reshape(q.shape),)


@TABLE.register(nn.AttentionFullOp)
def _attention_full(frame: Frame, op: nn.AttentionFullOp, args: Sequence[Any]) -> Sequence[Value]:
    sizes = (op.heads.value.data, op.kv_heads.value.data, op.head_dim.value.data)
    if op.relative is not None:
        args = (*args[:3], by_difference(args[3], args[0].shape[1], args[1].shape[1]))
    return (full_attention(args, sizes, op.scale.value.data, causal=bool(op.causal.value.data)),)


def by_difference(bias: Array, queries: int, keys: int) -> Array:
    """``[..., queries, keys]`` of a bias ``[..., 1, queries + keys - 1]`` by the difference of key and query."""
    return bias[..., 0, np.arange(keys)[None, :] - np.arange(queries)[:, None] + queries - 1]


def full_attention(args: Sequence[Array], sizes: tuple[int, int, int], scale: float, *, causal: bool) -> Array:
    """Attention without a cache: q, k, v and perhaps a mask; ``sizes``: heads, KV heads, head dimension."""
    q, k, v = args[:3]
    heads, kv_heads, size = sizes
    tokens, keys = q.shape[1], k.shape[1]
    masks: Array | None = None
    if len(args) == 4:
        masks = np.broadcast_to(args[3], (len(q), heads, tokens, keys))
    triangle = causal_mask(tokens, keys, keys - tokens) if causal else None
    result = np.empty_like(q)
    for index in range(len(q)):
        mask = triangle if masks is None else masks[index] if triangle is None else masks[index] + triangle
        result[index] = attend(
            q[index].reshape(tokens, heads, size),
            k[index].reshape(keys, kv_heads, size),
            v[index].reshape(keys, kv_heads, size),
            scale,
            mask,
        ).reshape(tokens, -1)
    return result


# Elementwise


def _register(op_type: type[nn.UnaryOp] | type[nn.BinaryOp]) -> None:
    @TABLE.register(op_type)
    def run(frame: Frame, op: nn.UnaryOp | nn.BinaryOp, args: Sequence[Any]) -> Sequence[Value]:
        return (op.evaluate(*args),)


for _op_type in nn.Nn.operations:
    if issubclass(_op_type, nn.UnaryOp | nn.BinaryOp):
        _register(_op_type)


@TABLE.register(nn.IsNanOp)
def _is_nan(frame: Frame, op: nn.IsNanOp, args: Sequence[Any]) -> Sequence[Value]:
    return (np.isnan(args[0]),)


@TABLE.register(nn.IsInfOp)
def _is_inf(frame: Frame, op: nn.IsInfOp, args: Sequence[Any]) -> Sequence[Value]:
    positive, negative = bool(op.positive.value.data), bool(op.negative.value.data)
    return ((np.isposinf(args[0]) & positive) | (np.isneginf(args[0]) & negative),)


_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@TABLE.register(nn.CompareOp)
def _compare(frame: Frame, op: nn.CompareOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_COMPARE[op.predicate.data](args[0], args[1]),)


@TABLE.register(nn.SelectOp)
def _select(frame: Frame, op: nn.SelectOp, args: Sequence[Any]) -> Sequence[Value]:
    return (np.where(args[0], args[1], args[2]),)


@TABLE.register(nn.CastOp)
def _cast(frame: Frame, op: nn.CastOp, args: Sequence[Any]) -> Sequence[Value]:
    """Rounds to 16-bit floats in every precision: the model asks for it."""
    x, element = args[0], tensor_of(op.result).element_type
    if isinstance(element, Float16Type):
        return (x.astype(np.float16).astype(np.float32),)
    if isinstance(element, BFloat16Type):
        return (to_bf16(x),)
    if isinstance(element, IntegerType) and element.width.data == 1:
        return (x != 0,)
    if isinstance(element, IntegerType) and x.dtype.kind == "f":  # by way of int64, so that it wraps
        whole = np.trunc(x)
        high = (whole >= 2.0**63) & (np.dtype(held_dtype(element)) == np.uint64)
        return (np.where(high, whole.astype(np.uint64), whole.astype(np.int64).astype(np.uint64)),)
    return (x,)
