"""Decoders of `transformers` exported to ONNX with a growing cache, as model hubs publish them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

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


def grouped_query_decoder(*, packed: bool, seed: int = 0, **attributes: object) -> onnx.ModelProto:
    """A decoder as ONNX Runtime's tools make them: ``GroupQueryAttention`` with past and present and its own rotation.

    2 layers without feed-forward, hidden 64, 4 query and 2 key/value heads of 16, vocabulary 96; ``attributes`` are
    further ones of the operator.
    """
    rng = np.random.default_rng(seed)
    hidden, heads, kv_heads, size, vocab, layers = 64, 4, 2, 16, 96, 2
    nodes: list[onnx.NodeProto] = []
    tensors: list[TensorProto] = []

    def stored(name: str, array: np.ndarray) -> str:
        tensors.append(numpy_helper.from_array(array, name))
        return name

    def weight(name: str, *shape: int) -> str:
        return stored(name, (rng.standard_normal(shape) / shape[0] ** 0.5).astype(np.float32))

    def node(operator: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, list(outputs), domain=domain, name=outputs[0], **attributes))
        return outputs[0]

    angle = np.arange(64)[:, None] / 10000.0 ** (np.arange(size // 2) / (size // 2))
    tables = [stored(name, wave(angle).astype(np.float32)) for name, wave in (("cos", np.cos), ("sin", np.sin))]
    total = node("ReduceSum", ["attention_mask", stored("one", np.array([1], np.int64))], "total", keepdims=1)
    last = node("Cast", [node("Sub", [total, "one"], "less")], "last", to=TensorProto.INT32)
    length = node("Cast", [node("Gather", [node("Shape", ["attention_mask"], "shape"), "one"], "size")], "length", to=6)
    x = node("Gather", [weight("embed", vocab, hidden), "input_ids"], "x0")
    caches: list[str] = []
    for layer in range(layers):
        widths = {"q": heads * size, "k": kv_heads * size, "v": kv_heads * size}
        parts = [node("MatMul", [x, weight(f"w{k}{layer}", hidden, n)], f"{k}{layer}") for k, n in widths.items()]
        if packed:
            parts = [node("Concat", parts, f"qkv{layer}", axis=-1), "", ""]
        past = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
        caches += past
        out = node(
            "GroupQueryAttention", [*parts, *past, last, length, *tables], f"attended{layer}",
            *(name.replace("past_key_values", "present") for name in past), domain="com.microsoft",
            num_heads=heads, kv_num_heads=kv_heads, do_rotary=1, **attributes,
        )  # fmt: skip
        x = node("Add", [x, node("MatMul", [out, weight(f"wo{layer}", hidden, hidden)], f"o{layer}")], f"x{layer + 1}")
    node("MatMul", [x, weight("head", hidden, vocab)], "logits")
    i64, f32 = TensorProto.INT64, TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("input_ids", i64, [1, "tokens"])]
    inputs.append(helper.make_tensor_value_info("attention_mask", i64, [1, "total"]))
    inputs += [helper.make_tensor_value_info(name, f32, [1, kv_heads, "past", size]) for name in caches]
    outputs = [helper.make_tensor_value_info("logits", f32, [1, "tokens", vocab])]
    presents = [name.replace("past_key_values", "present") for name in caches]
    outputs += [helper.make_tensor_value_info(name, f32, [1, kv_heads, "total", size]) for name in presents]
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
