"""What an ONNX node says by itself: what it reads, where it comes from, what it holds; and how it is reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import AttributeProto, defs, helper

from pimc.frontends.onnx.elements import Array, array_of
from pimc.frontends.unsupported import UnsupportedError, UnsupportedItem, UnsupportedModelError


def node_name(node: onnx.NodeProto) -> str:
    """The name of a node, or its operator and first output where it has none."""
    return node.name or f"{node.op_type} -> {next((name for name in node.output if name), '?')}"


def domain_of(node: onnx.NodeProto) -> str:
    """The domain of its operator; "" for the standard one."""
    return "" if node.domain == "ai.onnx" else node.domain


def schema_of(node: onnx.NodeProto, opsets: Mapping[str, int]) -> defs.OpSchema | None:
    """The definition of a standard operator in the versions of a model."""
    domain = domain_of(node)
    known = defs.has(node.op_type, opsets.get(domain, 0), domain)
    return defs.get_schema(node.op_type, opsets[domain], domain) if known else None


def source_line(node: onnx.NodeProto) -> str | None:
    """``file.py:12`` from the trace that PyTorch's exporter leaves."""
    trace = next((entry.value for entry in node.metadata_props if entry.key.endswith("stack_trace")), "")
    frames = [line.strip() for line in trace.splitlines() if line.strip().startswith('File "')]
    if not frames:
        return None
    name, _, rest = frames[-1].removeprefix('File "').partition('", line ')
    return f"{name.rsplit('/', maxsplit=1)[-1]}:{rest.split(',')[0]}"


def uses(node: onnx.NodeProto) -> list[str]:
    """Names a node reads, those inside its subgraphs included."""
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.type == AttributeProto.GRAPH else list(attribute.graphs):
            own = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
            for inner in graph.node:
                found.extend(name for name in uses(inner) if name not in own)
                own.update(inner.output)
            found.extend(value.name for value in graph.output if value.name not in own)
    return found


def bound(
    nodes: Iterable[onnx.NodeProto], attributes: Mapping[str, AttributeProto], absent: set[str]
) -> list[onnx.NodeProto]:
    """The nodes of a function with its attributes' values, and without the inputs that are not given."""
    bound: list[onnx.NodeProto] = []
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.attribute[:]
        for attribute in node.attribute:
            if not attribute.ref_attr_name:
                copy.attribute.append(attribute)
            elif attribute.ref_attr_name in attributes:
                given = AttributeProto()
                given.CopyFrom(attributes[attribute.ref_attr_name])
                given.name = attribute.name
                copy.attribute.append(given)
        for index, name in enumerate(copy.input):
            if name in absent:
                copy.input[index] = ""
        bound.append(copy)
    return bound


def constant_of(node: onnx.NodeProto) -> Array:
    """The value of a ``Constant`` node."""
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    match attribute.name:
        case "value":
            return array_of(attribute.t)
        case "value_int" | "value_ints":
            return np.asarray(value, np.int64)
        case "value_float" | "value_floats":
            return np.asarray(value, np.float32)
    raise UnsupportedError(f"a constant given as {attribute.name}", "a dense tensor of numbers")


def unsupported_item(node: onnx.NodeProto, error: Exception) -> UnsupportedItem:
    """A report of a node that cannot be converted."""
    if isinstance(error, UnsupportedError):
        reason, alternative = error.reason, error.alternative
    else:
        told = (str(error).strip().splitlines() or [""])[0]
        reason = f"inputs or attributes that do not fit the operator ({type(error).__name__}: {told})"
        alternative = "nodes as the operator's definition has them; where it has, this is a bug in pimc"
    item = UnsupportedItem(node.op_type, node_name(node), source_line(node), reason, alternative)
    needed: frozenset[str] = getattr(error, "inputs", frozenset())
    return _NeedsItem(item, needed) if needed else item


class _NeedsItem(UnsupportedItem):
    """An unsupported node that would be supported with the values of some graph inputs."""

    def __init__(self, item: UnsupportedItem, inputs: frozenset[str]) -> None:
        super().__init__(item.operator, item.node, item.source_line, item.reason, item.alternative)
        object.__setattr__(self, "inputs", inputs)


def needed_inputs(error: UnsupportedModelError) -> frozenset[str]:
    """The graph inputs whose values would help: those to bind."""
    return frozenset[str]().union(*(getattr(item, "inputs", frozenset()) for item in error.items))
