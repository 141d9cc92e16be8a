"""ONNX decoders: past keys and values that enter, present ones that leave, become state that stays on the device.

A decoder exported with a cache has inputs ``past_key_values.<layer>.key`` (``[1, Hkv, P, D]``) and outputs
``present.<layer>.key`` (``[1, Hkv, P + M, D]``), each present a concatenation of its past and the keys of this call.
Here the graph is rewritten for one number of tokens M: the concatenation becomes ``pimc.CacheUpdate``, which writes
the new keys at the position and gives all slots of a static cache; pasts and presents go, a scalar ``position`` comes,
and where the graph asks for position ids they follow from it.  Names do not matter, only how values are connected.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pimc.diagnostics import InputError

TOKENS, POSITION, LENGTH, LOGITS = (f"{name}_of_pimc" for name in ("tokens", "position", "length", "logits"))
"""Values of the rewritten graph: its inputs and its output, by names that no model has."""

POSITIONS: Final = "positions_of_pimc"
"""The value with the positions of a call's tokens, ``[1, M]`` i64."""

DOMAIN: Final = "pimc"
"""Domain of the operators that only this rewriting makes; see :mod:`pimc.frontends.onnx.decoder_ops`."""

_INTEGERS: Final = (TensorProto.INT64, TensorProto.INT32)


@dataclass(frozen=True)
class Cache:
    """A past input and its present output; ``symbol`` is k_cache or v_cache, ``axis`` that of the tokens."""

    past: str
    present: str
    symbol: str
    layer: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True)
class DecoderGraph:
    """What the inputs and outputs of a decoder are: names in the graph."""

    tokens: str
    position_ids: str | None
    attention_mask: str | None
    logits: str
    caches: tuple[Cache, ...]

    @property
    def layers(self) -> int:
        """Layers with a cache."""
        return len(self.caches) // 2


