"""``torch.compile(model, backend="pimc")`` and ``pimc.compile(module, example_inputs)``: PyTorch modules on the
simulated hardware give what eager PyTorch gives, within what fp16 leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pimc
from pimc import torch_backend
from pimc.diagnostics import UsageError
from pimc.torch_backend import Backend

TOLERANCE = 1e-2
"""Of results around 1 after two layers: fp16 has 11 bits, and errors of the layers add up."""


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    torch_backend.reset()
    yield
    torch._dynamo.reset()


def encoder(layers: int = 2) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    return nn.TransformerEncoder(layer, layers).eval()


def test_a_transformer_encoder_by_the_backends_name() -> None:
    """Acceptance: the result of eager, the numbers of graphs compiled and refused."""
    model = encoder()
    compiled = torch.compile(model, backend="pimc")
    x = torch.randn(1, 8, 32)
    with torch.inference_mode():
        wanted = model(x)
        for _ in range(2):
            torch.testing.assert_close(compiled(x), wanted, atol=TOLERANCE, rtol=TOLERANCE)
    report = torch_backend.report()
    assert (report.compiled, len(report.refused)) == (1, 0)
    assert (report.hardware_runs, report.eager_runs) == (2, 0)
    assert report.cycles > 0
    assert str(report).splitlines() == [
        "1 graph(s) compiled, 0 refused",
        f"  2 run(s) on the hardware, {report.cycles} cycles; 0 in eager",
    ]


def test_a_report_says_that_nothing_was_captured() -> None:
    """Without a captured graph, no backend is asked: the report must not look as if the hardware had run."""
    assert "NOTHING RAN ON THE HARDWARE: PyTorch captured no graph" in str(Backend().report())


class Mixed(nn.Module):
    """Three graphs: what is printed breaks the capture, and the middle one has an operator without conversion."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        torch._dynamo.graph_break()
        x = torch.fft.fft(x).real.tanh()
        torch._dynamo.graph_break()
        return self.last(x)


def test_graphs_that_are_refused_run_in_eager(caplog: pytest.LogCaptureFixture) -> None:
    model, backend = Mixed().eval(), Backend()
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(1, 16)
    with torch.inference_mode(), caplog.at_level(logging.WARNING, "pimc.torch_backend"):
        torch.testing.assert_close(compiled(x), model(x), atol=TOLERANCE, rtol=TOLERANCE)
    report = backend.report()
    assert (report.compiled, report.hardware_runs, report.eager_runs) == (2, 2, 1)
    (refusal,) = report.refused
    assert refusal.graph == 2
    assert "aten.fft_fft.default" in refusal.reason
    assert [record.name for record in caplog.records] == ["pimc.torch_backend"]
    assert "graph 2 runs in eager PyTorch" in caplog.text


def test_a_graph_is_compiled_for_each_shape() -> None:
    model, backend = nn.Sequential(nn.Linear(8, 8), nn.GELU()).eval(), Backend()
    compiled = torch.compile(model, backend=backend)
    with torch.inference_mode():
        for rows in (1, 2, 3):
            x = torch.randn(rows, 8)
            torch.testing.assert_close(compiled(x), model(x), atol=TOLERANCE, rtol=TOLERANCE)
    assert (backend.report().compiled, backend.report().refused) == (3, ())


def test_weights_that_change_are_seen() -> None:
    model, backend = nn.Linear(8, 8).eval(), Backend()
    compiled = torch.compile(model, backend=backend)
    x = torch.randn(1, 8)
    with torch.no_grad():
        compiled(x)
        model.weight.mul_(2)
        torch.testing.assert_close(compiled(x), model(x), atol=TOLERANCE, rtol=TOLERANCE)
    assert backend.report().compiled == 2


def test_gradients_are_eagers() -> None:
    model, backend = nn.Linear(8, 8), Backend()
    torch.compile(model, backend=backend)(torch.randn(1, 8)).sum().backward()
    assert model.weight.grad is not None
    (refusal,) = backend.report().refused
    assert "gradients are wanted" in refusal.reason


def test_an_input_beyond_fp16_runs_in_eager() -> None:
    model, backend = nn.Linear(8, 8).eval(), Backend()
    compiled = torch.compile(model, backend=backend)
    x = torch.full((1, 8), 1e6)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), model(x))
    assert "65504" in backend.report().refused[0].reason


def test_an_unknown_option_is_an_error() -> None:
    compiled = torch.compile(nn.Linear(8, 8), backend=Backend(), options={"speed": 3})
    with pytest.raises((UsageError, torch._dynamo.exc.BackendCompilerFailed), match="no option 'speed'"):
        compiled(torch.randn(1, 8))


class TwoTowers(nn.Module):
    """Several inputs of several types, nested outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.dense = nn.Embedding(50, 16), nn.Linear(16, 16)

    def forward(self, ids: Tensor, x: Tensor, keep: Tensor) -> dict[str, object]:
        words = (self.embed(ids) * keep[..., None]).sum(1)
        score = (words * self.dense(x)).sum(-1)
        return {"score": score, "parts": (words, ids + 1)}


def test_compile_a_module() -> None:
    model = TwoTowers().eval()
    ids, x, keep = torch.randint(0, 50, (2, 5)), torch.randn(2, 16) / 4, torch.rand(2, 5) > 0.5
    executable = pimc.compile(model, (ids, x, keep))
    assert executable.entries == ("main",)
    found = executable.run(ids.numpy(), x.numpy(), keep.numpy()).outputs
    with torch.no_grad():
        wanted = model(ids, x, keep)
    assert list(found) == ["score", "parts.0", "parts.1"]
    np.testing.assert_allclose(found["score"], wanted["score"].numpy(), atol=TOLERANCE, rtol=TOLERANCE)
    np.testing.assert_allclose(found["parts.0"], wanted["parts"][0].numpy(), atol=TOLERANCE)
    assert np.array_equal(found["parts.1"], wanted["parts"][1].numpy())
