"""Recurrent layers of PyTorch on the simulated hardware, by every way in, against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pimc
from pimc import torch_backend

Array = NDArray[np.float32]
Route = Callable[[torch.nn.Module, torch.Tensor, Path], list[Array]]
#: Of states between -1 and 1 behind a few steps, each rounded to fp16.
TOLERANCE = 2e-3


def by_torch_compile(module: torch.nn.Module, x: torch.Tensor, folder: Path) -> list[Array]:
    torch._dynamo.reset()
    torch_backend.reset()
    compiled = torch.compile(module, backend="pimc")
    with torch.inference_mode():
        found = arrays(compiled(x))
    report = torch_backend.report()
    assert (report.compiled, report.refused, report.hardware_runs) == (1, (), 1)
    assert report.cycles > 0
    return found


def by_compile(module: torch.nn.Module, x: torch.Tensor, folder: Path) -> list[Array]:
    return list(pimc.compile(module, (x,)).run(x.numpy()).outputs.values())


def by_onnx(module: torch.nn.Module, x: torch.Tensor, folder: Path) -> list[Array]:
    program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
    program.save(folder / "model.onnx")
    return list(pimc.compile(folder / "model.onnx").run(x.numpy()).outputs.values())


ROUTES: dict[str, Route] = {"torch.compile": by_torch_compile, "compile": by_compile, "onnx": by_onnx}


def arrays(results: tuple[torch.Tensor, torch.Tensor | tuple[torch.Tensor, torch.Tensor]]) -> list[Array]:
    """The outputs, and the states behind the last step."""
    outputs, states = results
    return [found.numpy() for found in (outputs, *(states if isinstance(states, tuple) else (states,)))]


QUICK = {("LSTM", 1, False, 1, "onnx"), ("LSTM", 1, False, 1, "torch.compile")}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in (
        (kind, layers, bidirectional, batch, route)
        for kind in ("LSTM", "GRU")
        for layers in (1, 2)
        for bidirectional in (False, True)
        for batch in (1, 4)
        for route in ROUTES
    )
]


@pytest.mark.parametrize(("kind", "layers", "bidirectional", "batch", "route"), CASES)
@pytest.mark.filterwarnings("ignore")  # of PyTorch's exporter, about attributes of its own layers
def test_recurrent_layer(kind: str, layers: int, bidirectional: bool, batch: int, route: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    module = getattr(torch.nn, kind)(16, 32, layers, batch_first=True, bidirectional=bidirectional).eval()
    x = torch.randn(batch, 2 if layers == 1 else 4, 16)
    with torch.no_grad():
        wanted = arrays(module(x))
    found = ROUTES[route](module, x, tmp_path)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE)
