"""Recurrent layers, compared with ONNX Runtime."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from onnx_runtime import compare

RNG = np.random.default_rng(5)
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
TIMES, BATCH, INPUTS, HIDDEN = 4, 2, 3, 5


def floats(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.standard_normal(shape).astype(np.float32)


def weights(kind: str, directions: int = 1) -> list[npt.NDArray[np.float32]]:
    rows = GATES[kind] * HIDDEN
    return [floats(directions, rows, INPUTS), floats(directions, rows, HIDDEN), floats(directions, 2 * rows)]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions_and_lengths(kind: str, direction: str) -> None:
    both = 2 if direction == "bidirectional" else 1
    states = [floats(both, BATCH, HIDDEN) for _ in range(2 if kind == "LSTM" else 1)]
    outputs = 1 + len(states)
    inputs = [floats(TIMES, BATCH, INPUTS), *weights(kind, both)]
    compare(kind, inputs, outputs, stored=(1, 2, 3), hidden_size=HIDDEN, direction=direction)
    inputs += [np.array([2, 4], np.int32), *states]
    compare(kind, inputs, outputs, stored=(1, 2, 3), hidden_size=HIDDEN, direction=direction)


def test_weights_that_are_computed() -> None:
    compare("LSTM", [floats(TIMES, BATCH, INPUTS), *weights("LSTM")], 3, hidden_size=HIDDEN)


def test_peepholes_and_clipping() -> None:
    inputs = [floats(TIMES, BATCH, INPUTS), *weights("LSTM"), None, None, None, floats(1, 3 * HIDDEN)]
    compare("LSTM", inputs, 3, stored=(1, 2, 3), hidden_size=HIDDEN)
    compare("LSTM", inputs[:4], 3, stored=(1, 2, 3), hidden_size=HIDDEN, clip=0.5)
    compare("LSTM", inputs[:4], 3, stored=(1, 2, 3), hidden_size=HIDDEN, input_forget=1)


def test_linear_before_reset() -> None:
    inputs = [floats(TIMES, BATCH, INPUTS), *weights("GRU")]
    compare("GRU", inputs, 2, stored=(1, 2, 3), hidden_size=HIDDEN, linear_before_reset=1)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [
        ("Relu", [], []), ("Sigmoid", [], []), ("Softsign", [], []), ("Softplus", [], []), ("Affine", [0.5], [0.1]),
        ("LeakyRelu", [0.2], []), ("ThresholdedRelu", [0.7], []), ("ScaledTanh", [1.5], [0.5]),
        ("HardSigmoid", [0.3], [0.4]), ("Elu", [0.8], []),
    ],
)  # fmt: skip
def test_activations(name: str, alpha: list[float], beta: list[float]) -> None:
    inputs = [floats(2, BATCH, INPUTS), *weights("RNN")]
    compare(
        "RNN", inputs, 2, stored=(1, 2, 3), hidden_size=HIDDEN, activations=[name],
        activation_alpha=alpha, activation_beta=beta,
    )  # fmt: skip
