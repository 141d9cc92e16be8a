"""Importing a few layers and repeating the last gives the module that importing all of them gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from model_families import DECODERS
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from pimc.frontends import import_model, importer
from pimc.frontends.depth import EXPORTED, stack_of
from pimc.ir.context import verify_module

LAYERS = 6
LLAMA = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip


def build(config: PretrainedConfig) -> torch.nn.Module:
    config.num_hidden_layers = LAYERS
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1] * LAYERS
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def whole(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> str:
    """The module of an export of all layers."""
    with monkeypatch.context() as patch:
        patch.setattr(importer, "stack_of", lambda model: None)
        return str(import_model(model, max_seq=16, prefill_chunk=4).module)


#: Families of every run, of layers alike, of two kinds, and with biases; the others' are slow tests.
QUICK = ("llama", "gemma2", "opt")


@pytest.mark.parametrize(
    "family", [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in DECODERS]
)
def test_the_same_as_all_layers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(DECODERS[family]())
    stack = stack_of(model)
    assert stack is not None
    assert stack.count == LAYERS > EXPORTED
    imported = import_model(model, max_seq=16, prefill_chunk=4)
    verify_module(imported.module)
    assert str(imported.module) == whole(model, monkeypatch)


def _wider(model: torch.nn.Module) -> None:
    model.model.layers[4].mlp.up_proj = torch.nn.Linear(32, 48, bias=True)


def _scaled(model: torch.nn.Module) -> None:
    model.model.layers[4].self_attn.scaling = 0.5


def _replaced(model: torch.nn.Module) -> None:
    model.model.layers[5].mlp.act_fn = torch.nn.Tanh()


def _hooked(model: torch.nn.Module) -> None:
    model.model.layers[5].mlp.register_forward_hook(lambda module, inputs, output: output * 2)


def _patched(model: torch.nn.Module) -> None:
    mlp = model.model.layers[5].mlp
    mlp.forward = lambda x: x


def _buffered(model: torch.nn.Module) -> None:
    for index, layer in enumerate(model.model.layers):
        layer.mlp.register_buffer("bias", torch.full((2,), float(index == 4)))


@pytest.mark.parametrize("change", [_wider, _scaled, _replaced, _hooked, _patched, _buffered])
def test_layers_that_differ_are_all_exported(
    change: Callable[[torch.nn.Module], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(LlamaConfig(**LLAMA))
    assert stack_of(model) is not None
    change(model)
    assert stack_of(model) is None


def test_a_difference_that_only_the_graph_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of one make that count themselves: what the first do does not say what the others do."""
    model = build(LlamaConfig(**LLAMA))
    kind = type(model.model.layers[0].mlp)
    plain = kind.forward
    for index, layer in enumerate(model.model.layers):
        layer.mlp.layer_idx = index
    monkeypatch.setattr(kind, "forward", lambda self, x: plain(self, x) * (1.0 + self.layer_idx))
    assert stack_of(model) is not None
    imported = import_model(model, max_seq=16, prefill_chunk=4)
    assert str(imported.module) == whole(model, monkeypatch)


def test_the_model_is_left_as_it_was() -> None:
    model = build(LlamaConfig(**LLAMA))
    layers = list(model.model.layers)
    import_model(model, max_seq=16, prefill_chunk=4)
    assert list(model.model.layers) == layers
