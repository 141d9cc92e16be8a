"""The inputs and outputs of an entry point by name and element type."""

from __future__ import annotations

from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    DictionaryAttr,
    Float16Type,
    Float32Type,
    Float64Type,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from pimc.diagnostics import InputError
from pimc.ir.locations import where
from pimc.ports import ModelPort, Signature

#: Entries that make a language model: a module without them is a function of tensors.
LANGUAGE_ENTRIES = frozenset({"prefill", "decode"})
_FLOATS = ((Float16Type, "f16"), (BFloat16Type, "bf16"), (Float32Type, "f32"), (Float64Type, "f64"))


def port_names(attributes: ArrayAttr[DictionaryAttr] | None, count: int, fallback: str) -> list[str]:
    """Names of arguments or results: their ``pimc.name``, else ``fallback`` with the number."""
    names = [f"{fallback}{index}" for index in range(count)]
    for index, attribute in enumerate(attributes or ()):
        name = attribute.data.get("pimc.name")
        if isinstance(name, StringAttr):
            names[index] = name.data
    return names


def input_names(function: FuncOp) -> list[str]:
    """Names of the arguments of an entry."""
    return port_names(function.arg_attrs, len(function.function_type.inputs), "input")


def output_names(function: FuncOp) -> list[str]:
    """Names of the results of an entry; the one of a language model's is "logits" if it has none."""
    names = port_names(function.res_attrs, len(function.function_type.outputs), "output")
    return ["logits"] if names == ["output0"] and function.sym_name.data in LANGUAGE_ENTRIES else names


def signature(function: FuncOp) -> Signature:
    """The inputs and outputs of an entry; InputError where one is no tensor of numbers."""
    sides = (
        (input_names(function), function.function_type.inputs),
        (output_names(function), function.function_type.outputs),
    )
    return Signature(
        *(
            tuple(ModelPort(name, _element(type_, name, function)) for name, type_ in zip(names, types, strict=True))
            for names, types in sides
        )
    )


def _element(type_: Attribute, name: str, function: FuncOp) -> str:
    element = type_.element_type if isinstance(type_, TensorType) else None
    if isinstance(element, IntegerType):
        sign = "u" if element.signedness.data is Signedness.UNSIGNED else ""
        return f"{sign}i{element.width.data}"
    for class_, text in _FLOATS:
        if isinstance(element, class_):
            return text
    entry = function.sym_name.data
    raise InputError(f"{name!r} of entry {entry!r} is {type_}, no tensor of numbers", where=where(function))
