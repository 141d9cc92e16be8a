"""What a machine keeps from run to run, two ways to the same state, and inputs it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hf_models import torch_logits

from pimc.diagnostics import InputError, UninitialisedReadError

FAMILY = "llama-gqa-9-3"
#: Logits by prefill and by decode: each is within 0.02 of PyTorch (test_tiny.py); they differ in the order of sums.
BOUND = 0.02
TOKENS = [5, 9, 100, 33, 7, 60, 150, 12, 77, 3, 181]


def test_prefill_and_decode_reach_the_same_logits(compiled: Callable) -> None:
    """Behind every chunk, and of the token after them all: the caches are the same too."""
    case = compiled(FAMILY)
    case.executable.reset()
    stepwise = [case.decode(token, position) for position, token in enumerate([*TOKENS, 42])]
    case.executable.reset()
    for start in range(0, len(TOKENS), 8):
        piece = TOKENS[start : start + 8]
        chunked = case.prefill(piece, start)
        np.testing.assert_allclose(chunked, stepwise[start + len(piece) - 1], rtol=0, atol=BOUND)
    np.testing.assert_allclose(case.decode(42, len(TOKENS)), stepwise[-1], rtol=0, atol=BOUND)


def test_caches_persist_and_reset_forgets_them(compiled: Callable) -> None:
    case = compiled(FAMILY)
    case.executable.reset()
    case.decode(5, 0)
    behind_5 = case.decode(9, 1)
    np.testing.assert_array_equal(case.decode(9, 1), behind_5)  # writes the same slot again
    case.decode(100, 0)  # another past: slot 0 is overwritten
    behind_100 = case.decode(9, 1)
    assert not np.array_equal(behind_5, behind_100)
    expected = torch_logits(case.model, [100, 9])[1]
    np.testing.assert_allclose(behind_100, expected, rtol=0, atol=BOUND)
    case.executable.reset()
    with pytest.raises(UninitialisedReadError):
        case.decode(9, 1)  # nothing is in slot 0


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"tokens": np.zeros((1, 2), np.int32), "position": np.zeros(1, np.int32)}, r"'tokens' has the shape \(1, 2\)"),
        ({"tokens": np.zeros((1, 1), np.int32), "position": np.zeros(2, np.int32)}, r"'position' has the shape \(2,\)"),
        ({"tokens": np.zeros((1, 1), np.int32)}, "lacks position"),
        ({"tokens": np.zeros((1, 1), np.int32), "position": np.zeros(1, np.int32), "x": np.zeros(1)}, "not know x"),
    ],
)
def test_wrong_inputs_are_refused(compiled: Callable, inputs: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled(FAMILY).executable.run(inputs, entry="decode")


def test_unknown_entry_is_refused(compiled: Callable) -> None:
    with pytest.raises(InputError, match="no entry point 'train'"):
        compiled(FAMILY).executable.run({}, entry="train")
