"""Tiny random models: the imported module and the raised one give PyTorch's logits, token by token."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
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
)

from pimc.diagnostics import InputError, UnsupportedModelError
from pimc.frontends import Checkpoint, ImportedModel, TokenizerData, import_checkpoint, import_model
from pimc.frontends.importer import quiet_transformers
from pimc.ir import nn
from pimc.ir.context import parse_module, print_module, verify_module
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import check_locations
from pimc.passes.base import PassContext
from pimc.passes.raise_ops import RaisePass

VOCAB, MAX_SEQ, CHUNK = 61, 24, 8
LLAMA_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**LLAMA_SIZES),
    "llama_tied_wide_heads": LlamaConfig(**LLAMA_SIZES, head_dim=12, tie_word_embeddings=True),
    "llama_scaled_rope": LlamaConfig(
        **LLAMA_SIZES,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "mistral": MistralConfig(**LLAMA_SIZES, sliding_window=None),
    "mistral_window": MistralConfig(**LLAMA_SIZES, sliding_window=6),
    "gemma2": Gemma2Config(**LLAMA_SIZES, head_dim=16, sliding_window=6, attn_logit_softcapping=5.0),
    "qwen2": Qwen2Config(**LLAMA_SIZES),
    "qwen3": Qwen3Config(**LLAMA_SIZES, head_dim=16),
    "opt": OPTConfig(**OPT_SIZES),
    "opt_350m": OPTConfig(**{**OPT_SIZES, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    ),
    "gemma": GemmaConfig(**{**LLAMA_SIZES, "num_key_value_heads": 1}, head_dim=12),
    "phi3": Phi3Config(**LLAMA_SIZES, pad_token_id=0),
    "phi3_half_turned": Phi3Config(**LLAMA_SIZES, pad_token_id=0, partial_rotary_factor=0.5),
    "gpt_neox": GPTNeoXConfig(**{**LLAMA_SIZES, "hidden_size": 64, "num_key_value_heads": None}, rotary_pct=0.25),
    "gpt_neox_no_bias": GPTNeoXConfig(
        **{**LLAMA_SIZES, "num_key_value_heads": None}, rotary_pct=1.0, attention_bias=False
    ),
    "bloom": BloomConfig(vocab_size=VOCAB, hidden_size=36, n_layer=2, n_head=3, bos_token_id=1, eos_token_id=2),
}
OPERATORS = {
    "nn.param", "nn.embedding", "nn.positions", "nn.linear", "nn.rms_norm", "nn.layer_norm", "nn.rope", "nn.attention",
    "nn.cache_write", "nn.add", "nn.mul", "nn.silu", "nn.relu", "nn.gelu", "nn.select_token",
}  # fmt: skip
EXTRA = {"qwen3": {"nn.reshape"}, "gemma": {"nn.constant"}, "gemma2": {"nn.constant", "nn.div", "nn.tanh"}}
"""Norms of single heads; the factor of the embedding; the cap of the logits."""
FOUND_IN_ALL = {"nn.attention": 4, "nn.cache_write": 8, "nn.select_token": 1}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(7)
    model: torch.nn.Module = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than the usual initialisation, so that norms, biases and attention matter.
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return model


def imported(model: torch.nn.Module, attention: str = "sdpa") -> ImportedModel:
    checkpoint = Checkpoint(model, TokenizerData(), "tiny")
    with quiet_transformers():
        return import_checkpoint(checkpoint, max_seq=MAX_SEQ, prefill_chunk=CHUNK, attention=attention)


def logits_of(model: ImportedModel, tokens: list[int], prompt: int) -> list[np.ndarray]:
    """Logits after the prompt (chunked prefill) and after each further token (decode)."""
    interpreter = Interpreter(model.module, model.weights, "f32")
    results: list[np.ndarray] = []
    found = np.zeros(0)
    for start in range(0, prompt, CHUNK):
        chunk = tokens[start : min(start + CHUNK, prompt)]
        padded = chunk + [0] * (CHUNK - len(chunk))
        inputs = {
            "tokens": np.array([padded], np.int32),
            "position": np.array([start], np.int32),
            "length": np.array([len(chunk)], np.int32),
        }
        (found,) = interpreter.call("prefill", inputs).values()
    results.append(found.reshape(-1))
    for place in range(prompt, len(tokens)):
        inputs = {"tokens": np.array([[tokens[place]]], np.int32), "position": np.array([place], np.int32)}
        (found,) = interpreter.call("decode", inputs).values()
        results.append(found.reshape(-1))
    return results


def check_logits(model: torch.nn.Module, result: ImportedModel) -> None:
    tokens = [int(token) for token in np.random.default_rng(3).integers(3, VOCAB, 17)]
    prompt = 13
    with torch.no_grad():
        wanted = model(torch.tensor([tokens])).logits[0].numpy()
    for place, found in enumerate(logits_of(result, tokens, prompt), start=prompt - 1):
        np.testing.assert_allclose(found, wanted[place], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "attention"),
    [*((name, "sdpa") for name in CONFIGS), *((name, "eager") for name in ("llama", "opt", "gpt2", "phi3", "bloom"))],
)
def test_logits_before_and_after_raise(name: str, attention: str) -> None:
    model = build(name)
    result = imported(model, attention)
    verify_module(result.module)
    check_locations(result.module)
    check_logits(model, result)

    context = PassContext()
    RaisePass(precision="f32").run(result.module, context)
    verify_module(result.module)
    check_locations(result.module)
    check_logits(model, result)
    counts = Counter(op.name for op in result.module.walk())
    assert {name: counts[name] for name in FOUND_IN_ALL} == FOUND_IN_ALL
    assert counts["nn.positions"] == (0 if name == "bloom" else 2)
    assert counts["nn.rope"] == (0 if name.startswith(("opt", "gpt2", "bloom")) else 8)
    extra = EXTRA.get(name, set())
    assert {kind for kind in counts if kind.startswith("nn.")} - extra <= OPERATORS
    assert context.decisions == []


@pytest.mark.parametrize("name", ["llama", "opt", "gpt2"])
def test_module_has_the_form_the_passes_expect(name: str) -> None:
    result = imported(build(name))
    RaisePass().run(result.module, PassContext())
    text = print_module(result.module)
    assert print_module(parse_module(text)) == text
    sizes = CONFIGS[name]
    heads = sizes.num_attention_heads
    kv_heads = getattr(sizes, "num_key_value_heads", heads)
    assert f"@k_cache : tensor<2x{MAX_SEQ}x{kv_heads}x8xf16>" in str(result.module)
    assert f"heads = {heads} : i64, kv_heads = {kv_heads} : i64, head_dim = 8 : i64" in text
    assert "tokens: tensor<1x8xi32>" in str(result.module)
    assert f"-> tensor<1x1x{VOCAB}xf16>" in str(result.module)
    assert "f32" not in {part for line in text.splitlines() for part in line.split("tensor<")[1:] if "f32>" in part}
    for wanted in ("max_seq = 24 : i64", "prefill_chunk = 8 : i64", f"vocab = {VOCAB} : i64", "layers = 2 : i64"):
        assert wanted in text


def test_import_of_a_saved_folder(tmp_path: Path) -> None:
    model = build("llama_tied_wide_heads")
    model.save_pretrained(tmp_path / "tiny-llama")
    result = import_model(tmp_path / "tiny-llama", max_seq=20, prefill_chunk=CHUNK)
    assert (result.name, result.eos_ids, result.tokenizer_json) == ("tiny-llama", [2], None)
    names = list(result.weights.names())
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert result.weights.shape("rope_table") == (24, 24)
    check_logits(model, result)


def test_weights_share_memory_with_the_model() -> None:
    model = build("gpt2")
    result = imported(model)
    parameter = model.transformer.h[0].attn.c_attn.weight
    name = "transformer.h.0.attn.c_attn.weight"
    assert np.shares_memory(result.weights[name], parameter.detach().numpy())
    assert np.array_equal(result.weights[f"{name}^T[32:64]"], parameter.detach().numpy().T[32:64])


def test_a_weight_that_overflows_fp16_is_named() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = -70000.0
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight.*does not fit fp16.*-70000"):
        imported(model)


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = build("llama")
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(InputError, match=r"model\.norm\.weight.*NaN"):
        imported(model)


def test_all_unsupported_operators_are_named_with_their_places() -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.bernoulli(torch.fft.fft(x).abs())

    model = build("llama")
    model.model.layers[0].mlp.act_fn = Odd()
    model.model.layers[1].mlp.act_fn = Odd()
    with pytest.raises(UnsupportedModelError) as caught:
        imported(model)
    message = str(caught.value)
    assert message.startswith("@prefill: 4 unsupported node(s) of 2 operator(s):")
    assert "aten.fft_fft.default at model.layers.0.mlp.act_fn, test_import_models.py:" in message
    found = [(item.operator, item.node) for item in caught.value.items]
    assert ("aten.bernoulli.default", "model.layers.1.mlp.act_fn") in found
    assert any("random numbers" in str(item.alternative) for item in caught.value.items)


def test_max_seq_beyond_the_models_positions_is_refused() -> None:
    checkpoint = Checkpoint(build("opt"), TokenizerData(), "tiny")
    with pytest.raises(InputError, match="the model has 64 positions"):
        import_checkpoint(checkpoint, max_seq=65, prefill_chunk=8)


def test_windows_and_caps_by_layer() -> None:
    """Gemma 2: every other layer has a window, and all cap their scores; no window is left that never slides."""
    model = imported(AutoModelForCausalLM.from_config(CONFIGS["gemma2"]))
    RaisePass().run(model.module, PassContext())
    found = [op for op in model.module.walk() if isinstance(op, nn.AttentionOp)]
    assert [None if op.window is None else op.window.value.data for op in found] == [6, None] * 2
    assert {None if op.softcap is None else op.softcap.value.data for op in found} == {5.0}
    model = imported(AutoModelForCausalLM.from_config(MistralConfig(**LLAMA_SIZES, sliding_window=MAX_SEQ)))
    RaisePass().run(model.module, PassContext())
    assert {op.window for op in model.module.walk() if isinstance(op, nn.AttentionOp)} == {None}