def find_decoder(model: onnx.ModelProto) -> tuple[onnx.ModelProto, DecoderGraph] | None:
    """The decoder in a model, and the model in a form in which every cache is a concatenation; None if no input is
    concatenated with new keys or values to an output.

    InputError where there are caches but the rest is not what a decoder has.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    found = _find(plain)
    return None if found is None else (plain, found)


def _find(model: onnx.ModelProto) -> DecoderGraph | None:
    if not any(_is_tokens(value) for value in model.graph.input):
        return None  # attention alone, not a decoder
    _drop_copies(model.graph)
    _split_fused(model)
    graph = model.graph
    inputs = {value.name: value for value in graph.input}
    outputs = {value.name for value in graph.output}
    found: list[tuple[str, str]] = []
    for node in graph.node:
        if node.op_type == "Concat" and len(node.input) == 2 and node.input[0] in inputs and _axis(node) in (2, -2):
            present = _output_of(graph, node.output[0], outputs)
            if present is not None:
                found.append((node.input[0], present))
    if not found:
        return None
    pasts = {past for past, _ in found}
    rest = [value for value in graph.input if value.name not in pasts]
    logits = [value.name for value in graph.output if value.name not in {present for _, present in found}]
    if len(found) % 2 or len(logits) != 1:
        raise InputError(
            f"a decoder with {len(found)} caches and the outputs {', '.join(logits) or 'none'} besides them",
            hint="a decoder has keys and values of every layer as inputs and outputs, and the logits",
        )
    tokens, position_ids, mask = _roles(rest)
    caches = _caches(found, inputs)
    return DecoderGraph(tokens, position_ids, mask, logits[0], caches)


def _drop_copies(graph: onnx.GraphProto) -> None:
    """Leave out ``Identity`` nodes (but those that make an output): unoptimised exports are full of them."""
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return  # a branch may use the names of copies
    outputs = {value.name for value in graph.output}
    source: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = source.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            source[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 0)


def _output_of(graph: onnx.GraphProto, value: str, outputs: set[str]) -> str | None:
    """``value`` if it is an output of the graph, or the output that is a copy of it."""
    if value in outputs:
        return value
    copies = (node.output[0] for node in graph.node if node.op_type == "Identity" and value in node.input)
    return next((copy for copy in copies if copy in outputs), None)


def _caches(found: list[tuple[str, str]], inputs: dict[str, onnx.ValueInfoProto]) -> tuple[Cache, ...]:
    """Keys and values of the layers in the order of the inputs: by their names, else by turns."""
    order = {name: index for index, name in enumerate(inputs)}
    caches: list[Cache] = []
    counts = {"k_cache": 0, "v_cache": 0}
    for number, (past, present) in enumerate(sorted(found, key=lambda item: order[item[0]])):
        words = re.findall("key|value", past.lower().replace("key_value", ""))
        symbol = f"{words[-1][0]}_cache" if words else ("k_cache", "v_cache")[number % 2]
        dims = inputs[past].type.tensor_type.shape.dim
        if len(dims) != 4 or dims[1].dim_value < 1 or dims[3].dim_value < 1:
            raise InputError(
                f"the cache {past!r} is not [batch, key/value heads, tokens, head dimension] with known heads",
                hint="export with fixed numbers of heads",
            )
        caches.append(Cache(past, present, symbol, counts[symbol], dims[1].dim_value, dims[3].dim_value))
        counts[symbol] += 1
    if counts["k_cache"] != counts["v_cache"]:
        raise InputError(f"{counts['k_cache']} caches of keys and {counts['v_cache']} of values")
    return tuple(caches)


def _is_tokens(value: onnx.ValueInfoProto) -> bool:
    """Whether an input is token ids, by its type and name."""
    name = value.name.lower()
    named = ("token" in name or "input" in name or "ids" in name) and "position" not in name and "mask" not in name
    return named and value.type.tensor_type.elem_type in _INTEGERS


def _roles(rest: list[onnx.ValueInfoProto]) -> tuple[str, str | None, str | None]:
    """Names of token ids, position ids and attention mask among the inputs that are no caches."""
    tokens = position_ids = mask = None
    unknown: list[str] = []
    for value in rest:
        name = value.name.lower()
        integer = value.type.tensor_type.elem_type in _INTEGERS
        if "mask" in name:
            mask = value.name
        elif "position" in name and integer:
            position_ids = value.name
        elif tokens is None and _is_tokens(value):
            tokens = value.name
        else:
            unknown.append(value.name)
    if tokens is None or unknown:
        raise InputError(
            f"a decoder with the input {unknown[0]!r}, whose role is not known" if unknown else "no input of token ids",
            hint="inputs of a decoder are input_ids, attention_mask, position_ids and past keys and values",
        )
    return tokens, position_ids, mask


def _split_fused(model: onnx.ModelProto) -> None:
    """Attention with past keys and values: the concatenation becomes a node of its own."""
    nodes: list[onnx.NodeProto] = []
    _import_domain(model)
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.domain == "com.microsoft" and node.op_type == "GroupQueryAttention" and len(node.input) > 4:
            _split_grouped(nodes, node, attributes)
        elif _is_fused(node):
            _split_attention(nodes, node, attributes)
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _import_domain(model: onnx.ModelProto) -> None:
    if not any(opset.domain == DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _is_fused(node: onnx.NodeProto) -> bool:
    standard = node.op_type == "Attention" and node.domain in ("", "ai.onnx")
    return standard and len(node.input) > 5 and bool(node.input[4]) and len(node.output) == 3


def _split_attention(nodes: list[onnx.NodeProto], node: onnx.NodeProto, attributes: dict[str, object]) -> None:
    """The standard's operator: keys and values by head, or with heads folded (``kv_num_heads``)."""
    heads = attributes.get("kv_num_heads", 0)
    joined: list[str] = []
    for index in (1, 2):
        new = node.input[index]
        if isinstance(heads, int) and heads:
            new = _split_heads(nodes, new, heads)
        nodes.append(helper.make_node("Concat", [node.input[index + 3], new], [node.output[index]], axis=2))
        joined.append(_merge_heads(nodes, node.output[index]) if heads else node.output[index])
    plain = _attention([node.input[0], *joined, *list(node.input[3:4])], node, node.output[0])
    plain.attribute.extend(node.attribute)
    nodes.append(plain)


