"""Decoders that `transformers` exports with a static cache -> the entry point ``decode`` over state on the device.

``transformers.integrations.executorch.convert_and_export_with_cache`` makes such a program, and
``torch.export.save`` a ``.pt2`` file of it: it takes one token (``[1, 1]``) and its position (``[1]``), and keeps keys
and values of all positions in buffers ``key_cache_<layer>`` and ``value_cache_<layer>`` of shape ``[1, Hkv, S, D]``.
The buffers become the state of the program, as in :mod:`pimc.frontends.torch_export`; counters of the length, which
each call sets to the position anew, become the position.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pimc.diagnostics import InputError
from pimc.frontends.aten import CONVERTERS
from pimc.frontends.decoder_state import decoder_module
from pimc.frontends.fx_state import state_names, weight_array
from pimc.frontends.fx_values import CacheRef, mutates, static_shape, target_of
from pimc.frontends.graph import GraphImporter
from pimc.frontends.huggingface import tokenizer_beside
from pimc.frontends.model import ImportedModel
from pimc.frontends.tabulate import assign_columns, evaluate_tables, find_tabulated
from pimc.frontends.weights import ModelWeights, check_all_fp16
from pimc.ir import nn

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.export.graph_signature import ExportGraphSignature

_CACHE: Final = re.compile(r"(?P<kind>key|value)_cache_(?P<layer>\d+)")
_SYMBOLS: Final = {"key": "k_cache", "value": "v_cache"}
_WRITE: Final = "aten.index_copy_.default"


@dataclass(frozen=True)
class _Program:
    """An exported program with a graph of its own; what the importer and the tables read of one."""

    graph: torch.fx.Graph
    graph_signature: ExportGraphSignature
    state_dict: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]
    call_spec: object


def cache_buffers(program: ExportedProgram) -> dict[str, CacheRef]:
    """The buffers that are caches, by path; empty for a program that is no such decoder."""
    found = {path: match for path in program.graph_signature.buffers if (match := _CACHE.fullmatch(path))}
    return {path: CacheRef(_SYMBOLS[match["kind"]], int(match["layer"])) for path, match in found.items()}


def import_static_decoder(program: ExportedProgram, name: str, folder: Path | None = None) -> ImportedModel:
    """Import a decoder with a static cache; the tokenizer is taken from ``folder`` if one is there.

    InputError where its inputs or caches are not those of one token of one sequence.
    """
    caches = cache_buffers(program)
    tensors = {**program.state_dict, **program.constants}
    shapes = {static_shape(tensors[path].shape) for path in caches}
    if len(shapes) != 1 or len(caches) % 2 or next(iter(shapes))[0] != 1:
        raise InputError(f"the caches have the shapes {sorted(shapes)}, not one for all layers and one sequence")
    _, heads, slots, size = shapes.pop()
    layers = len(caches) // 2
    prefix = "model" if all(path.startswith("model.") for path in program.graph_signature.parameters) else ""
    names = {path: canonical.removeprefix(f"{prefix}.") for path, canonical in state_names(program).items()}
    plain, position = _functional(program)
    weights = ModelWeights({})
    for path in program.graph_signature.parameters:
        if names[path] not in weights:
            weights.add(names[path], weight_array(tensors[path]), absent=tensors[path].is_meta)
    columns = assign_columns(find_tabulated(plain, position))
    for table, value in evaluate_tables(plain, position, columns, slots, 1).items():
        weights.add(table, value)
    sizes = {"layers": layers, "kv_heads": heads, "head_dim": size, "max_seq": slots, "prefill_chunk": 1}
    module = decoder_module(name, sizes)
    importer = GraphImporter(plain, "decode", names, weights, CONVERTERS, columns, prefix, caches=caches)
    module.body.block.add_op(importer.run())
    check_all_fp16(weights, sorted({op.weight_name.data for op in module.walk() if isinstance(op, nn.ParamOp)}))
    found = tokenizer_beside(folder)
    return ImportedModel(module, weights, found.tokenizer_json, found.chat_template, found.eos_ids, found.special, name)


def _functional(program: ExportedProgram) -> tuple[_Program, torch.fx.Node]:
    """The program without counters, with inputs called ``tokens`` and ``position``; and the latter."""
    import torch

    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    output = graph.graph_copy(program.graph, copied)
    graph.output(output)
    plain = _Program(graph, program.graph_signature, program.state_dict, program.constants, program.call_spec)
    users = set(program.graph_signature.user_inputs)
    inputs = [node for node in graph.find_nodes(op="placeholder") if node.name in users]
    by_shape = {tuple(node.meta["val"].shape): node for node in inputs}
    if set(by_shape) != {(1, 1), (1,)} or len(inputs) != 2:
        raise InputError(
            f"the decoder takes inputs of the shapes {', '.join(str(tuple(n.meta['val'].shape)) for n in inputs)}",
            hint="export it for one token and its position: input_ids of shape [1, 1], cache_position of shape [1]",
        )
    by_shape[1, 1]._rename("tokens")
    by_shape[1,]._rename("position")
    _drop_counters(graph)
    return plain, by_shape[1,]


def _drop_counters(graph: torch.fx.Graph) -> None:
    """Replace a counter that is set (``copy_``) by what it is set to, and drop its later increments, which the next
    call would overwrite.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and mutates(node) and target_of(node) != _WRITE and not node.users:
            aliases = _aliases(node.args[0])
            if all(order[user] <= order[node] for alias in aliases for user in alias.users):
                graph.erase_node(node)
    for node in list(graph.nodes):
        if node.op == "call_function" and target_of(node) == "aten.copy_.default":
            buffer, value = node.args[0], node.args[1]
            if buffer.op == "placeholder" and set(buffer.users) == {node}:
                node.replace_all_uses_with(value)
                graph.erase_node(node)


def _aliases(node: torch.fx.Node) -> set[torch.fx.Node]:
    """Nodes that may share memory with ``node``: those its first arguments lead to, and all views of these."""
    import torch

    found: set[torch.fx.Node] = set()
    current: object = node
    while isinstance(current, torch.fx.Node) and current not in found:
        found.add(current)
        current = current.args[0] if current.args else None
    pending = list(found)
    while pending:
        views = {user for user in pending.pop().users if _is_view(user)} - found
        found |= views
        pending.extend(views)
    return found


def _is_view(node: torch.fx.Node) -> bool:
    """Whether an operator's result may share memory with an argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)
