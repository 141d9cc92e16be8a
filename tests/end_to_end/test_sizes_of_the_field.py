"""Models at the width that they have in the field, against PyTorch: what one core's memory cannot hold whole."""

from __future__ import annotations

import numpy as np
import pytest

import pimc

#: |result - PyTorch fp32| where the root mean square is near 1: docs/numerics.md.
BOUND = 1 / 64


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "batch", "tokens"), [(12, 1, 128), (2, 1, 512), (1, 4, 128), (1, 4, 512)])
def test_bert_base(layers: int, batch: int, tokens: int) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(num_hidden_layers=layers)).eval()
    ids = torch.randint(3, 30000, (batch, tokens))
    with torch.no_grad():
        expected = model(ids).last_hidden_state.numpy()
    result = pimc.compile(model, (ids,)).run({"input_ids": ids.numpy()})
    assert np.abs(next(iter(result.outputs.values())) - expected).max() < BOUND


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        (12, {}),
        (1, {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}),
    ],
)
def test_vision_transformers(layers: int, sizes: dict[str, int]) -> None:
    """ViT-B/16 and a layer of L/16 at 224: 196 patches and the class token."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(num_hidden_layers=layers, **sizes)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model(x).last_hidden_state.numpy()
    result = pimc.compile(model, (x,)).run({"pixel_values": x.numpy()})
    assert np.abs(next(iter(result.outputs.values())) - expected).max() < BOUND


def test_a_small_vision_transformer() -> None:
    """An image that is cut by rows, patches joined with a class token, classes from its row."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=272, num_labels=10
    )
    model = transformers.ViTForImageClassification(config).eval()
    x = torch.randn(1, 3, 272, 272)
    with torch.no_grad():
        expected = model(x).logits.numpy()
    result = pimc.compile(model, (x,)).run({"pixel_values": x.numpy()})
    error = np.abs(next(iter(result.outputs.values())) - expected).max() / np.sqrt((expected**2).mean())
    assert error < BOUND


def test_a_multilayer_perceptron_with_64_rows() -> None:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1024, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 1024)).eval()
    x = torch.randn(64, 1024)
    with torch.no_grad():
        expected = model(x).numpy()
    executable = pimc.compile(model, (x,))
    error = np.abs(executable(x.numpy()) - expected).max() / np.sqrt((expected**2).mean())
    assert error < BOUND