def _attention(inputs: list[str], node: onnx.NodeProto, output: str) -> onnx.NodeProto:
    """Attention of this call's queries over all slots: ``Attention`` whose last query is that of the last key."""
    made = helper.make_node("CachedAttention", inputs, [output], domain=DOMAIN)
    made.name = node.name
    return made


def _split_grouped(nodes: list[onnx.NodeProto], node: onnx.NodeProto, attributes: dict[str, object]) -> None:
    """ONNX Runtime's operator: queries, keys and values with folded heads (or packed), rotated here if it says so."""
    if attributes.get("smooth_softmax", 0):
        raise InputError(f"GroupQueryAttention {node.name!r} with smooth_softmax is not supported in a decoder")
    if any(node.input[10:]):
        raise InputError(
            f"GroupQueryAttention {node.name!r} with the input {next(filter(None, node.input[10:]))!r} is not "
            "supported in a decoder",
            hint="inputs up to the position ids",
        )
    heads, kv_heads = (_count(node, attributes, name) for name in ("num_heads", "kv_num_heads"))
    if len(node.output) < 3:
        raise InputError(f"GroupQueryAttention {node.name!r} has a past, but no present keys and values")
    query, key, value = node.input[:3]
    if not key:  # packed: queries, keys and values behind each other
        packed, query, key, value = query, *(f"{node.output[0]}/{part}" for part in "qkv")
        by_head = _split_heads(nodes, packed, heads + 2 * kv_heads)
        sizes = _constant(nodes, f"{packed}/sizes", np.array([heads, kv_heads, kv_heads], np.int64))
        parts = [f"{name}/by_head" for name in (query, key, value)]
        nodes.append(helper.make_node("Split", [by_head, sizes], parts, axis=1))
    else:
        parts = [_split_heads(nodes, name, n) for name, n in ((query, heads), (key, kv_heads), (value, kv_heads))]
    if attributes.get("do_rotary"):
        parts[:2] = [_rotated(nodes, part, node, attributes) for part in parts[:2]]
    joins = zip(node.input[3:5], parts[1:], node.output[1:3], strict=True)
    nodes.extend(helper.make_node("Concat", [past, new], [present], axis=2) for past, new, present in joins)
    attended = f"{node.output[0]}/by_head"
    plain = _attention([parts[0], node.output[1], node.output[2]], node, attended)
    plain.attribute.append(helper.make_attribute("is_causal", 1))
    for name in ("scale", "softcap"):
        number = attributes.get(name, 0.0)
        if isinstance(number, float) and number:
            plain.attribute.append(helper.make_attribute(name, number))
    window = attributes.get("local_window_size", -1)
    if isinstance(window, int) and window > 0:  # it counts the query's own key
        plain.attribute.append(helper.make_attribute("left_window_size", window - 1))
    nodes.append(plain)
    merged = _merge_heads(nodes, attended)
    nodes.append(helper.make_node("Identity", [merged], [node.output[0]]))


def _count(node: onnx.NodeProto, attributes: dict[str, object], name: str) -> int:
    found = attributes.get(name)
    if not isinstance(found, int) or found < 1:
        raise InputError(f"{node.op_type} {node.name!r} has no valid {name}")
    return found


def _rotated(nodes: list[onnx.NodeProto], value: str, node: onnx.NodeProto, attributes: dict[str, object]) -> str:
    """``[1, H, M, D]`` turned by the rows of the operator's tables that the tokens' positions choose."""
    if len(node.input) < 9 or not node.input[7]:
        raise InputError(f"GroupQueryAttention {node.name!r} rotates without tables of cosines and sines")
    rotated = f"{value}/rotated"
    inputs = [value, node.input[7], node.input[8], POSITIONS]
    turned = helper.make_node("RotaryEmbedding", inputs, [rotated], interleaved=attributes.get("rotary_interleaved", 0))
    turned.name = node.name
    nodes.append(turned)
    return rotated


def _split_heads(nodes: list[onnx.NodeProto], value: str, heads: int) -> str:
    """``[1, M, H*D]`` -> ``[1, H, M, D]``."""
    shape = _constant(nodes, f"{value}/heads", np.array([0, 0, heads, -1], np.int64))
    nodes.append(helper.make_node("Reshape", [value, shape], [f"{value}/split"]))
    nodes.append(helper.make_node("Transpose", [f"{value}/split"], [f"{value}/by_head"], perm=[0, 2, 1, 3]))
    return f"{value}/by_head"


