"""Encoder families on the simulator against PyTorch: small configurations with random weights.

Hidden states of a padded sentence, or of an image.  Decoders are in ``test_families.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel, RobertaConfig, RobertaModel, ViTConfig, ViTModel

import pimc

BOUND = 4e-3
"""Largest difference of a hidden state, of the largest one: see docs/numerics.md."""

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
TEXT = SIZES | {"vocab_size": 96, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
#: all-MiniLM-L6-v2 but for its depth and vocabulary.
MINILM = TEXT | {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 1}

TEXT_ENCODERS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertModel(BertConfig(**TEXT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**TEXT, pad_token_id=1)),
    "minilm": lambda: BertModel(BertConfig(**MINILM)),
}


def build(model: Callable[[], PreTrainedModel]) -> PreTrainedModel:
    """The model with seeded weights; norms and biases are moved off their ones and zeros."""
    torch.manual_seed(0)
    built = model().eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return built


def check(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=BOUND * np.abs(wanted).max())


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_text(name: str) -> None:
    model = build(TEXT_ENCODERS[name])
    ids = np.arange(2, 18)[None].astype(np.int64)
    mask = np.ones_like(ids)
    mask[0, 12:] = 0
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    executable = pimc.compile(model, shapes={"input_ids": ids.shape})
    found = executable.run({"input_ids": ids, "attention_mask": mask}).outputs["last_hidden_state"]
    check(found[mask == 1], wanted[mask == 1])


def test_image() -> None:
    """ViT: patches by a convolution, a class token, positions; 17 tokens, which the cores of a head do not divide."""
    model = build(lambda: ViTModel(ViTConfig(**SIZES, image_size=32, patch_size=8)))
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(pixels).last_hidden_state.numpy()
    executable = pimc.compile(model, shapes={"pixel_values": (1, 3, 32, 32)})
    check(executable.run({"pixel_values": pixels.numpy()}).outputs["last_hidden_state"], wanted)
