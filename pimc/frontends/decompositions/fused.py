"""Rules for PyTorch's fused Transformer kernels, which have no decomposition of their own.

``nn.TransformerEncoderLayer`` and ``nn.MultiheadAttention`` call them outside of training.  The rules are traced: they
are PyTorch code in terms of operators that have converters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

ATTENTION_MASK, PADDING_MASK = 0, 1
"""``mask_type`` of the kernels: a mask ``[L, L]``, one of keys ``[B, L]``; else ``[B, H, L, L]``.  True hides."""


def _native_multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of ``[B, L, F]`` with one weight for query, key and value; its result, and the weights if wanted."""
    import torch
    from torch.nn.functional import linear

    size = embed_dim // num_head
    weights, biases = qkv_weight.split(embed_dim), qkv_bias.split(embed_dim)
    q, k, v = (
        linear(x, weight, bias).unflatten(-1, (num_head, size)).transpose(1, 2)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    scores = (q * size**-0.5) @ k.transpose(-2, -1)
    if mask is not None:
        hidden = mask.to(torch.bool)
        if mask_type == PADDING_MASK:
            hidden = hidden[:, None, None, :]
        scores = scores.masked_fill(hidden, float("-inf"))
    probabilities = scores.softmax(-1)
    result = linear((probabilities @ v).transpose(1, 2).flatten(2), proj_weight, proj_bias)
    if not need_weights:
        return result, result.new_empty(0)
    return result, probabilities.mean(1) if average_attn_weights else probabilities


def _transformer_encoder_layer_fwd(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """One encoder layer: attention and feed-forward, each with a residual and a norm before or after."""
    from torch.nn.functional import gelu, layer_norm, linear, relu

    def first_norm(x: Tensor) -> Tensor:
        return layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second_norm(x: Tensor) -> Tensor:
        return layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    def attend(x: Tensor) -> Tensor:
        weights = (qkv_weight, qkv_bias, proj_weight, proj_bias)
        attended = _native_multi_head_attention(x, x, x, embed_dim, num_heads, *weights, mask, False, True, mask_type)
        return attended[0]

    def feed_forward(x: Tensor) -> Tensor:
        wide = linear(x, ffn_weight_1, ffn_bias_1)
        return linear(gelu(wide) if use_gelu else relu(wide), ffn_weight_2, ffn_bias_2)

    if norm_first:
        x = src + attend(first_norm(src))
        return x + feed_forward(second_norm(x))
    x = first_norm(src + attend(src))
    return second_norm(x + feed_forward(x))


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "_native_multi_head_attention.default": _native_multi_head_attention,
    "_transformer_encoder_layer_fwd.default": _transformer_encoder_layer_fwd,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
