"""The operator ``pimc::cached_attention`` (:mod:`pimc.frontends.encoder_decoder_entries`) -> `nn.attention`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from xdsl.ir import SSAValue

from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import CacheRef, Meaning
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def _cached_attention(context: NodeContext) -> Meaning:
    """q ``[1, H, M, D]`` over the caches of a layer; ``[1, M, H, D]``."""
    arguments = context.arguments
    keys, values = context.meaning(arguments["k"]), context.meaning(arguments["v"])
    if not isinstance(keys, CacheRef) or not isinstance(values, CacheRef):
        raise UnsupportedError("cached attention over something that is no cache")
    _, heads, tokens, size = nn.tensor_of(context.value(arguments["q"])).get_shape()
    bias = None if arguments["bias"] is None else context.value(arguments["bias"])
    found = nn.AttentionOp(
        _folded(context, context.value(arguments["q"])),
        context.index(keys.layer),
        context.value(arguments["position"]),
        bias,
        k=keys.symbol,
        v=values.symbol,
        heads=heads,
        kv_heads=_heads(arguments["k"]),
        head_dim=size,
        scale=context.number(arguments["scale"], "scale"),
        causal=bool(arguments["causal"]),
    )
    return context.reshape(context.emit(found), (1, tokens, heads, size))


def _heads(cache: object) -> int:
    """Heads of a cache's buffer."""
    return int(cache.meta["val"].shape[1])  # type: ignore[attr-defined]  # a node


def _folded(context: NodeContext, q: SSAValue) -> SSAValue:
    """Queries ``[1, H, M, D]`` as ``[1, M, H * D]``: what was split into heads, where that is how they were made."""
    _, heads, tokens, size = nn.tensor_of(q).get_shape()
    split = q.owner.x if isinstance(q.owner, nn.TransposeOp) else None
    if split is not None and nn.tensor_of(split).get_shape() == (1, tokens, heads, size):
        whole = split.owner.x if isinstance(split.owner, nn.ReshapeOp) else split
        return context.reshape(whole, (1, tokens, heads * size))
    return context.reshape(context.transpose(q, (0, 2, 1, 3)), (1, tokens, heads * size))


TABLE: Final[Mapping[str, Converter]] = {"pimc.cached_attention.default": _cached_attention}
"""Converters by the operator's name."""
