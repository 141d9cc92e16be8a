"""Compiled binaries of small models against PyTorch: prefill in chunks, then decode, in the simulator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hf_models import FAMILIES, torch_logits

#: |logits - PyTorch fp32| of these models, whose logits reach about 3; fp16 storage gives errors near 2^-10 a layer.
BOUND = 0.02
CHUNK = 8


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_prefill_and_decode_match_torch(compiled: Callable, name: str) -> None:
    case = compiled(name)
    rng = np.random.default_rng(0)
    tokens = [int(token) for token in rng.integers(3, 190, 24)]
    expected = torch_logits(case.model, tokens)
    prompt = 13  # a full chunk and a padded one
    case.executable.reset()
    for start in range(0, prompt, CHUNK):
        piece = tokens[start : min(start + CHUNK, prompt)]
        padded = np.array([piece + [0] * (CHUNK - len(piece))], np.int32)
        inputs = {"tokens": padded, "position": np.array([start], np.int32), "length": np.array([len(piece)], np.int32)}
        result = case.executable.run(inputs, entry="prefill")
        error = np.abs(result.outputs["logits"].reshape(-1) - expected[start + len(piece) - 1]).max()
        assert error < BOUND, f"prefill at {start}: {error}"
    for position in range(prompt, len(tokens)):
        inputs = {"tokens": np.array([[tokens[position]]], np.int32), "position": np.array([position], np.int32)}
        result = case.executable.run(inputs, entry="decode")
        error = np.abs(result.outputs["logits"].reshape(-1) - expected[position]).max()
        assert error < BOUND, f"decode at {position}: {error}"
        assert result.cycles > 0


def test_decode_alone_matches_torch(compiled: Callable) -> None:
    """The prompt through decode, token by token, gives the same as through prefill."""
    case = compiled("llama-gqa-9-3")
    tokens = [5, 9, 100, 33, 7, 60]
    expected = torch_logits(case.model, tokens)
    case.executable.reset()
    for position, token in enumerate(tokens):
        inputs = {"tokens": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        logits = case.executable.run(inputs, entry="decode").outputs["logits"].reshape(-1)
        assert np.abs(logits - expected[position]).max() < BOUND
