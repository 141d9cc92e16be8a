"""The inputs and outputs of an entry point by name and element type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import (
    ArrayAttr,
    BFloat16Type,
    DictionaryAttr,
    Float16Type,
    Float32Type,
    Float64Type,
    IntegerType,
    ModuleOp,
    Signedness,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from pimc.diagnostics import InputError
from pimc.ir.locations import where
from pimc.isa.program import Json
from pimc.ports import ModelPort, Signature

#: Module attribute: entry -> the names and element types of the model's inputs and outputs, before any pass.
ATTRIBUTE = "pim.signature"
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


def is_language_model(module: ModuleOp) -> bool:
    """Whether a module, at any stage, is a language model: it has an entry ``decode``."""
    for op in module.body.block.ops:
        entry = op.properties.get("sym_name" if isinstance(op, FuncOp) else "entry")
        if isinstance(entry, StringAttr) and entry.data == "decode":
            return True
    return False


def state_signatures(module: ModuleOp) -> None:
    """Write the signatures of a module's entries on it, unless it states them: passes change types, and lowering
    leaves no functions.
    """
    functions = [op for op in module.body.block.ops if isinstance(op, FuncOp) and is_entry(op)]
    if ATTRIBUTE in module.attributes or is_language_model(module) or not functions:
        return
    module.attributes[ATTRIBUTE] = DictionaryAttr(
        {function.sym_name.data: _attribute(signature(function).to_json()) for function in functions}
    )


def stated_signatures(module: ModuleOp) -> dict[str, Json] | None:
    """The signatures that a module states, as JSON objects by entry; None where it states none."""
    stated = module.attributes.get(ATTRIBUTE)
    if not isinstance(stated, DictionaryAttr):
        return None
    return {name: _json(value) for name, value in stated.data.items()}


def is_entry(function: FuncOp) -> bool:
    """Whether a function is an entry point: it has a body and is not private."""
    return bool(function.body.blocks) and (function.sym_visibility is None or function.sym_visibility.data == "public")


def _attribute(value: Json) -> Attribute:
    """Objects, lists and texts as an attribute."""
    if isinstance(value, Mapping):
        return DictionaryAttr({key: _attribute(item) for key, item in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ArrayAttr([_attribute(item) for item in value])
    return StringAttr(str(value))


def _json(value: Attribute) -> Json:
    """The inverse of :func:`_attribute`; None for anything else."""
    if isinstance(value, DictionaryAttr):
        return {key: _json(item) for key, item in value.data.items()}
    if isinstance(value, ArrayAttr):
        return [_json(item) for item in value.data]
    return value.data if isinstance(value, StringAttr) else None


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