def _merge_heads(nodes: list[onnx.NodeProto], value: str) -> str:
    """``[1, H, N, D]`` -> ``[1, N, H*D]``."""
    shape = _constant(nodes, f"{value}/merged", np.array([0, 0, -1], np.int64))
    nodes.append(helper.make_node("Transpose", [value], [f"{value}/by_token"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", [f"{value}/by_token", shape], [f"{value}/folded"]))
    return f"{value}/folded"


def _constant(nodes: list[onnx.NodeProto], name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name)))
    return name


def specialise(
    model: onnx.ModelProto, decoder: DecoderGraph, tokens: int, slots: int, *, select: bool
) -> onnx.ModelProto:
    """The graph for calls of ``tokens`` tokens over caches of ``slots`` positions.

    Its inputs are the tokens ``[1, M]`` i32, the position ``[1]`` i32 and, with ``select``, the length ``[1]`` i32; its
    output is the logits (of token ``length - 1`` alone with ``select``).
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    by_past = {cache.past: cache for cache in decoder.caches}
    presents = {cache.present for cache in decoder.caches}
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    nodes = _entry_nodes(decoder, types, tokens, slots)
    for cache in decoder.caches:  # only the shape of a past is asked for from here on
        size = np.array([1, cache.kv_heads, slots - tokens, cache.head_dim], np.int64)
        shape = _constant(nodes, f"{cache.past}/shape", size)
        nodes.append(helper.make_node("ConstantOfShape", [shape], [cache.past]))
    for node in graph.node:
        if node.op_type == "Concat" and node.input and node.input[0] in by_past:
            nodes.append(_update(by_past[node.input[0]], node, slots))
        elif not (node.op_type == "Identity" and node.output[0] in presents):
            nodes.append(node)
    if select:
        nodes.append(helper.make_node("SelectToken", [decoder.logits, LENGTH], [LOGITS], domain=DOMAIN))
    else:
        nodes.append(helper.make_node("Identity", [decoder.logits], [LOGITS]))
    del graph.node[:]
    graph.node.extend(nodes)
    _ports(graph, tokens, select)
    _import_domain(changed)
    return changed


def _entry_nodes(decoder: DecoderGraph, types: dict[str, int], tokens: int, slots: int) -> list[onnx.NodeProto]:
    """Token ids, position ids and attention mask (in their types) from the entry's inputs."""
    nodes = [
        helper.make_node("Cast", [TOKENS], [decoder.tokens], to=types[decoder.tokens]),
        helper.make_node("Positions", [POSITION], [f"{POSITIONS}/i32"], domain=DOMAIN, count=tokens),
        helper.make_node("Cast", [f"{POSITIONS}/i32"], [POSITIONS], to=TensorProto.INT64),
    ]
    if decoder.position_ids is not None:
        nodes.append(helper.make_node("Cast", [POSITIONS], [decoder.position_ids], to=types[decoder.position_ids]))
    if decoder.attention_mask is not None:
        ones = _constant(nodes, f"{decoder.attention_mask}/ones", np.ones((1, slots), np.int64))
        nodes.append(helper.make_node("Cast", [ones], [decoder.attention_mask], to=types[decoder.attention_mask]))
    return nodes


def _update(cache: Cache, node: onnx.NodeProto, slots: int) -> onnx.NodeProto:
    made = helper.make_node(
        "CacheUpdate", [node.input[1], POSITION], [node.output[0]], domain=DOMAIN,
        symbol=cache.symbol, layer=cache.layer, slots=slots,
    )  # fmt: skip
    made.name = node.name
    return made


def _ports(graph: onnx.GraphProto, tokens: int, select: bool) -> None:
    shapes = {TOKENS: [1, tokens], POSITION: [1], **({LENGTH: [1]} if select else {})}
    del graph.input[:]
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT32, dims) for name, dims in shapes.items())
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, None))
    del graph.value_info[:]
