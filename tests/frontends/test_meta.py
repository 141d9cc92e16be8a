"""Models on PyTorch's meta device: shapes without values can be imported and inspected, not compiled."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PretrainedConfig

import pimc
from pimc.diagnostics import InputError
from pimc.frontends import import_model
from pimc.ir.context import verify_module
from pimc.passes.base import PassContext
from pimc.passes.raise_ops import RaisePass

CONFIGS: dict[str, PretrainedConfig] = {
    "opt": OPTConfig(
        vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, word_embed_proj_dim=32,
    ),
    "llama": LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_module_as_with_values(name: str) -> None:
    real = import_model(AutoModelForCausalLM.from_config(CONFIGS[name]), max_seq=16, prefill_chunk=4)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS[name])
    bare = import_model(model, max_seq=16, prefill_chunk=4)
    assert str(bare.module) == str(real.module)
    assert list(bare.weights.names()) == list(real.weights.names())
    for weight in real.weights.names():
        assert bare.weights.shape(weight) == real.weights.shape(weight)
        assert not bare.weights.has_values(weight)
    RaisePass().run(bare.module, PassContext())
    verify_module(bare.module)


def test_asking_for_values_is_an_error() -> None:
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
        inputs = (torch.ones(2, 4),)
    imported = import_model(model, max_seq=8, example_inputs=inputs)
    assert imported.weights.shape("0.weight^T") == (4, 3)
    with pytest.raises(InputError, match=r"'0\.weight' has a shape and no values: the model is on the meta device"):
        imported.weights["0.weight"]
    with pytest.raises(InputError, match="has a shape and no values"):
        pimc.compile(model, inputs)


@pytest.mark.slow
def test_opt_30b_in_a_minute_and_4_gb() -> None:
    """OPT-30B's shape: 48 layers of 7168."""
    script = Path(__file__).parents[2] / "benchmarks" / "import_large.py"
    run = subprocess.run([sys.executable, script, "--json"], check=True, capture_output=True, text=True)
    found = json.loads(run.stdout)
    assert found["entries"] == ["prefill", "decode"]
    assert found["parameters"] > 29e9
    assert found["seconds"] < 60
    assert found["gigabytes"] < 4
