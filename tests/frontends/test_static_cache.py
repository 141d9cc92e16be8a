"""Decoders that `transformers` exports with a static cache: one entry ``decode``, with PyTorch's logits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.integrations.executorch import convert_and_export_with_cache

from pimc.diagnostics import InputError
from pimc.frontends import import_model
from pimc.ir.context import verify_module
from pimc.ir.interpreter import Interpreter
from pimc.passes.base import PassContext
from pimc.passes.raise_ops import RaisePass

SLOTS = 12


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def file(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = {"batch_size": 1, "max_cache_len": SLOTS, "device": "cpu"}
    model.generation_config = GenerationConfig(
        use_cache=True, cache_implementation="static", max_length=SLOTS, cache_config=cache
    )
    path = tmp_path_factory.mktemp("decoder") / "llama.pt2"
    torch.export.save(convert_and_export_with_cache(model), path)
    return path


def test_decode_gives_the_logits_of_the_model(model: LlamaForCausalLM, file: Path) -> None:
    imported = import_model(file, max_seq=64)
    ids = torch.randint(3, 61, (1, SLOTS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(ids).logits[0].numpy()
    for raised in (False, True):
        if raised:
            RaisePass(precision="f32").run(imported.module, PassContext())
        verify_module(imported.module)
        interpreter = Interpreter(imported.module, imported.weights, "f32")
        for place in range(SLOTS):
            inputs = {"tokens": ids[:, place : place + 1].int().numpy(), "position": np.array([place], np.int32)}
            (found,) = interpreter.call("decode", inputs).values()
            np.testing.assert_allclose(found.reshape(-1), wanted[place], atol=1e-3)
    counts = Counter(op.name for op in imported.module.walk())
    assert (counts["nn.attention"], counts["nn.cache_write"], counts["nn.rope"]) == (2, 4, 4)
    assert "model.layers.0.self_attn.q_proj.weight" in imported.weights


class Cached(torch.nn.Module):
    """A decoder in form, that takes two tokens at a time."""

    def __init__(self) -> None:
        super().__init__()
        for kind in ("key", "value"):
            self.register_buffer(f"{kind}_cache_0", torch.zeros(1, 2, 8, 4))

    def forward(self, tokens: Tensor, position: Tensor) -> Tensor:
        chunk = tokens[:, None, :, None].expand(1, 2, 2, 4).float()
        return self.key_cache_0.index_copy_(2, position, chunk) + self.value_cache_0.index_copy_(2, position, chunk)


def test_several_tokens_at_a_time_are_refused() -> None:
    inputs = (torch.ones(1, 2, dtype=torch.long), torch.arange(2))
    program = torch.export.export(Cached(), inputs, strict=False)
    with pytest.raises(InputError, match=r"takes inputs of the shapes \(1, 2\), \(2,\)"):
        import_model(program, max_seq=8)
