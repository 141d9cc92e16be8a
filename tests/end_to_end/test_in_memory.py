"""``pimc.compile`` of a model that is already in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hf_models import FAMILIES, build, torch_logits

import pimc
from pimc.diagnostics import InputError, UsageError


def test_model_object(tmp_path: Path) -> None:
    model = build(FAMILIES[1], tmp_path)
    executable = pimc.compile(model, max_seq=32, prefill_chunk=4)
    inputs = {"tokens": np.array([[7]], np.int32), "position": np.array([0], np.int32)}
    logits = executable.run(inputs, entry="decode").outputs["logits"].reshape(-1)
    np.testing.assert_allclose(logits, torch_logits(model, [7])[0], atol=0.02)


def test_other_objects_are_refused() -> None:
    import torch

    with pytest.raises(InputError, match="cannot compile a ndarray"):
        pimc.compile(np.zeros(3))
    with pytest.raises(UsageError, match="a Linear needs example inputs"):
        pimc.compile(torch.nn.Linear(4, 4))
