"""Every model family on the simulator against PyTorch: logits of prefill and decode where it generates, hidden states
of a padded sentence or of an image where it encodes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_families import (
    ALL,
    BOUND,
    DECODED,
    DECODERS,
    ENCODERS,
    FORMS,
    PROMPT,
    QUICK_FORMS,
    build,
    differences,
    family_differences,
    random_tokens,
    torch_logits,
)
from transformers import AutoModelForCausalLM

from pimc.frontends.huggingface import MODEL_TYPES

SLOW = tuple(pytest.param(name, marks=pytest.mark.slow) for name in FORMS if name not in QUICK_FORMS)


@pytest.mark.parametrize("name", [*DECODERS, *QUICK_FORMS, *SLOW, *ENCODERS])
def test_family(name: str) -> None:
    found = family_differences(name)
    assert len(found) == (1 if name in ENCODERS else 3 + DECODED)
    assert max(found.values()) < BOUND, found


@pytest.mark.parametrize("name", ALL)
def test_logits_depend_on_the_order(name: str) -> None:
    """The comparison would see wrong attention or positions: earlier tokens that change places move the logits by
    several times the bound.
    """
    tokens = random_tokens(PROMPT)
    swapped = list(tokens)
    swapped[3], swapped[7] = tokens[7], tokens[3]
    model = build(name)
    expected, other = torch_logits(model, tokens), torch_logits(model, swapped)
    assert np.abs(expected[8:] - other[8:]).max() > 4 * BOUND
    assert 0.5 < expected.std() < 2


@pytest.mark.parametrize(("name", "dtype"), [("llama", "float16"), ("gpt_neox", "bfloat16")])
def test_checkpoints_of_16_bits(name: str, dtype: str, tmp_path: Path) -> None:
    """Folders with 16-bit weights are compared with PyTorch in fp32 on the same weights."""
    model = AutoModelForCausalLM.from_config(ALL[name]())
    model.load_state_dict(build(name).state_dict())
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    same = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    found = differences(tmp_path, torch_logits(same, random_tokens(PROMPT + DECODED)))
    assert max(found.values()) < BOUND, found


def test_every_type_of_model_is_here() -> None:
    assert {config().model_type for config in DECODERS.values()} == set(MODEL_TYPES)
