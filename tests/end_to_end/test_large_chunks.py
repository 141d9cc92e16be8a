"""Prefill in chunks of more rows than there are cores: rows cut over the cores, and GEMMs that gather by rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hf_models import FAMILIES, build, torch_logits

import pimc

#: As in test_tiny.
BOUND = 0.02


@pytest.mark.parametrize(
    ("name", "chunk", "overrides"),
    [
        ("llama-gqa-9-3", 64, ()),
        ("llama-gqa-9-3", 50, ("cores.count=8", "hbm.stacks=1", "noc.columns=2")),
        ("opt", 40, ()),
        ("opt", 64, ("memory.activation.bytes=32768", "memory.temp.base=32768")),  # cores meet to save memory
    ],
)
def test_large_chunks(tmp_path: Path, name: str, chunk: int, overrides: tuple[str, ...]) -> None:
    model = build(next(family for family in FAMILIES if family.name == name), tmp_path)
    tokens = [int(token) for token in np.random.default_rng(0).integers(3, 190, chunk + 29)]
    expected = torch_logits(model, tokens)
    executable = pimc.compile(tmp_path, max_seq=160, prefill_chunk=chunk, overrides=overrides)
    for start in range(0, len(tokens) - 1, chunk):  # a full chunk and a padded one
        piece = tokens[start : min(start + chunk, len(tokens) - 1)]
        padded = np.array([piece + [0] * (chunk - len(piece))], np.int32)
        inputs = {"tokens": padded, "position": np.array([start], np.int32), "length": np.array([len(piece)], np.int32)}
        logits = executable.run(inputs, entry="prefill").outputs["logits"].reshape(-1)
        assert np.abs(logits - expected[start + len(piece) - 1]).max() < BOUND
    last = {"tokens": np.array([tokens[-1:]], np.int32), "position": np.array([len(tokens) - 1], np.int32)}
    logits = executable.run(last, entry="decode").outputs["logits"].reshape(-1)
    assert np.abs(logits - expected[-1]).max() < BOUND
