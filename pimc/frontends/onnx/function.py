"""The function of an ONNX graph: its inputs become arguments, its outputs results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, StringAttr, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Region

from pimc.diagnostics import InputError
from pimc.frontends.onnx.elements import Array, element_of
from pimc.frontends.onnx.graph import GraphBuilder
from pimc.frontends.unsupported import UnsupportedError, UnsupportedItem, UnsupportedModelError
from pimc.ir.locations import set_location, source_location


def build_main(
    graph: onnx.GraphProto,
    initializers: Mapping[str, Array],
    bind: Mapping[str, Array],
    builder: GraphBuilder,
    name: str = "main",
) -> FuncOp:
    """The function of a graph; UnsupportedModelError with everything that has no conversion."""
    inputs = _declare(graph, initializers, bind, builder)
    builder.convert_all(graph.node)
    if builder.items:
        raise UnsupportedModelError(
            builder.items,
            hint="docs/onnx.md says what is supported, and how to add an operator",
        )
    place = source_location(graph.name or name)
    try:
        results = [builder.value(output.name, place) for output in graph.output]
    except UnsupportedError as error:
        raise InputError(error.reason, hint=error.alternative) from error
    builder.add(ReturnOp(*results), place)
    types = FunctionType.from_lists([arg.type for arg in builder.block.args], [value.type for value in results])
    outputs = [output.name for output in graph.output]
    function = FuncOp(name, types, Region(builder.block), arg_attrs=port_attributes(inputs))
    function.properties["res_attrs"] = port_attributes(outputs)
    return set_location(function, place)


def port_attributes(names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    """The names of a function's arguments or results, as an attribute."""
    return ArrayAttr([DictionaryAttr({"pimc.name": StringAttr(name)}) for name in names])


def _declare(
    graph: onnx.GraphProto, initializers: Mapping[str, Array], bind: Mapping[str, Array], builder: GraphBuilder
) -> list[str]:
    """Arguments of the function for the inputs that are neither bound nor stored; their names."""
    builder.budget.stored = sum(array.size for array in initializers.values())
    for name, array in initializers.items():
        builder.define_known(name, array, stored=True)
    inputs: list[str] = []
    for value in graph.input:
        if value.name in bind:
            builder.define_known(value.name, bind[value.name])
        elif value.name not in initializers:
            try:
                type_ = _input_type(value)
            except UnsupportedError as error:
                item = UnsupportedItem("input", value.name, None, error.reason, error.alternative)
                builder.refuse(item, [value.name])
                continue
            argument = builder.block.insert_arg(type_, len(builder.block.args))
            argument.location = source_location(value.name)
            builder.define(value.name, argument, frozenset({value.name}))
            inputs.append(value.name)
    return inputs


def _input_type(value: onnx.ValueInfoProto) -> TensorType[Attribute]:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        name = str(kind).removesuffix("_type").replace("_", " ")
        raise UnsupportedError(f"an input that is a {name}", "inputs that are tensors")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise InputError(f"the input {value.name!r} has no shape", hint=f"give it one: --shape {value.name}=1,128")
    return TensorType(element_of(tensor.elem_type), [dim.dim_value for dim in tensor.shape.dim])
