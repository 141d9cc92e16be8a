"""What compiles, runs: a sample of random graphs; `benchmarks/random_graphs.py` has as many as wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from random_graphs.case import Graph, Outcome, Step, Value, Written, attempt, shrunk, text_of
from random_graphs.decoders import attempt_decoder
from random_graphs.draw import draw
from xdsl.ir import SSAValue

from pimc.backends.lower.vector import UNARY
from pimc.ir import nn

#: Graphs that once failed, as IR text.
FOUND = sorted((Path(__file__).parent / "found_graphs").glob("*.mlir"))


@pytest.mark.parametrize("seed", range(10))
def test_random_graph(seed: int) -> None:
    graph = draw(seed)
    outcome = attempt(graph)
    assert outcome.kind != "failed", f"{outcome.reason}\n{text_of(shrunk(graph, outcome))}"


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_found_graph(path: Path) -> None:
    assert attempt(Written(path.read_text())) == Outcome("right")


def test_random_decoder() -> None:
    assert attempt_decoder(0) == Outcome("right")


def test_a_wrong_graph_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can fail: an operator whose lowering is wrong is what is left."""
    monkeypatch.setitem(UNARY, nn.TanhOp, "vsigmoid_h")

    def unary(op: type[nn.TanhOp | nn.SinOp]) -> Step:
        def make(x: SSAValue) -> SSAValue:
            return op(x).result

        return Step(op.name, Value((4,)), (0,) if op is nn.SinOp else (1,), make)

    source = Step("input", Value((4,)), array=np.array([-0.5, 1.0, 0.25, -2.0], np.float32))
    graph = Graph((source, unary(nn.SinOp), unary(nn.TanhOp)), (1, 2))
    outcome = attempt(graph)
    assert outcome.kind == "failed"
    text = text_of(shrunk(graph, outcome))
    assert "nn.tanh" in text
    assert "nn.sin" not in text
