"""From the model's element types to the hardware's: floats to fp16, integers to 32 bits, of the whole module.

Booleans (i1) stay: the hardware holds them as fp16 numbers 0 and 1, which is the lowering's affair.  Integers of fewer
bits do not wrap where the model's would; results of an entry are taken modulo their width by the host.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    AnyFloat,
    ArrayAttr,
    BFloat16Type,
    Float32Type,
    Float64Type,
    FloatAttr,
    FunctionType,
    IntegerType,
    ModuleOp,
    Signedness,
    TensorType,
    f16,
    f32,
    i32,
)
from xdsl.dialects.func import FuncOp
from xdsl.dialects.ml_program import GlobalOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import Rewriter

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.constants import LARGEST_HALF
from pimc.ir.interpreter.core import dense_values
from pimc.ir.locations import where, with_location

_EXACT: Final = "pim.exact"
"""Attribute of a constant: its one number before it was rounded to fp16."""
_INFINITE: Final = 1e30
"""Numbers of this size stand for infinity (the least number of f32 in a mask)."""
_WIDE_FLOATS: Final = (Float32Type, Float64Type, BFloat16Type)


def narrow(module: ModuleOp) -> None:
    """Every float tensor becomes an f16 tensor, every integer tensor an i32 tensor.

    Finite constants saturate at the largest fp16 number, the limits of an integer type become those of i32.
    Raises InputError for other integer constants beyond i32.
    """
    for op in list(module.walk()):
        if isinstance(op, nn.ConstantOp):
            _narrow_constant(op)
        elif isinstance(op, GlobalOp):
            op.properties["type"] = _narrowed(op.type)
        else:
            _narrow_values(op)
    for op in list(module.walk()):
        if isinstance(op, nn.CastOp) and op.x.type == op.result.type:
            op.result.replace_all_uses_with(op.x)
            Rewriter.erase_op(op)


def _narrow_values(op: Operation) -> None:
    for result in op.results:
        _retype(result)
    for region in op.regions:
        for block in region.blocks:
            for argument in block.args:
                _retype(argument)
    if isinstance(op, FuncOp):
        inputs = [_narrowed(type_) for type_ in op.function_type.inputs]
        outputs = [_narrowed(type_) for type_ in op.function_type.outputs]
        op.properties["function_type"] = FunctionType.from_attrs(ArrayAttr(inputs), ArrayAttr(outputs))


def _narrow_constant(op: nn.ConstantOp) -> None:
    element = op.value.get_element_type()
    to = _element(element)
    if to == element:
        return
    shape = nn.tensor_of(op.result).get_shape()
    if isinstance(element, IntegerType):
        numbers = [_integer(int(value), element, op) for value in op.value.get_values()]
        new = nn.ConstantOp.from_array(np.array(numbers, dtype=np.int64).reshape(shape), i32)
    else:
        values = np.asarray(op.value.get_values(), dtype=np.float64).reshape(shape)
        held = np.where(np.isfinite(values), np.clip(values, -LARGEST_HALF, LARGEST_HALF), values)
        new = nn.ConstantOp.from_array(held, f16)
        if held.size == 1 and float(np.float16(held.item())) != values.item() and abs(values.item()) < _INFINITE:
            new.attributes[_EXACT] = FloatAttr(values.item(), f32)
    Rewriter.replace_op(op, with_location(new, op))


def exact_number(op: nn.ConstantOp) -> npt.NDArray[np.float64]:
    """The number of a constant of one element as the model has it, in f32, in the shape of the constant."""
    exact = op.attributes.get(_EXACT)
    value = exact.value.data if isinstance(exact, FloatAttr) else float(dense_values(op.value).item())
    return np.full(op.value.get_shape(), value)


def _integer(value: int, element: IntegerType, op: Operation) -> int:
    """An element of an integer constant as an i32."""
    unsigned = element.signedness.data is Signedness.UNSIGNED
    bits: int = element.width.data
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if -(2**31) <= value < 2**31:
        return value
    if value not in (low, high):
        raise InputError(f"constant {value} does not fit the hardware's 32-bit integers", where=where(op))
    return -(2**31) if value < 0 else 2**31 - 1


def _retype(value: SSAValue) -> None:
    narrowed = _narrowed(value.type)
    if narrowed is not value.type:
        Rewriter.replace_value_with_new_type(value, narrowed)


def _narrowed(type_: Attribute) -> Attribute:
    if isinstance(type_, TensorType):
        element = _element(type_.element_type)
        if element != type_.element_type:
            return TensorType(element, type_.shape, type_.encoding)
    return type_


def _element(element: Attribute) -> AnyFloat | IntegerType | Attribute:
    """The hardware's element type for one of a model."""
    if isinstance(element, _WIDE_FLOATS):
        return f16
    if isinstance(element, IntegerType) and element.width.data > 1 and element != i32:
        return i32
    return element
