"""ONNX decoders with a cache -> the entry points ``prefill`` and ``decode`` over state on the device.

Each entry is the model's graph for its number of tokens (:mod:`pimc.frontends.onnx.caches`), imported like any other;
then masks follow the position (:mod:`pimc.frontends.decoder_masks`) and functions of the position alone become tables
(:mod:`pimc.frontends.position_tables`).
"""

from __future__ import annotations

from pathlib import Path

import onnx
from xdsl.dialects.func import FuncOp
from xdsl.transforms.common_subexpression_elimination import cse

from pimc.diagnostics import InputError
from pimc.frontends.decoder_masks import mask_by_position
from pimc.frontends.decoder_state import decoder_module
from pimc.frontends.huggingface import tokenizer_beside
from pimc.frontends.model import ImportedModel
from pimc.frontends.onnx.caches import DecoderGraph, specialise
from pimc.frontends.onnx.checks import check, opsets_of
from pimc.frontends.onnx.converters import CONVERTERS
from pimc.frontends.onnx.elements import Array
from pimc.frontends.onnx.function import build_main, port_attributes
from pimc.frontends.onnx.graph import GraphBuilder
from pimc.frontends.onnx.load import prepare, stored_tensors
from pimc.frontends.position_tables import tabulate
from pimc.frontends.weights import ModelWeights


def import_decoder(
    model: onnx.ModelProto,
    decoder: DecoderGraph,
    folder: Path | None,
    where: str | None,
    *,
    max_seq: int,
    prefill_chunk: int,
) -> ImportedModel:
    """Import a decoder; ``max_seq`` and ``prefill_chunk`` as in :func:`pimc.frontends.import_model`.

    InputError where its caches differ from layer to layer, or it does not follow the position as a decoder does.
    """
    slots = -(-max_seq // prefill_chunk) * prefill_chunk
    first = decoder.caches[0]
    if any((cache.kv_heads, cache.head_dim) != (first.kv_heads, first.head_dim) for cache in decoder.caches):
        raise InputError("the layers have caches of different shapes", where=where)
    weights = ModelWeights({})
    tensors = stored_tensors(model, folder, where)
    check(model, where)
    name = model.graph.name or "model"
    sizes = {"layers": decoder.layers, "kv_heads": first.kv_heads, "head_dim": first.head_dim}
    module = decoder_module(name, sizes | {"max_seq": slots, "prefill_chunk": prefill_chunk})
    for entry, tokens in (("prefill", prefill_chunk), ("decode", 1)):
        graph = specialise(model, decoder, tokens, slots, select=entry == "prefill")
        module.body.block.add_op(_entry(graph, entry, tokens, slots, tensors, weights, where))
    tokenizer = tokenizer_beside(folder)
    return ImportedModel(
        module,
        weights,
        tokenizer.tokenizer_json,
        tokenizer.chat_template,
        tokenizer.eos_ids,
        tokenizer.special,
        name,
    )


def _entry(
    graph: onnx.ModelProto,
    entry: str,
    tokens: int,
    slots: int,
    tensors: dict[str, Array],
    weights: ModelWeights,
    where: str | None,
) -> FuncOp:
    """The function of one entry point."""
    fixed = prepare(graph, {}, where)
    function = build_main(fixed.graph, tensors, {}, GraphBuilder(weights, CONVERTERS, opsets_of(fixed)), entry)
    position = function.body.block.args[1]
    found = mask_by_position(function, position, tokens, slots)
    if found == 0:
        raise InputError("no attention over the caches is found", where=where)
    cse(function)  # exporters compute cosines and sines anew in every layer
    tabulate(function, position, weights, slots)
    names = ("tokens", "position", "length")[: len(function.body.block.args)]
    function.properties["arg_attrs"] = port_attributes(names)
    function.properties["res_attrs"] = port_attributes(["logits"])
    return function
