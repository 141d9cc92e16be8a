"""Products and distances that PyTorch implements as kernels of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor


def _addbmm(x: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """The sum of a batch's products, which is one product of the batches laid side by side."""
    left = batch1.transpose(0, 1).reshape(batch1.shape[1], -1)
    product = left @ batch2.reshape(-1, batch2.shape[2])
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    return product + (x if beta == 1 else x * beta)


def _bilinear(a: Tensor, b: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ W[o] @ b`` for each output o; weight ``[O, A, B]``."""
    outputs, width, depth = weight.shape
    rows = a.reshape(-1, width) @ weight.permute(1, 0, 2).reshape(width, outputs * depth)
    result = (rows.reshape(-1, outputs, depth) * b.reshape(-1, 1, depth)).sum(-1)
    result = result.reshape(*a.shape[:-1], outputs)
    return result if bias is None else result + bias


def _cdist(a: Tensor, b: Tensor, p: float, compute_mode: int | None = None) -> Tensor:
    """Distances of all rows of two batches; ``[..., P, R]``."""
    import torch

    difference = a.unsqueeze(-2) - b.unsqueeze(-3)
    return torch.linalg.vector_norm(difference, p, dim=-1)


def _pdist(x: Tensor, p: float = 2) -> Tensor:
    """Distances of all pairs of rows."""
    import torch

    count = x.shape[0]
    first, second = torch.triu_indices(count, count, 1, device=x.device).unbind(0)
    return torch.linalg.vector_norm(x[first] - x[second], p, dim=-1)


RULES: Final[Mapping[str, Callable[..., object]]] = {
    "addbmm.default": _addbmm,
    "bilinear.default": _bilinear,
    "_cdist_forward.default": _cdist,
    "pdist.default": _pdist,
    "_pdist_forward.default": _pdist,
}
"""Rules by the operator's name in ``torch.ops.aten``."""
