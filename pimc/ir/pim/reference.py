"""What the ``pim`` operations compute, on numpy arrays: core by core, as they are partitioned and laid out.

A cut value is a whole array in which features without an owner are NaN, so that a wrong partition shows.  A
laid-out weight goes through its bank layout (packed to rows and read back), so that a wrong layout shows.
All arithmetic here is float32; the interpreter rounds results to the element type.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pimc.ir.bank_layout import GemvLayout
from pimc.ir.layout import ShardAttr
from pimc.ir.pim.attributes import HeadRound

Floats = npt.NDArray[np.float32]


def local_stack(weights: Sequence[Floats], shards: Sequence[ShardAttr], core: int) -> Floats:
    """A tile's slice of several weights ``[N_i, K]``: ``[n_local, K]``, zeros where the tile owns nothing."""
    total = sum(shard.max_local_size for shard in shards)
    stack = np.zeros((total, weights[0].shape[1]), np.float32)
    offset = 0
    for weight, shard in zip(weights, shards, strict=True):
        for piece in shard.pieces(core, weight.shape[0]):
            first = offset + piece.local
            stack[first : first + piece.stop - piece.start] = weight[piece.start : piece.stop]
        offset += shard.max_local_size
    return stack


@lru_cache(maxsize=64)
def bank_order(layout: GemvLayout) -> npt.NDArray[np.int64]:
    """For each element of a tile's slice ``[n_local, k]``: 1 + the element that the banks give back for it.

    Packs and unpacks the element numbers themselves, in two halves of 16 bits; 0 stands for an element that
    is lost.
    """
    numbers = np.arange(1, layout.n_local * layout.k + 1).reshape(layout.n_local, layout.k)
    halves = [(numbers >> shift & 0xFFFF).astype(np.uint16) for shift in (0, 16)]
    low, high = (layout.unpack(layout.pack(half)).astype(np.int64) for half in halves)
    return low | high << 16


def through_banks(stack: Floats, layout: GemvLayout) -> Floats:
    """``stack`` as the banks give it back; lost elements are NaN."""
    elements = np.concatenate(([np.float32(np.nan)], stack.reshape(-1)))
    return elements[bank_order(layout)]


def matrix(
    x: Floats,
    weights: Sequence[Floats],
    biases: Sequence[Floats | None],
    shards: Sequence[ShardAttr],
    layout: GemvLayout | None,
) -> list[Floats]:
    """``x [..., K]`` times each weight ``[N_i, K]``: one ``[..., N_i]`` a weight, computed tile by tile."""
    results = [np.full((*x.shape[:-1], w.shape[0]), np.nan, np.float32) for w in weights]
    for core in range(max(shard.cores for shard in shards)):
        stack = local_stack(weights, shards, core)
        if layout is not None:
            stack = through_banks(stack, layout)
        local = x.astype(np.float32) @ stack.T
        offset = 0
        for result, bias, shard in zip(results, biases, shards, strict=True):
            for piece in shard.pieces(core, result.shape[-1]):
                first = offset + piece.local
                part = local[..., first : first + piece.stop - piece.start]
                if bias is not None:
                    part = part + bias[piece.start : piece.stop].astype(np.float32)
                result[..., piece.start : piece.stop] = part
            offset += shard.max_local_size
    return results


def attention(
    q: Floats,
    keys: Floats,
    values: Floats,
    position: int,
    scale: float,
    causal: bool,
    rounds: Sequence[HeadRound],
    shard: ShardAttr,
    slopes: Sequence[float] | None = None,
    window: int | None = None,
    softcap: float | None = None,
    bias: Floats | None = None,
) -> Floats:
    """Attention of q ``[1, M, H*D]`` over cached keys and values ``[S, Hkv, D]`` by head rounds.

    Each core of a KV head's group works on the slots ``p % cores_per_head == rank``; maxima, sums and
    outputs are exchanged, and each core keeps the features that ``shard`` gives it (others than its head
    group's: NaN).
    """
    tokens, (_, kv_heads, dim) = q.shape[1], keys.shape
    group = q.shape[2] // (kv_heads * dim)
    queries = q.reshape(tokens, kv_heads, group, dim).astype(np.float32)
    result = np.full(q.shape, np.nan, np.float32)
    for r in rounds:
        for head in range(r.first, r.first + r.heads):
            steep = np.asarray(slopes or [0.0] * group * kv_heads, np.float32)[head * group : (head + 1) * group]
            mine = None if bias is None else bias[head * group : (head + 1) * group]
            whole = _head(
                queries[:, head], keys[:, head], values[:, head], position, scale, causal, r, steep, window, softcap,
                mine,
            )  # fmt: skip
            first = head * group * dim
            for core in r.cores_of(head):
                for piece in shard.pieces(core, q.shape[2]):
                    start, stop = max(piece.start, first), min(piece.stop, first + group * dim)
                    if start < stop:
                        result[0, :, start:stop] = whole[:, start - first : stop - first]
    return result


def _head(
    q: Floats,
    keys: Floats,
    values: Floats,
    position: int,
    scale: float,
    causal: bool,
    r: HeadRound,
    slopes: Floats,
    window: int | None,
    softcap: float | None,
    bias: Floats | None,
) -> Floats:
    """One KV head: q ``[M, G, D]``, keys and values ``[S, D]``, slopes ``[G]``, bias by distance ``[G, S]``; ``[M, G *
    D]`` from the cores' partial results.
    """
    tokens, group, dim = q.shape
    limit = position + tokens
    last = position + np.arange(tokens) if causal else np.full(tokens, limit - 1)
    first = last - (limit if window is None else window - 1)
    partial: list[tuple[Floats, Floats, Floats]] = []
    for rank in range(r.cores_per_head):
        slots = np.arange(rank, limit, r.cores_per_head)
        if not slots.size:
            continue
        scores = np.einsum("mgd,sd->mgs", q, keys[slots].astype(np.float32)) * np.float32(scale)
        distance = (slots[None, :] - position - np.arange(tokens)[:, None]).astype(np.float32)
        if softcap is not None:
            scores = np.tanh(scores / np.float32(softcap)) * np.float32(softcap)
        scores = scores + slopes[None, :, None] * distance[:, None, :]
        if bias is not None:
            scores = scores + bias[:, np.maximum(-distance, 0).astype(int)].transpose(1, 0, 2)
        seen = (slots[None, :] <= last[:, None]) & (slots[None, :] >= first[:, None])
        scores = np.where(seen[:, None, :], scores, -np.inf)
        peak = scores.max(-1)
        weights = np.exp(scores - np.where(np.isfinite(peak), peak, 0)[..., None])
        partial.append((peak, weights.sum(-1), weights @ values[slots].astype(np.float32)))
    peak = np.max([p for p, _, _ in partial], axis=0)
    factors = [np.exp(p - peak) for p, _, _ in partial]
    total = sum(f * s for f, (_, s, _) in zip(factors, partial, strict=True))
    output = sum(f[..., None] * o for f, (_, _, o) in zip(factors, partial, strict=True))
    return np.asarray(output / np.asarray(total)[..., None], np.float32).reshape(tokens, group * dim)
