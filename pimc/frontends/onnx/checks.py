"""Whether a model is what it says: its opset, its nodes, and their types and shapes, by `onnx` itself."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from math import prod
from typing import Final

import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, checker, shape_inference

from pimc.diagnostics import InputError
from pimc.frontends.onnx.limits import MAX_RANK, subgraphs
from pimc.frontends.onnx.nodes import node_name, schema_of

_OLDEST: Final = 7
"""Before it operators broadcast by attributes of their own."""


def check_texts(model: onnx.ModelProto, where: str | None) -> None:
    """InputError for a name or another text that is not UTF-8: protobuf hands those on as bytes."""
    messages: list[Message] = [model]
    while messages:
        message = messages.pop()
        kind = message.DESCRIPTOR.full_name.rpartition(".")[2]
        for name, nested in _text_fields(message.DESCRIPTOR):
            value = getattr(message, name)
            if nested:
                inner: Iterable[Message] = [value] if isinstance(value, Message) else value
                messages.extend(item for item in inner if item.ByteSize())
                continue
            texts: Iterable[str | bytes] = [value] if isinstance(value, str | bytes) else value
            wrong = next((text for text in texts if isinstance(text, bytes)), None)
            if wrong is not None:
                raise InputError(f"the field {name} of a {kind} is not UTF-8 text: {wrong[:60]!r}", where=where)


@cache
def _text_fields(descriptor: Descriptor) -> tuple[tuple[str, bool], ...]:
    """The fields of a message that are texts, and (True) those that are messages and may hold some."""
    texts, messages = FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE
    return tuple((field.name, field.type == messages) for field in descriptor.fields if field.type in (texts, messages))


def check_opset(model: onnx.ModelProto, where: str | None) -> None:
    """InputError for a model of an opset that is too new, or with a node whose definition has changed since."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _OLDEST)
    if opset > onnx.defs.onnx_opset_version():
        raise InputError(
            f"the model needs opset {opset}; the installed onnx knows up to {onnx.defs.onnx_opset_version()}",
            hint="install a newer onnx, or export with an older opset",
            where=where,
        )
    for node in model.graph.node if opset < _OLDEST else ():
        schema = schema_of(node, {"": _OLDEST})
        if schema is None or schema.since_version > opset:
            raise InputError(
                f"node {node_name(node)!r} is {node.op_type} of opset {opset}; {_OLDEST} is the oldest that is read",
                hint="convert the model with onnx.version_converter",
                where=where,
            )


def check(model: onnx.ModelProto, where: str | None = None) -> None:
    """Let `onnx` check the model and infer its shapes; InputError with what it finds.

    Values are not propagated: `onnx` would allocate what a model says it computes.  Import finds what depends on them.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in light.graph.initializer:
        _strip(tensor)
    _check_nodes(light, where)
    _write_defaults(light)
    try:
        shape_inference.infer_shapes(light, check_type=True, strict_mode=True)
    except shape_inference.InferenceError as error:
        raise InputError(f"the model is inconsistent: {reason(error)}", where=where) from error
    except (RuntimeError, ValueError, checker.ValidationError) as error:
        raise InputError(f"the model is malformed: {reason(error)}", where=where) from error


def _check_nodes(model: onnx.ModelProto, where: str | None) -> None:
    """Inference trusts the number of inputs and the axes of nodes: wrong ones may end the process."""
    versions = opsets_of(model)
    for nodes in (model.graph.node, *(graph.node for graph in subgraphs(model.graph.node))):
        for node in nodes:
            problem = _misfit(node, schema_of(node, versions))
            if problem is not None:
                raise InputError(f"node {node_name(node)!r} ({node.op_type}) {problem}", where=where)


def _misfit(node: onnx.NodeProto, schema: onnx.defs.OpSchema | None) -> str | None:
    """What is wrong with the numbers of a node's inputs and outputs, or its axes."""
    bounds = _bounds(node)
    for attribute in node.attribute:
        if attribute.name in bounds:
            low, high = bounds[attribute.name]
            wrong = [number for number in (attribute.i, *attribute.ints) if not low <= number <= high]
            if wrong:
                return f"has {attribute.name} {wrong[0]}"
        if node.op_type == "Einsum" and not attribute.s.isascii():
            return f"has an {attribute.name} of other characters than letters"
    if schema is None:
        return None
    if not schema.min_input <= len(node.input) <= schema.max_input:
        return f"has {len(node.input)} inputs"
    if not schema.min_output <= len(node.output) <= schema.max_output:
        return f"has {len(node.output)} outputs"
    pairs = zip(schema.inputs, node.input, strict=False)
    empty = [
        port.name for port, name in pairs if not name and port.option == onnx.defs.OpSchema.FormalParameterOption.Single
    ]
    return f"has no input {empty[0]}" if empty else None


def _bounds(node: onnx.NodeProto) -> dict[str, tuple[int, int]]:
    """Least and greatest value of integer attributes that inference does not check."""
    axes = (-MAX_RANK, MAX_RANK)
    return {"axis": axes, "axes": axes, "batch_dims": (0, MAX_RANK), "num_outputs": (len(node.output),) * 2}


def opsets_of(model: onnx.ModelProto) -> dict[str, int]:
    """Domain -> version; the standard domain is ""."""
    return {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in model.opset_import}


def _strip(tensor: TensorProto) -> None:
    """Leave out the contents of a large tensor: shapes are inferred from small ones only."""
    if prod(tensor.dims) > 1024:
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT


def _write_defaults(model: onnx.ModelProto) -> None:
    """Write out default attributes of operators that are functions: `onnx` infers their bodies without them."""
    versions = opsets_of(model)
    for node in model.graph.node:
        schema = schema_of(node, versions)
        if schema is not None and schema.has_function:
            given = {attribute.name for attribute in node.attribute}
            defaults = {name: attribute.default_value for name, attribute in schema.attributes.items()}
            node.attribute.extend(value for name, value in defaults.items() if name not in given and value.type)


def reason(error: Exception) -> str:
    """The line of an error of `onnx` that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    wanted = [line for line in lines if "rror" in line and not line.startswith("==>")]
    return (wanted or lines or [type(error).__name__])[-1][:300]
