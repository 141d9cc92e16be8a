"""Small models of every family, and how far the simulator is from PyTorch on them.

A family is a configuration with seeded random weights: two layers, sharp enough that attention and positions show in
the logits (``test_logits_depend_on_the_order`` of ``tests/end_to_end/test_families.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

import pimc

#: |logits - PyTorch fp32|, for all models here: logits have a root mean square near 1 and reach 3 to 6, the hidden
#: states of encoders, which are normalised, too.
#: docs/numerics.md says what was measured, and what PyTorch in fp16 gives.
BOUND = 2.0**-6
VOCAB, MAX_SEQ, CHUNK = 100, 32, 8
PROMPT, DECODED = 19, 4  # two full chunks and a padded one
WEIGHT_SCALE = 6.0

TOKENS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES = TOKENS | {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
GROUPED = SIZES | {"num_key_value_heads": 2, "tie_word_embeddings": False}
GPT2 = TOKENS | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
OPT = TOKENS | {
    "hidden_size": 64, "ffn_dim": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
    "word_embed_proj_dim": 64,
}  # fmt: skip
OPT_350M = OPT | {"word_embed_proj_dim": 32, "do_layer_norm_before": False}
SMOLLM2 = SIZES | {"hidden_size": 144, "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}

GEMMA2 = SIZES | {"query_pre_attn_scalar": 32}

Builder = Callable[[], PretrainedConfig]

#: Decoders: every type of model that folders may have, and forms of the same type that differ in their operators.
DECODERS: Mapping[str, Builder] = {
    "llama": lambda: LlamaConfig(**GROUPED),
    "smollm2": lambda: LlamaConfig(**SMOLLM2),
    "qwen2": lambda: Qwen2Config(**GROUPED),
    "qwen3": lambda: Qwen3Config(**GROUPED, head_dim=32),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=None),
    "gemma": lambda: GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=32),
    # a window of 5 in every other layer; the cap of scores is in the eager form alone
    "gemma2": lambda: Gemma2Config(
        **GEMMA2, num_key_value_heads=2, head_dim=32, sliding_window=5, attn_implementation="eager"
    ),
    "gemma3_text": lambda: Gemma3TextConfig(
        **GEMMA2, num_key_value_heads=1, head_dim=32, sliding_window=5, sliding_window_pattern=2
    ),
    "phi3": lambda: Phi3Config(**GROUPED),
    "gpt2": lambda: GPT2Config(**GPT2),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES, rotary_pct=0.25, tie_word_embeddings=False),
    "opt": lambda: OPTConfig(**OPT),
    "opt-350m": lambda: OPTConfig(**OPT_350M),
    "bloom": lambda: BloomConfig(**TOKENS, hidden_size=96, n_layer=2, n_head=6),
}

#: Sizes that take other paths: attention heads that fill no whole columns of a bank, or need more lanes than the PIM
#: unit has, or of which half is turned; output weights that are not the embedding's where the family ties them.
FORMS: Mapping[str, Builder] = {
    "llama, heads of 20": lambda: LlamaConfig(**GROUPED, head_dim=20),
    "gemma, heads of 256": lambda: GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=256),
    "phi3, heads of 24, half turned": lambda: Phi3Config(**GROUPED | {"hidden_size": 96}, partial_rotary_factor=0.5),
    "gpt_neox, heads of 80, one after the other": lambda: GPTNeoXConfig(
        **SIZES | {"hidden_size": 160, "num_attention_heads": 2}, rotary_pct=0.25, use_parallel_residual=False
    ),
    "mistral, a window of 6": lambda: MistralConfig(**GROUPED, sliding_window=6),
    "gemma2, four layers of two kinds": lambda: Gemma2Config(
        **GEMMA2 | {"num_hidden_layers": 4, "num_key_value_heads": 1, "head_dim": 32},
        sliding_window=5,
        attn_implementation="eager",
    ),
    "phi3, a window of 9": lambda: Phi3Config(**GROUPED, sliding_window=9),
    "qwen2, a window of 4 in the second layer": lambda: Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "gpt2, untied, 7 heads of 5": lambda: GPT2Config(
        **GPT2 | {"n_embd": 35, "n_head": 7, "tie_word_embeddings": False}
    ),
    "bloom, 3 heads of 24": lambda: BloomConfig(**TOKENS, hidden_size=72, n_layer=2, n_head=3),
}
ALL = {**DECODERS, **FORMS}
#: Forms of every run; the others' are slow tests.
QUICK_FORMS = ("gemma2, four layers of two kinds", "mistral, a window of 6", "bloom, 3 heads of 24")

ENCODER = {k: v for k, v in SIZES.items() if k in ("hidden_size", "num_hidden_layers", "num_attention_heads")} | {
    "intermediate_size": 128,
}
TEXT = ENCODER | TOKENS | {"max_position_embeddings": 64}
#: all-MiniLM-L6-v2 but for its depth and vocabulary.
MINILM = TEXT | {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "num_hidden_layers": 1}
ENCODERS: Mapping[str, Callable[[], torch.nn.Module]] = {
    "bert": lambda: BertModel(BertConfig(**TEXT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**TEXT | {"pad_token_id": 1})),
    "minilm": lambda: BertModel(BertConfig(**MINILM)),
    # 16 patches and a class token: 17 tokens, which the cores of a head do not divide
    "vit": lambda: ViTModel(ViTConfig(**ENCODER, image_size=32, patch_size=8)),
}


@cache
def build(name: str) -> torch.nn.Module:
    """The model of a family: fp32, its weights fp16 numbers; also norms and biases are random."""
    torch.manual_seed(0)
    made = ENCODERS[name]() if name in ENCODERS else AutoModelForCausalLM.from_config(ALL[name]())
    model: torch.nn.Module = made.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            vector = parameter.ndim == 1
            value = parameter + 0.1 * torch.randn_like(parameter) if vector else WEIGHT_SCALE * parameter
            parameter.copy_(value.half().float())
    return model


def random_tokens(count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(0).integers(3, VOCAB, count)]


def torch_logits(model: torch.nn.Module, tokens: list[int]) -> NDArray[np.float32]:
    """[tokens, vocab] of the model."""
    with torch.no_grad():
        return np.asarray(model(torch.tensor([tokens])).logits[0].float().numpy(), np.float32)


@dataclass(frozen=True)
class Runner:
    """A compiled decoder, token by token or in chunks; logits [vocab]."""

    executable: pimc.Executable

    def prefill(self, piece: list[int], position: int) -> NDArray[np.float32]:
        padded = np.array([piece + [0] * (CHUNK - len(piece))], np.int32)
        length = np.array([len(piece)], np.int32)
        return self._run("prefill", tokens=padded, position=np.array([position], np.int32), length=length)

    def decode(self, token: int, position: int) -> NDArray[np.float32]:
        return self._run("decode", tokens=np.array([[token]], np.int32), position=np.array([position], np.int32))

    def _run(self, entry: str, **inputs: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.asarray(self.executable.run(inputs, entry=entry).outputs["logits"], np.float32).reshape(-1)


def differences(source: torch.nn.Module | Path, expected: NDArray[np.float32]) -> dict[str, float]:
    """The largest |difference| of any logit behind each chunk of the prompt and each further token."""
    runner = Runner(pimc.compile(source, max_seq=MAX_SEQ, prefill_chunk=CHUNK))
    tokens = random_tokens(len(expected))
    found: dict[str, float] = {}
    for start in range(0, PROMPT, CHUNK):
        piece = tokens[start : min(start + CHUNK, PROMPT)]
        last = start + len(piece) - 1
        found[f"prefill of {last + 1}"] = float(np.abs(runner.prefill(piece, start) - expected[last]).max())
    for position in range(PROMPT, len(tokens)):
        logits = runner.decode(tokens[position], position)
        found[f"decode at {position}"] = float(np.abs(logits - expected[position]).max())
    return found


def encoder_inputs(name: str) -> tuple[dict[str, NDArray[np.float32 | np.int64]], NDArray[np.bool_]]:
    """Inputs of an encoder, and the tokens that count: an image, or a sentence with padding."""
    if name == "vit":
        pixels = np.random.default_rng(1).normal(size=(1, 3, 32, 32)).astype(np.float32)
        return {"pixel_values": pixels}, np.ones((1, 17), np.bool_)
    mask = np.ones((1, 16), np.int64)
    mask[0, 12:] = 0
    return {"input_ids": np.array([random_tokens(16)]), "attention_mask": mask}, mask == 1


def hidden_states(model: torch.nn.Module, inputs: Mapping[str, NDArray[np.float32 | np.int64]]) -> NDArray[np.float32]:
    """[1, tokens, hidden] of an encoder; inputs that are floats take its element type."""
    dtype = next(model.parameters()).dtype
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        found = model(**{name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()})
    return np.asarray(found.last_hidden_state.float().numpy(), np.float32)


def encoder_differences(name: str) -> dict[str, float]:
    """The largest |difference| of any hidden state."""
    model = build(name)
    inputs, counts = encoder_inputs(name)
    first = next(iter(inputs))  # the mask has the shape of the ids
    executable = pimc.compile(model, shapes={first: inputs[first].shape})
    found = executable.run(inputs).outputs["last_hidden_state"]
    return {"hidden states": float(np.abs(found[counts] - hidden_states(model, inputs)[counts]).max())}


def family_differences(name: str) -> dict[str, float]:
    """The largest |difference| of any logit or hidden state in each run of a family."""
    if name in ENCODERS:
        return encoder_differences(name)
    model = build(name)
    return differences(model, torch_logits(model, random_tokens(PROMPT + DECODED)))
