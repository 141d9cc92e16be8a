"""Losses that PyTorch computes in chunks of the batch to save memory, which are one linear layer and one loss here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _linear_cross_entropy(
    x: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    reduction: str,
    ignore_index: int,
    label_smoothing: float,
    batch_chunk_size: int,
    acc_policy: str,
    acc_dtype: torch.dtype,
    allow_retain_graph: bool,
    compute_input_grad: bool,
    compute_linear_weight_grad: bool,
    compute_linear_bias_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss; of the gradients, which only training needs, nothing."""
    from torch.nn.functional import cross_entropy, linear

    logits = linear(x, linear_weight, linear_bias)
    loss = cross_entropy(
        logits, target, weight, reduction=reduction, ignore_index=ignore_index, label_smoothing=label_smoothing
    )
    nothing = x.new_empty(0)
    return loss, nothing, nothing, nothing


def _linear_cross_entropies(
    x: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    ignore_index: int,
    batch_chunk_size: int,
    acc_policy: str,
    acc_dtype: torch.dtype,
) -> Tensor:
    """The loss of each row."""
    from torch.nn.functional import cross_entropy, linear

    return cross_entropy(
        linear(x, linear_weight, linear_bias), target, weight, reduction="none", ignore_index=ignore_index
    )


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "torch_nn._linear_cross_entropy_batch_chunked.default": _linear_cross_entropy,
    "torch_nn._linear_cross_entropy_batch_chunked_no_reduction.default": _linear_cross_entropies,
}
"""Rules by the operator's name in ``torch.ops``."""
