"""Chains of element-wise operators and reductions: what lies between them need not fit fp16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import pimc


class Lambda(torch.nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.function(x, y)


CHAINS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "softplus of primitives": lambda x, y: torch.log(1 + torch.exp(x + y)),
    "soft_margin_loss": lambda x, y: torch.nn.functional.soft_margin_loss(2 * x, y.sign()),
    "dist": lambda x, y: torch.dist(60 * x, y, 3),
    "norm that a small number bounds": lambda x, y: (x - y) / (x - x).norm(dim=-1, keepdim=True).clamp_min(1e-3),
    "logaddexp": lambda x, y: torch.log(torch.exp(x * 3) + torch.exp(y * 3)),
    "variance of large numbers": lambda x, y: (900 * x + y).var(dim=1, keepdim=True).sqrt(),
    "power and a question": lambda x, y: ((x * 30) ** 4 > 1e5) | torch.isinf((y * 100) ** 3),
    "whole numbers out of a chain": lambda x, y: ((x * 100) ** 2 / 50 + y).to(torch.int32),
    "moves between": lambda x, y: (x * 3).exp2().clamp(max=1e20).transpose(0, 1).reshape(4, -1).log2().cumsum(1),
    "select and remainder": lambda x, y: torch.where(x > y, (x * 64) ** 2, y * 3).fmod(100.0).sum(),
    "softmax": lambda x, y: torch.softmax((x * 60) ** 2 / 1e5, 1).log(),
    "scores": lambda x, y: torch.softmax(40 * (x @ y.T) + y[:, :4], -1),
    "scores in blocks": lambda x, y: torch.softmax(9 * (x.repeat(18, 1) @ y.repeat(18, 1).T)[None], 1) * 18,
    "functions": lambda x, y: torch.asinh(torch.sinh(x) * 1e3).tanh() + torch.cosh(y + 11).log(),
}


@pytest.mark.parametrize("name", CHAINS)
def test_values_between_operators_of_a_chain_do_not_overflow(name: str) -> None:
    torch.manual_seed(1)
    x, y = (torch.randn(4, 6) * 5).half().float(), torch.randn(4, 6).half().float()
    module = Lambda(CHAINS[name])
    want = module(x, y).numpy()
    (got,) = pimc.compile(module, (x, y)).run(x.numpy(), y.numpy()).outputs.values()
    assert np.isfinite(want).all()
    np.testing.assert_allclose(got, want, rtol=4e-3, atol=2e-3 * float(np.abs(want).max()))


@pytest.mark.parametrize("op", [torch.logical_not, torch.isnan, torch.nanmean, torch.logical_and, torch.floor])
def test_scalars(op: Callable[..., torch.Tensor]) -> None:
    x = torch.tensor(0.5)
    module = Lambda(lambda x, y: op(x, y) if op is torch.logical_and else op(x))
    (got,) = pimc.compile(module, (x, x)).run(x.numpy(), x.numpy()).outputs.values()
    assert got == module(x, x).numpy()
