"""ONNX files -> a checked model in memory.

A model file may come from anywhere: everything is bounded and checked before it is used, and external data is read
only from inside the model's folder.  Each problem is an InputError of one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, checker, inliner

from pimc.diagnostics import InputError
from pimc.frontends.onnx.checks import check_opset, check_texts, reason
from pimc.frontends.onnx.elements import NARROW, Array, array_of, element_of
from pimc.frontends.onnx.limits import MAX_FILE, check_functions, check_sizes, inner_tensors
from pimc.frontends.unsupported import UnsupportedError, UnsupportedItem, UnsupportedModelError


def load_model(source: Path | str | onnx.ModelProto) -> tuple[onnx.ModelProto, Path | None]:
    """The model and its folder; InputError names what is wrong with the file."""
    if isinstance(source, onnx.ModelProto):
        check_texts(source, None)
        check_sizes(source, None)
        return source, None
    path = Path(source)
    try:
        if path.stat().st_size > MAX_FILE:
            raise InputError(
                f"the file has {path.stat().st_size} bytes, more than an ONNX model can have",
                hint="save large tensors as external data",
                where=str(path),
            )
        model = onnx.load_model(str(path), load_external_data=False)
    except DecodeError as error:
        raise InputError(
            "not an ONNX model, or a truncated one",
            hint="the file is no protobuf message of the ONNX format",
            where=str(path),
        ) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error
    check_texts(model, str(path))
    if not model.graph.node and not model.graph.output:
        raise InputError("the model has no graph", hint="the file is truncated or no ONNX model", where=str(path))
    check_sizes(model, str(path))
    _embed(model, path.parent, str(path))
    return model, path.parent


def prepare(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], where: str | None = None) -> onnx.ModelProto:
    """The model with its functions inlined and the shapes of its inputs fixed, checked by `onnx`.

    InputError for a graph that is malformed or has symbolic dimensions left.
    """
    check_opset(model, where)
    if model.functions:
        check_functions(model, where)
        try:
            model = inliner.inline_local_functions(model)
        except (RuntimeError, ValueError, checker.ValidationError) as error:
            raise InputError(f"its functions cannot be inlined: {reason(error)}", where=where) from error
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    _fix_shapes(fixed.graph, shapes, where)
    _check_order(fixed.graph, where)
    return fixed


def _fix_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Sequence[int]], where: str | None) -> None:
    """Set the shapes of inputs; a symbolic dimension has one size wherever its name stands."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in stored}
    unknown = sorted(set(shapes) - set(inputs))
    if unknown:
        raise InputError(
            f"the model has no input {unknown[0]!r} to give a shape", hint=f"it has {', '.join(inputs)}", where=where
        )
    sizes = _given_sizes(inputs, shapes, where)
    open_: list[str] = []
    for value in inputs.values():
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
        if any(not dim.HasField("dim_value") for dim in value.type.tensor_type.shape.dim):
            open_.append(f"{value.name}[{_dims(value)}]")
    if open_:
        first = open_[0].partition("[")[0]
        raise InputError(
            f"inputs without a fixed shape: {', '.join(open_)}", hint=f"fix them: --shape {first}=1,128", where=where
        )
    if shapes:
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def _given_sizes(
    inputs: Mapping[str, onnx.ValueInfoProto], shapes: Mapping[str, Sequence[int]], where: str | None
) -> dict[str, int]:
    """Set the given shapes; sizes of symbolic dimensions by name.  InputError where they do not fit."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        dims = inputs[name].type.tensor_type.shape.dim
        declared = inputs[name].type.tensor_type.HasField("shape")
        if declared and len(dims) != len(shape):
            raise InputError(
                f"the input {name!r} has {len(dims)} dimensions, the given shape {len(shape)}", where=where
            )
        for dim, size in zip(dims, shape, strict=False):
            if dim.dim_param and sizes.setdefault(dim.dim_param, size) != size:
                raise InputError(f"dimension {dim.dim_param!r} is given two sizes", where=where)
            if dim.dim_value and dim.dim_value != size:
                raise InputError(f"the input {name!r} has {dim.dim_value} where {size} is given", where=where)
            dim.dim_value = size
        if not declared:
            dims.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shape)
    return sizes


def _dims(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return ",".join(str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


def _check_order(graph: onnx.GraphProto, where: str | None) -> None:
    """Every value is defined once, before it is used."""
    defined = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input} | {""}
    defined |= {tensor.values.name for tensor in graph.sparse_initializer}
    later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name not in defined:
                what = "is computed from itself (the graph has a cycle)" if name in later else "is not defined"
                raise InputError(f"the input {name!r} of node {node.name or node.op_type!r} {what}", where=where)
        repeated = [name for name in node.output if name and name in defined]
        if repeated:
            raise InputError(f"the value {repeated[0]!r} is defined twice", where=where)
        defined.update(node.output)
    for value in graph.output:
        if value.name not in defined:
            raise InputError(f"the output {value.name!r} is not defined", where=where)


# -- stored tensors ---------------------------------------------------------------------------------------------------


def stored_tensors(model: onnx.ModelProto, folder: Path | None, where: str | None = None) -> dict[str, Array]:
    """The model's tensors by name; external ones are mapped from files inside ``folder``.

    Raises InputError for missing or outside files and contents that do not fit; UnsupportedModelError for element
    types without an equivalent here.
    """
    items: list[UnsupportedItem] = []
    found: dict[str, Array] = {}
    quantised = _only_dequantised(model.graph)
    for tensor in model.graph.initializer:
        try:
            if tensor.name in quantised and tensor.data_type in NARROW:
                found[tensor.name] = _widened(tensor, folder, where)
            else:
                found[tensor.name] = _values(tensor, folder, where)
        except UnsupportedError as error:
            items.append(UnsupportedItem("initializer", tensor.name, None, error.reason, error.alternative))
    items += [
        UnsupportedItem("initializer", tensor.values.name, None, "a sparse tensor", "a dense tensor")
        for tensor in model.graph.sparse_initializer
    ]
    if items:
        raise UnsupportedModelError(items, where=where)
    return found


def _only_dequantised(graph: onnx.GraphProto) -> set[str]:
    """Tensors that nothing but ``DequantizeLinear`` reads: their values matter, not their element type."""
    inputs = [(node, name) for node in graph.node for name in node.input]
    dequantised = {name for node, name in inputs if node.op_type == "DequantizeLinear"}
    return dequantised - {name for node, name in inputs if node.op_type != "DequantizeLinear"}


def _widened(tensor: TensorProto, folder: Path | None, where: str | None) -> Array:
    """Numbers of less than 8 bits, or floats of 8, in the next wider type that numpy has."""
    whole = TensorProto()
    whole.CopyFrom(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        _read(whole, folder, where)
    try:
        array: Array = onnx.numpy_helper.to_array(whole).astype(NARROW[tensor.data_type])
    except ValueError as error:
        raise InputError(f"the values of tensor {tensor.name!r} do not fill its shape", where=where) from error
    return array


def _embed(model: onnx.ModelProto, folder: Path, where: str) -> None:
    """Read external tensors inside nodes into the model: only initializers of the graph itself are mapped."""
    total = 0
    for tensor in inner_tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            _read(tensor, folder, where)
            total += len(tensor.raw_data)
            if total > MAX_FILE:
                raise InputError(f"the nodes have external tensors of more than {MAX_FILE} bytes", where=where)


def _read(tensor: TensorProto, folder: Path | None, where: str | None) -> None:
    """Put external data into the tensor itself; its size is checked when the values are used."""
    path, offset, length = _place(tensor, folder, where)
    if length is None:
        length = prod(tensor.dims) * 8  # no element is larger
    length = min(length, path.stat().st_size - offset)
    if length > MAX_FILE:
        raise InputError(f"tensor {tensor.name!r} has {length} external bytes; {MAX_FILE} is the limit", where=where)
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _place(tensor: TensorProto, folder: Path | None, where: str | None) -> tuple[Path, int, int | None]:
    """File, offset and length (if it is given) of external data."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _inside(folder, entries.get("location", ""), tensor.name, where)
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries["length"]) if "length" in entries else None
    except ValueError:
        offset, length = -1, None
    if offset < 0 or (length is not None and not 0 <= length <= path.stat().st_size):
        raise InputError(f"the external data of tensor {tensor.name!r} has no valid place", where=where)
    return path, offset, length


