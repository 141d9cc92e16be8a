"""A function with one operator, written as text and read again, run by the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    BFloat16Type,
    IndexType,
    IntegerType,
    ModuleOp,
    Signedness,
    TensorType,
    f16,
    f32,
    f64,
    i1,
    i8,
    i16,
    i32,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from pimc.ir.context import parse_module, print_module
from pimc.ir.interpreter import Interpreter, Precision
from pimc.ir.interpreter.core import held_dtype
from pimc.ir.nn.source import Element

Array = npt.NDArray[Any]
Typed = tuple[str, npt.ArrayLike]
"""An operand: its element type's name and its values."""

ELEMENTS: dict[str, Element] = {
    "f16": f16,
    "bf16": BFloat16Type(),
    "f32": f32,
    "f64": f64,
    "i1": i1,
    "i8": i8,
    "i16": i16,
    "i32": i32,
    "i64": i64,
    **{f"ui{width}": IntegerType(width, Signedness.UNSIGNED) for width in (8, 16, 32, 64)},
    "index": IndexType(),
}
FLOATS = ("f16", "bf16", "f32", "f64")
INTEGERS = ("i8", "i16", "i32", "i64", "ui8", "ui16", "ui32", "ui64")


def value(element: str, *shape: int) -> SSAValue:
    """A value of that type and shape."""
    return Block(arg_types=[TensorType(ELEMENTS[element], shape)]).args[0]


def module_of(types: list[Attribute], build: Callable[..., Operation]) -> ModuleOp:
    """A verified module whose function has the one operator, read again from its text."""
    block = Block(arg_types=types)
    op = build(*block.args)
    block.add_ops([op, ReturnOp(*op.results)])
    results = [result.type for result in op.results]
    module = ModuleOp([FuncOp("main", (types, results), Region(block))])
    text = print_module(module)
    again = parse_module(text)
    assert print_module(again) == text
    return again


def run_all(build: Callable[..., Operation], *operands: Typed, precision: Precision = "f32") -> list[Array]:
    """All results of the operator on the operands; each has the shape of its type."""
    types: list[Attribute] = [TensorType(ELEMENTS[name], np.shape(array)) for name, array in operands]
    module = module_of(types, build)
    inputs = {
        f"arg{index}": np.asarray(array, dtype=held_dtype(ELEMENTS[name]))
        for index, (name, array) in enumerate(operands)
    }
    interpreter = Interpreter(module, precision=precision)
    results = list(interpreter.call("main", inputs).values())
    for result, type_ in zip(results, interpreter.function("main").function_type.outputs.data, strict=True):
        assert isinstance(type_, TensorType)
        assert result.shape == type_.get_shape()
        if precision == "f32":
            assert result.dtype == held_dtype(type_.element_type)
    return results


def run(build: Callable[..., Operation], *operands: Typed, precision: Precision = "f32") -> Array:
    """The only result of the operator on the operands."""
    (result,) = run_all(build, *operands, precision=precision)
    return result
