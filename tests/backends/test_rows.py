"""Work on rows: as many instructions for many rows as for few, whatever the operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import pimc

WIDTH = 48


def norms(x: torch.Tensor) -> torch.Tensor:
    scaled = torch.nn.functional.layer_norm(x, (WIDTH,), torch.linspace(0.5, 1.5, WIDTH), torch.ones(WIDTH))
    return torch.nn.functional.rms_norm(scaled, (WIDTH,), torch.linspace(1.5, 0.5, WIDTH))


def scaled_by_rows(x: torch.Tensor) -> torch.Tensor:
    return (x - x.amax(-1, keepdim=True)) / (1 + x.abs().sum(-1, keepdim=True))


def gaps(x: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat([right * left.sigmoid(), left.flip(-1) + right], -1)


def by_columns(x: torch.Tensor) -> torch.Tensor:
    return x * torch.linspace(-1, 1, WIDTH) + torch.where(x > 0, x, torch.linspace(1, 2, WIDTH))


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "norms": norms,
    "scaled_by_rows": scaled_by_rows,
    "gaps": gaps,
    "by_columns": by_columns,
    "argmax": lambda x: x.argmax(-1),
    "heads": lambda x: x.reshape(1, -1, 4, WIDTH // 4).transpose(1, 2).reshape(1, 4, -1).sum(-1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_instructions_do_not_grow_with_rows(name: str) -> None:
    counts = []
    for rows in (4, 50):
        module = torch.nn.Module()
        module.forward = FUNCTIONS[name]  # type: ignore[method-assign]
        x = torch.from_numpy(np.random.default_rng(rows).normal(size=(1, rows, WIDTH)).astype(np.float32))
        result = pimc.compile(module.eval(), example_inputs=(x,)).run({"x": x.numpy()})
        (got,) = result.outputs.values()
        np.testing.assert_allclose(got.astype(np.float32), FUNCTIONS[name](x).numpy(), rtol=5e-3, atol=5e-3)
        counts.append(int(result.stats.instructions.max()))
    assert counts[1] <= counts[0] + 4, "a constant may take a word more"