def _values(tensor: TensorProto, folder: Path | None, where: str | None) -> Array:
    external = tensor.data_location == TensorProto.EXTERNAL
    return _external(tensor, folder, where) if external else array_of(tensor, where)


def _external(tensor: TensorProto, folder: Path | None, where: str | None) -> Array:
    """The values of an initializer in a file beside the model, mapped."""
    element_of(tensor.data_type)
    path, offset, length = _place(tensor, folder, where)
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    size = prod(tensor.dims) * dtype.itemsize
    if length not in (None, size) or offset + size > path.stat().st_size:
        raise InputError(
            f"tensor {tensor.name!r} needs bytes {offset} to {offset + size} of {path.name}, "
            f"which has {path.stat().st_size}",
            where=where,
        )
    if size == 0:
        return np.zeros(tuple(tensor.dims), dtype)
    return np.memmap(path, dtype, "r", offset, tuple(tensor.dims))


def _inside(folder: Path | None, location: str, name: str, where: str | None) -> Path:
    """The file of external data; InputError unless it exists inside the model's folder, links followed."""
    if folder is None:
        raise InputError(
            f"tensor {name!r} is in an external file, and the model has no folder",
            hint="give the path of the model's file",
            where=where,
        )
    if "\0" in location:
        raise InputError(f"the external data of tensor {name!r} has no valid place: {location!r}", where=where)
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or not path.is_relative_to(root) or path == root:
        raise InputError(
            f"the external data of tensor {name!r} is outside the model's folder: {location!r}", where=where
        )
    if not path.is_file():
        raise InputError(
            f"the external data of tensor {name!r} is missing: {location}",
            hint="keep the model's data files beside it",
            where=where,
        )
    return path
