"""From the model's fp32 to the hardware's fp16: element types of the whole module."""

from __future__ import annotations

from typing import Final

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    Float32Type,
    FunctionType,
    ModuleOp,
    TensorType,
    f16,
)
from xdsl.dialects.func import FuncOp
from xdsl.dialects.ml_program import GlobalOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import Rewriter

from pimc.ir import nn
from pimc.ir.locations import with_location

_FLOAT16_MAX: Final = 65504.0


def narrow(module: ModuleOp) -> None:
    """Every f32 tensor becomes an f16 tensor; constants saturate at the largest fp16 number."""
    for op in list(module.walk()):
        if isinstance(op, nn.ConstantOp) and isinstance(op.value.get_element_type(), Float32Type):
            _narrow_constant(op)
        elif isinstance(op, GlobalOp):
            op.properties["type"] = _narrowed(op.type)
        else:
            _narrow_values(op)


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
    values = np.asarray(op.value.get_values(), dtype=np.float64).reshape(nn.tensor_of(op.result).get_shape())
    values = np.clip(values, -_FLOAT16_MAX, _FLOAT16_MAX)
    Rewriter.replace_op(op, with_location(nn.ConstantOp.from_array(values, f16), op))


def _retype(value: SSAValue) -> None:
    narrowed = _narrowed(value.type)
    if narrowed is not value.type:
        Rewriter.replace_value_with_new_type(value, narrowed)


def _narrowed(type_: Attribute) -> Attribute:
    if isinstance(type_, TensorType) and isinstance(type_.element_type, Float32Type):
        return TensorType(f16, type_.shape, type_.encoding)
    return type_
