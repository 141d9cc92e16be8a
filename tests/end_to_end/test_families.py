"""Every model family on the simulated hardware against PyTorch: small configurations with random weights.

Decoders: chunks of prefill, then single tokens, each against the logits of one fp32 run over the whole sequence.
Encoders: hidden states of a padded sentence, or of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import transformers

import pimc
from pimc.runtime import Executable

BOUND = 4e-3
"""Largest difference of logits and hidden states, of the largest one: see docs/numerics.md."""

CHUNK, PREFILLED, TOKENS = 4, 8, 11
VOCAB = 96
SIZES = {"vocab_size": VOCAB, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHORT = {"max_position_embeddings": 64}
ENDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
WIDE = SIZES | SHORT | ENDS | {"intermediate_size": 128}


@dataclass(frozen=True)
class Family:
    """A configuration class of transformers and its arguments; ``model`` is the class built from it."""

    model: str
    config: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def build(self) -> torch.nn.Module:
        """The model with seeded weights; norms and biases are moved off their ones and zeros."""
        torch.manual_seed(0)
        config = getattr(transformers, self.config)(**self.arguments)
        model: torch.nn.Module = getattr(transformers, self.model)(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        return model


DECODERS: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", "LlamaConfig", WIDE | {"num_key_value_heads": 4}),
    "smollm2": Family(  # its head counts: rounds and leftovers of Algorithm 1, tied embeddings
        "LlamaForCausalLM",
        "LlamaConfig",
        WIDE
        | {"hidden_size": 144, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True},
    ),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", WIDE | {"num_key_value_heads": 2}),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config", WIDE | {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral": Family("MistralForCausalLM", "MistralConfig", WIDE | {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma": Family("GemmaForCausalLM", "GemmaConfig", WIDE | {"num_key_value_heads": 1, "head_dim": 32}),
    "phi3": Family("Phi3ForCausalLM", "Phi3Config", WIDE | {"num_key_value_heads": 2}),
    "gpt2": Family(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": VOCAB, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64} | ENDS,
    ),
    "gpt_neox": Family(  # a quarter of each head is rotated, the residuals are parallel
        "GPTNeoXForCausalLM", "GPTNeoXConfig", WIDE | {"hidden_size": 128, "intermediate_size": 192}
    ),
    "gpt_neox-sequential": Family(
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        WIDE | {"hidden_size": 128, "intermediate_size": 192, "use_parallel_residual": False},
    ),
    "opt": Family("OPTForCausalLM", "OPTConfig", SIZES | SHORT | ENDS | {"ffn_dim": 128, "word_embed_proj_dim": 64}),
    "opt-350m": Family(  # norms behind the layers, embeddings of another width
        "OPTForCausalLM",
        "OPTConfig",
        SIZES | SHORT | ENDS | {"ffn_dim": 128, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
    ),
    "bloom": Family(
        "BloomForCausalLM", "BloomConfig", {"vocab_size": VOCAB, "hidden_size": 64, "n_layer": 2, "n_head": 4} | ENDS
    ),
    "bloom-6-heads": Family(  # slopes of a number of heads that is no power of two
        "BloomForCausalLM", "BloomConfig", {"vocab_size": VOCAB, "hidden_size": 96, "n_layer": 2, "n_head": 6} | ENDS
    ),
}
TEXT_ENCODERS: dict[str, Family] = {
    "bert": Family("BertModel", "BertConfig", WIDE),
    "roberta": Family("RobertaModel", "RobertaConfig", WIDE | {"pad_token_id": 1}),
    "minilm": Family(  # all-MiniLM-L6-v2 but for its depth and vocabulary
        "BertModel",
        "BertConfig",
        WIDE | {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 1},
    ),
}


def decode_all(executable: Executable, ids: np.ndarray) -> dict[int, np.ndarray]:
    """Logits by position: of the last token of each chunk, then of every token."""
    found: dict[int, np.ndarray] = {}
    for start in range(0, PREFILLED, CHUNK):
        inputs = {"tokens": ids[:, start : start + CHUNK], "position": np.array([start]), "length": np.array([CHUNK])}
        found[start + CHUNK - 1] = executable.run(inputs, entry="prefill").outputs["logits"].reshape(-1)
    for position in range(PREFILLED, TOKENS):
        inputs = {"tokens": ids[:, position : position + 1], "position": np.array([position])}
        found[position] = executable.run(inputs, entry="decode").outputs["logits"].reshape(-1)
    return found


def check_logits(executable: Executable, ids: np.ndarray, wanted: np.ndarray) -> None:
    """Logits of every run are those of PyTorch at the same position, within the bound."""
    for position, logits in decode_all(executable, ids).items():
        near = BOUND * np.abs(wanted).max()
        np.testing.assert_allclose(logits, wanted[position], rtol=0, atol=near, err_msg=f"position {position}")


@pytest.mark.parametrize("name", DECODERS)
def test_decoder(name: str) -> None:
    model = DECODERS[name].build()
    ids = (np.arange(TOKENS)[None] * 7 % VOCAB).astype(np.int32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids).long()).logits[0].numpy()
    executable = pimc.compile(model, max_seq=32, prefill_chunk=CHUNK)
    check_logits(executable, ids, wanted)


@pytest.mark.parametrize("name", TEXT_ENCODERS)
def test_text_encoder(name: str) -> None:
    model = TEXT_ENCODERS[name].build()
    ids = np.arange(2, 18)[None].astype(np.int64)
    mask = np.ones_like(ids)
    mask[0, 12:] = 0
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state.numpy()
    executable = pimc.compile(model, shapes={"input_ids": ids.shape})
    found = executable.run({"input_ids": ids, "attention_mask": mask}).outputs["last_hidden_state"]
    np.testing.assert_allclose(found[mask == 1], wanted[mask == 1], rtol=0, atol=BOUND * np.abs(wanted).max())


def test_image_encoder() -> None:
    """ViT: patches by a convolution, a class token, positions."""
    arguments = {key: WIDE[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    family = Family("ViTModel", "ViTConfig", arguments | {"intermediate_size": 128, "image_size": 32, "patch_size": 8})
    model = family.build()
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(pixels).last_hidden_state.numpy()
    executable = pimc.compile(model, shapes={"pixel_values": (1, 3, 32, 32)})
    found = executable.run({"pixel_values": pixels.numpy()}).outputs["last_hidden_state"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=BOUND * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_checkpoints_of_16_bits(dtype: torch.dtype, tmp_path: object) -> None:
    """Weights as they are stored in a folder: the model in fp32 on the same rounded weights is the reference."""
    model = DECODERS["llama"].build().to(dtype)
    model.save_pretrained(str(tmp_path))
    ids = (np.arange(TOKENS)[None] * 7 % VOCAB).astype(np.int32)
    with torch.no_grad():
        wanted = model.float()(torch.from_numpy(ids).long()).logits[0].numpy()
    executable = pimc.compile(str(tmp_path), max_seq=32, prefill_chunk=CHUNK)
    check_logits(executable, ids, wanted)
