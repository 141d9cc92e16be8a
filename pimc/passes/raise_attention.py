"""Attention from products and softmax: grouped-query and multi-head, over a cache or over computed keys.
 Anchored at the softmax.  Before it stand, in any order, scaling by a constant, a cap of the scores and the mask;
before those the product of queries and keys.  How heads are split, repeated for the queries that share them, and merged
again is compared as views, not by how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, cast

import numpy as np
from xdsl.dialects.builtin import i1
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from pimc.ir import nn
from pimc.ir.nn.source import Element
from pimc.passes.raise_mask import Mask, MaskReader, slopes_of
from pimc.passes.raise_match import Notes, Replacer, only_user, producer, scalar, with_scalar
from pimc.passes.raise_rope import folded_heads
from pimc.passes.raise_views import chain, heads_repeated, same_view, shape_of
from pimc.passes.view_strides import Shape

_PATTERN: Final = "attention"
#: What hides a key: the lowest fp32 number, which becomes the lowest of fp16.
LOWEST: Final = float(np.finfo(np.float32).min)


class _RefuseError(Exception):
    """Why a softmax is no attention that the dialect has."""


@dataclass(frozen=True)
class _Scores:
    """The product of queries and keys, the constant it is scaled by, the mask and the bias (each with its factor), and
    the cap of the scaled scores.
    """

    product: nn.MatmulOp
    scale: float
    mask: SSAValue | None = None
    mask_factor: float = 1.0
    bias: tuple[SSAValue, float] | None = None
    softcap: float | None = None


@dataclass(frozen=True)
class _Sizes:
    """Sizes of an attention; ``keys`` is the number of key positions, ``batch`` of sequences."""

    heads: int
    queries: int
    keys: int
    head_dim: int
    batch: int


@dataclass(frozen=True)
class _Source:
    """Where keys or values come from: a cache read or a value ``[B, N, Hkv*D]``; and Hkv."""

    value: SSAValue
    kv_heads: int

    @property
    def read(self) -> nn.CacheReadOp | None:
        """The cache read, if it is one."""
        return producer(self.value, nn.CacheReadOp)


def raise_attention(function: FuncOp, notes: Notes) -> None:
    """Replace every attention with `nn.attention` (over a cache) or `nn.attention_full`."""
    masks = MaskReader()
    for op in list(function.walk()):
        if isinstance(op, nn.SoftmaxOp):
            try:
                _raise_softmax(op, masks)
            except _RefuseError as reason:
                notes.refuse(op, _PATTERN, str(reason))


def _raise_softmax(softmax: nn.SoftmaxOp, masks: MaskReader) -> None:
    rank = len(shape_of(softmax.x))
    if softmax.axis.value.data % rank != rank - 1:
        raise _RefuseError("the softmax is not over the last dimension")
    scores = _scores(softmax.x)
    if scores is None:
        raise _RefuseError("no product of queries and keys under the softmax")
    weights = softmax.result
    while (view := only_user(weights, nn.ReshapeOp)) is not None:
        weights = view.result
    context = only_user(weights, nn.MatmulOp)
    if context is None or context.a is not weights:
        raise _RefuseError("the softmax is not multiplied with values alone")
    shape = shape_of(scores.product.a)
    by_head = len(shape) == 3  # Bloom: one product a head, without a dimension for the batch
    shape = (1, *shape) if by_head else shape
    if len(shape) != 4 or shape_of(scores.product.b)[-1] != shape_of(softmax.x)[-1]:
        raise _RefuseError("queries are not split into heads")
    sizes = _Sizes(shape[1], shape[2], shape_of(softmax.x)[-1], shape[3], shape[0])
    query, scale = _query(scores, sizes)
    keys = scores.product.b
    while (scaled := with_scalar(keys.owner, nn.MulOp)) is not None:  # exporters scale both by the root
        keys, scale = scaled[0], scale * scaled[1]
    key = _source(keys, sizes, transposed=True)
    value = _source(context.b, sizes, transposed=False)
    if key.kv_heads != value.kv_heads:
        raise _RefuseError(f"{key.kv_heads} key heads and {value.kv_heads} value heads")
    mask = masks.read(scores.mask, sizes.queries, sizes.keys) if scores.mask is not None else None
    new: nn.AttentionOp | nn.AttentionFullOp
    if key.read is not None and value.read is not None:
        new = _cached(context, (key.read, value.read), query, scale, sizes, mask, scores)
    elif key.read is None and value.read is None:
        if scores.bias is not None:
            raise _RefuseError("a bias is added to the scores")
        if scores.softcap is not None:
            raise _RefuseError("the scores are capped, and there is no cache")
        hidden = scores.mask is not None and nn.tensor_of(scores.mask).element_type == i1
        if hidden and scores.mask is not None:
            scores = replace(scores, scale=scale, mask=_additive(softmax, scores.mask))
        new = _uncached(key, value, query, scale, sizes, mask, scores)
    else:
        raise _RefuseError("keys or values, but not both, come from a cache")
    split = nn.ReshapeOp(new, (sizes.batch, sizes.queries, sizes.heads, sizes.head_dim))
    views: list[nn.NnOp] = [split, nn.TransposeOp(split, (0, 2, 1, 3))]
    if by_head:
        views.append(nn.ReshapeOp(views[-1], (sizes.heads, sizes.queries, sizes.head_dim)))
    Replacer.replace(context, new, *views)


def _scores(value: SSAValue, scale: float = 1.0, mask: SSAValue | None = None) -> _Scores | None:
    """Look through scaling, one mask and one bias under it to the product."""
    op = value.owner
    if isinstance(op, nn.MatmulOp):
        return _Scores(op, scale, mask)
    if isinstance(op, nn.ReshapeOp) and squeezed(shape_of(op.x)) == squeezed(shape_of(op.result)):
        return _scores(op.x, scale, mask)
    if (scaled := with_scalar(op, nn.MulOp)) is not None and isinstance(scaled[0].owner, nn.TanhOp):
        return _capped(scaled[0].owner, scale * scaled[1], mask)
    if (scaled := with_scalar(op, nn.MulOp)) is not None:
        return _scores(scaled[0], scale * scaled[1], mask) if mask is None or scaled[1] > 0 else None
    if (divided := with_scalar(op, nn.DivOp)) is not None and divided[1] != 0:
        return _scores(divided[0], scale / divided[1], mask)
    if mask is None and isinstance(op, nn.SelectOp):
        hidden = scalar(op.b)
        return _scores(op.a, scale, op.condition) if hidden is not None and hidden <= -1e4 else None
    if mask is None and isinstance(op, nn.AddOp):
        found = _scores(op.lhs, scale, op.rhs) or _scores(op.rhs, scale, op.lhs)
        return None if found is None else replace(found, mask_factor=scale)
    if isinstance(op, nn.AddOp):
        for scores, bias in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            found = _scores(scores, scale, mask)
            if found is not None and found.bias is None:
                return replace(found, bias=(bias, scale))
    return None


def _capped(tanh: nn.TanhOp, softcap: float, mask: SSAValue | None) -> _Scores | None:
    """``softcap * tanh(scale / softcap * product)`` under a mask, but with none inside."""
    found = _scores(tanh.x)
    if found is None or softcap <= 0 or found.mask is not None or found.bias is not None or found.softcap is not None:
        return None
    return replace(found, scale=found.scale * softcap, softcap=softcap, mask=mask)


def squeezed(shape: Shape) -> Shape:
    """``shape`` without dimensions of size 1."""
    return tuple(size for size in shape if size != 1)


def _slopes(scores: _Scores, sizes: _Sizes) -> tuple[float, ...] | None:
    """The slopes of the bias (ALiBi), if there is one."""
    if scores.bias is None:
        return None
    bias, factor = scores.bias
    slopes = slopes_of(bias, sizes.heads, sizes.keys)
    if slopes is None:
        raise _RefuseError("a bias that is no slope over the keys is added to the scores")
    return tuple(slope * factor for slope in slopes)


def _query(scores: _Scores, sizes: _Sizes) -> tuple[SSAValue, float]:
    """The queries with folded heads, and the scale including factors applied to them."""
    value, scale = scores.product.a, scores.scale
    source = folded_heads(value, sizes.queries, sizes.heads, sizes.head_dim, sizes.batch)
    if source is None and (scaled := with_scalar(value.owner, nn.MulOp)) is not None:
        scale *= scaled[1]
        source = folded_heads(scaled[0], sizes.queries, sizes.heads, sizes.head_dim, sizes.batch)
    if source is None:
        raise _RefuseError("queries do not come from folded heads")
    while (scaled := with_scalar(source.owner, nn.MulOp)) is not None:
        source, scale = scaled[0], scale * scaled[1]
    return _folded(scores.product, source, (sizes.batch, sizes.queries, sizes.heads * sizes.head_dim)), scale


def _folded(before: Operation, value: SSAValue, shape: Shape) -> SSAValue:
    """``value`` as ``[batch, tokens, features]``."""
    return value if shape_of(value) == shape else Replacer.insert(before, nn.ReshapeOp(value, shape)).result


def _source(value: SSAValue, sizes: _Sizes, *, transposed: bool) -> _Source:
    """Where keys (transposed: ``[B, H, D, N]``) or values (``[B, H, N, D]``) come from."""
    inner = (sizes.head_dim, sizes.keys) if transposed else (sizes.keys, sizes.head_dim)
    batch = (sizes.batch, sizes.heads)
    found: _Source | None = None
    for source, steps in chain(value):
        shape = shape_of(source)
        elements = 1
        for dim in shape:
            elements *= dim
        kv_heads, rest = divmod(elements, sizes.batch * sizes.keys * sizes.head_dim)
        if rest or kv_heads == 0 or sizes.heads % kv_heads:
            continue
        wanted = heads_repeated(sizes.keys, sizes.heads, kv_heads, sizes.head_dim, sizes.batch)
        if transposed:
            wanted = (*wanted, ("transpose", (0, 1, 3, 2)))
        if shape_of(value)[-2:] == inner and same_view(shape, steps, wanted, (*batch, *inner)):
            found = _Source(source, kv_heads)
    if found is None:
        raise _RefuseError(f"{'keys' if transposed else 'values'} are not arranged in heads")
    return found


def _cached(
    context: nn.MatmulOp,
    reads: tuple[nn.CacheReadOp, nn.CacheReadOp],
    query: SSAValue,
    scale: float,
    sizes: _Sizes,
    mask: Mask | None,
    scores: _Scores,
) -> nn.AttentionOp:
    key, value = reads
    if mask is None or not mask.causal or mask.position is None:
        raise _RefuseError(mask.reason or "the mask has no position" if mask is not None else "there is no mask")
    if key.layer is not value.layer and index_of(key.layer) != index_of(value.layer):
        raise _RefuseError("keys and values come from the caches of different layers")
    for read in reads:
        _check_not_written(read, context)
    kv_heads = shape_of(key.result)[2]
    return nn.AttentionOp(
        query,
        key.layer,
        mask.position,
        k=key.cache,
        v=value.cache,
        heads=sizes.heads,
        kv_heads=kv_heads,
        head_dim=sizes.head_dim,
        scale=scale,
        slopes=_slopes(scores, sizes),
        window=mask.window,
        softcap=scores.softcap,
    )


def _additive(softmax: nn.SoftmaxOp, visible: SSAValue) -> SSAValue:
    """A mask of booleans as one that is added: 0 where a key is visible, else the lowest number."""
    while isinstance(visible.owner, nn.BroadcastToOp) and len(shape_of(visible)) == len(shape_of(visible.owner.x)):
        visible = visible.owner.x  # it broadcasts to the scores by itself
    keys = shape_of(softmax.x)[-1]
    if shape_of(visible)[-1:] != (keys,):
        visible = Replacer.insert(softmax, nn.BroadcastToOp(visible, (*shape_of(visible)[:-1], keys))).result
    element = cast(Element, nn.tensor_of(softmax.x).element_type)
    zero, lowest = (Replacer.insert(softmax, nn.ConstantOp.from_array(np.float64(x), element)) for x in (0.0, LOWEST))
    return Replacer.insert(softmax, nn.SelectOp(visible, zero, lowest)).result


def _uncached(
    key: _Source, value: _Source, query: SSAValue, scale: float, sizes: _Sizes, mask: Mask | None, scores: _Scores
) -> nn.AttentionFullOp:
    causal = mask is not None and mask.causal and mask.position is None and mask.window is None
    added = None if causal else scores.mask
    if added is not None and scores.mask_factor != 1.0:
        raise _RefuseError("the mask is scaled with the scores, and it is not causal")
    if added is not None and scale != scores.scale:
        raise _RefuseError("queries are scaled and the mask is not causal")
    if added is not None and nn.tensor_of(added).element_type != nn.tensor_of(query).element_type:
        raise _RefuseError(mask.reason if mask is not None else "a mask of booleans")
    folded = (sizes.batch, sizes.keys, key.kv_heads * sizes.head_dim)
    keys, values = (_folded(scores.product, source.value, folded) for source in (key, value))
    return nn.AttentionFullOp(
        query,
        keys,
        values,
        added,
        heads=sizes.heads,
        kv_heads=key.kv_heads,
        head_dim=sizes.head_dim,
        scale=scale,
        causal=causal,
    )


def index_of(value: SSAValue) -> int | None:
    """The number of an index constant."""
    from xdsl.dialects.arith import ConstantOp
    from xdsl.dialects.builtin import IntegerAttr

    constant = producer(value, ConstantOp)
    if constant is None or not isinstance(constant.value, IntegerAttr):
        return None
    return int(constant.value.value.data)


def _check_not_written(read: nn.CacheReadOp, use: Operation) -> None:
    """Refuse where the cache is written between the read and its use: the raised operation would read
    later.
    """
    op: Operation | None = read.next_op
    while op is not None and op is not use:
        if isinstance(op, nn.CacheWriteOp) and op.cache == read.cache:
            raise _RefuseError("the cache is written between its read and its use")
        op = op.next_op
