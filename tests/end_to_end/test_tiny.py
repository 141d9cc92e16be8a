"""Compiled binaries of small models against PyTorch: prefill in chunks, then decode, in the simulator."""

from __future__ import annotations

import numpy as np
import pytest
from hf_models import FAMILIES, Family, build, torch_logits

import pimc

#: |logits - PyTorch fp32| of these models, whose logits reach about 3; fp16 storage gives errors near 2^-10 a layer.
BOUND = 0.02
CHUNK = 8


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[object, pimc.Executable]:
    family: Family = request.param
    folder = tmp_path_factory.mktemp(family.name)
    model = build(family, folder)
    return model, pimc.compile(folder, max_seq=64, prefill_chunk=CHUNK)


def test_prefill_and_decode_match_torch(case: tuple[object, pimc.Executable]) -> None:
    model, executable = case
    rng = np.random.default_rng(0)
    tokens = [int(token) for token in rng.integers(3, 190, 24)]
    expected = torch_logits(model, tokens)
    prompt = 13  # a full chunk and a padded one
    for start in range(0, prompt, CHUNK):
        piece = tokens[start : min(start + CHUNK, prompt)]
        padded = np.array([piece + [0] * (CHUNK - len(piece))], np.int32)
        inputs = {"tokens": padded, "position": np.array([start], np.int32), "length": np.array([len(piece)], np.int32)}
        result = executable.run(inputs, entry="prefill")
        error = np.abs(result.outputs["logits"].reshape(-1) - expected[start + len(piece) - 1]).max()
        assert error < BOUND, f"prefill at {start}: {error}"
    for position in range(prompt, len(tokens)):
        inputs = {"tokens": np.array([[tokens[position]]], np.int32), "position": np.array([position], np.int32)}
        result = executable.run(inputs, entry="decode")
        error = np.abs(result.outputs["logits"].reshape(-1) - expected[position]).max()
        assert error < BOUND, f"decode at {position}: {error}"
        assert result.cycles > 0
