"""Decoders of `transformers` exported to ONNX with a growing cache, as model hubs publish them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def export_onnx(model: torch.nn.Module, path: Path, *, opset: int, optimize: bool = True) -> None:
    """Write ``model`` (a causal language model) to ``path``, its weights as external data beside it.

    Inputs are input_ids, attention_mask, position_ids and past keys and values ``[1, Hkv, past, D]`` of every layer;
    outputs the logits and present keys and values; tokens and past have symbolic sizes.
    """
    import torch
    from transformers.cache_utils import DynamicCache

    config = model.config
    layers, heads = int(config.num_hidden_layers), int(config.num_key_value_heads)
    size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)

    class Entry(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            position_ids: torch.Tensor,
            past_key_values: list[tuple[torch.Tensor, torch.Tensor]],
        ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
            cache = DynamicCache(past_key_values)
            output = self.model(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
                past_key_values=cache, use_cache=True,
            )  # fmt: skip
            return output.logits, [(layer.keys, layer.values) for layer in cache.layers]

    tokens, past = 3, 5
    example = (
        torch.zeros(1, tokens, dtype=torch.long),
        torch.ones(1, tokens + past, dtype=torch.long),
        torch.arange(past, past + tokens)[None],
        [(torch.zeros(1, heads, past, size), torch.zeros(1, heads, past, size)) for _ in range(layers)],
    )
    dynamic = torch.export.Dim.DYNAMIC
    shapes = {
        "input_ids": {1: dynamic},
        "attention_mask": {1: dynamic},
        "position_ids": {1: dynamic},
        "past_key_values": [({2: dynamic}, {2: dynamic}) for _ in range(layers)],
    }
    pairs = [f"{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Entry().eval(), example, dynamo=True, dynamic_shapes=shapes, opset_version=opset, optimize=optimize,
            input_names=["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{p}" for p in pairs)],
            output_names=["logits", *(f"present.{p}" for p in pairs)],
        )  # fmt: skip
        program.save(str(path), external_data=True)
