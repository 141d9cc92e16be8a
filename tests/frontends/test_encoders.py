"""Hugging Face encoders by configuration: folders, models in memory, sentence embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    CLIPVisionConfig,
    ConvNextConfig,
    DebertaV2Config,
    DeiTConfig,
    Dinov2Config,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    ResNetConfig,
    RobertaConfig,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
)

from pimc.diagnostics import InputError, UsageError
from pimc.frontends import ImportedModel, import_model
from pimc.frontends.encoders import TEXT_TYPES
from pimc.ir.interpreter import Interpreter

SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 20, "pad_token_id": 1,
}  # fmt: skip
TEXT: dict[str, PretrainedConfig] = {"bert": BertConfig(**SIZES), "roberta": RobertaConfig(**SIZES)}
VIT = ViTConfig(
    hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=8
)


SIDES = {**SIZES, "max_position_embeddings": 32}
IMAGES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
OTHERS: dict[str, PretrainedConfig] = {
    "albert": AlbertConfig(**SIDES, embedding_size=16),
    "deberta-v2": DebertaV2Config(
        **SIDES, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=8, bos_token_id=1
    ),
    "electra": ElectraConfig(**SIDES, embedding_size=16),
    "modernbert": ModernBertConfig(
        **SIDES, global_attn_every_n_layers=1, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2
    ),
    "mpnet": MPNetConfig(**SIDES),
    "clip": CLIPVisionConfig(**IMAGES, image_size=16, patch_size=8),
    "convnext": ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, image_size=32),
    "deit": DeiTConfig(**IMAGES, image_size=16, patch_size=8),
    "dinov2": Dinov2Config(**IMAGES, image_size=16, patch_size=8),
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]),
    "siglip": SiglipVisionConfig(**IMAGES, image_size=16, patch_size=8),
    "swin": SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=2),
}


def build(config: PretrainedConfig) -> torch.nn.Module:
    torch.manual_seed(5)
    model: torch.nn.Module = AutoModel.from_config(config).eval()
    return model


def run(model: ImportedModel, **inputs: torch.Tensor) -> dict[str, np.ndarray]:
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return Interpreter(model.module, model.weights, "f32").call("main", arrays)


def text(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(2, 60, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    mask[-1, tokens - 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", TEXT)
def test_a_folder_of_a_text_encoder(name: str, tmp_path: Path) -> None:
    model = build(TEXT[name])
    model.save_pretrained(tmp_path / name)
    imported = import_model(tmp_path / name, max_seq=64, shapes={"input_ids": (2, 7)})
    assert imported.name == name
    inputs = text(2, 7)
    with torch.no_grad():
        wanted = model(**inputs)
    found = run(imported, **inputs)
    for key in ("last_hidden_state", "pooler_output"):
        np.testing.assert_allclose(found[key], wanted[key].numpy(), atol=1e-4)


@pytest.mark.parametrize("name", OTHERS)
def test_other_encoders_in_memory(name: str) -> None:
    model = build(OTHERS[name])
    shape = (2, 9) if name in TEXT_TYPES else (2, 3, 32, 32) if name in ("convnext", "resnet") else (2, 3, 16, 16)
    inputs = text(2, 9) if name in TEXT_TYPES else {"pixel_values": torch.randn(shape)}
    imported = import_model(model, max_seq=64, shapes={next(iter(inputs)): shape})
    with torch.no_grad():
        wanted = model(**inputs).last_hidden_state.numpy()
    np.testing.assert_allclose(run(imported, **inputs)["last_hidden_state"], wanted, atol=1e-4)


def test_the_longest_sequence_is_the_models() -> None:
    for name, longest in (("bert", 20), ("roberta", 18)):
        model = import_model(build(TEXT[name]), max_seq=64)
        assert run(model, **text(1, longest))["last_hidden_state"].shape == (1, longest, 32)
        with pytest.raises(UsageError, match=f"up to {longest}|input_ids of shape 1,30"):
            import_model(build(TEXT[name]), max_seq=64, shapes={"input_ids": (1, 30)})


def test_an_image_encoder() -> None:
    model = build(VIT)
    imported = import_model(model, max_seq=64, shapes={"pixel_values": (2, 3, 16, 16)})
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        wanted = model(pixels).last_hidden_state.numpy()
    np.testing.assert_allclose(run(imported, pixel_values=pixels)["last_hidden_state"], wanted, atol=1e-4)
    with pytest.raises(UsageError, match="has no input 'input_ids'"):
        import_model(model, max_seq=64, shapes={"input_ids": (1, 4)})


def test_a_checkpoint_without_the_pooler(tmp_path: Path) -> None:
    BertForMaskedLM(TEXT["bert"]).save_pretrained(tmp_path)
    found = run(import_model(tmp_path, max_seq=6), **text(1, 6))
    assert list(found) == ["last_hidden_state"]


def sentence_folder(path: Path, steps: list[str], pooling: str) -> torch.nn.Module:
    """A folder as sentence-transformers writes it."""
    model = build(TEXT["bert"])
    model.save_pretrained(path)
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, pooling: True}))
    modules = [{"idx": i, "type": f"sentence_transformers.models.{step}"} for i, step in enumerate(steps)]
    (path / "modules.json").write_text(json.dumps(modules))
    return model


def test_sentence_embeddings(tmp_path: Path) -> None:
    model = sentence_folder(tmp_path, ["Transformer", "Pooling", "Normalize"], "pooling_mode_mean_tokens")
    inputs = text(2, 6)
    found = run(import_model(tmp_path, max_seq=6, shapes={"input_ids": (2, 6)}), **inputs)
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    for row, mask in enumerate(inputs["attention_mask"].bool()):
        mean = hidden[row, mask].mean(0)
        np.testing.assert_allclose(found["sentence_embedding"][row], (mean / mean.norm()).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "pooling", "message"),
    [
        (["Transformer", "Pooling"], "pooling_mode_max_tokens", "pooling by pooling_mode_max_tokens"),
        (["Transformer", "Pooling", "Dense"], "pooling_mode_mean_tokens", "the steps Transformer, Pooling, Dense"),
    ],
)
def test_other_ways_to_sentences_are_refused(tmp_path: Path, steps: list[str], pooling: str, message: str) -> None:
    sentence_folder(tmp_path, steps, pooling)
    with pytest.raises(InputError, match=message):
        import_model(tmp_path, max_seq=6)
