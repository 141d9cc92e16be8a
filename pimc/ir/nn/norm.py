"""Normalisations: RMS norm, layer norm, softmax."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override
from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType, f32
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from pimc.ir.nn.base import (
    IntegerAttrI64,
    NnOp,
    Value,
    axis_index,
    check,
    check_float,
    check_shape,
    construct,
    integer,
    shape_of,
    tensor_of,
)
from pimc.ir.nn.space import Space, along


@irdl_op_definition
class RmsNormOp(NnOp):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension; weight ``[F]``.

    Definition: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """

    name = "nn.rms_norm"

    x = operand_def(TensorType)
    weight = operand_def(TensorType)
    eps = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, weight: Value, eps: float) -> None:
        construct(self, [x, weight], {"eps": FloatAttr(eps, f32)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, weight = tensor_of(self.x, "nn.rms_norm x"), tensor_of(self.weight, "nn.rms_norm weight")
        check_float(x, "nn.rms_norm x")
        check(len(x.get_shape()) >= 1, "nn.rms_norm x must have at least one dimension")
        check_shape(weight, (x.get_shape()[-1],), "nn.rms_norm weight")
        return [x]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        return along(shape, len(shape) - 1, 4, vectors=len(self.operands) - 1)


@irdl_op_definition
class LayerNormOp(NnOp):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimension; weight, bias ``[F]``, bias
    optional.

    Definition: Ba, Kiros and Hinton, Layer Normalization, 2016 (population variance).
    """

    name = "nn.layer_norm"

    x = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    eps = prop_def(FloatAttr[Float32Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, weight: Value, bias: Value | None, eps: float) -> None:
        construct(self, [x, weight, [bias] if bias is not None else []], {"eps": FloatAttr(eps, f32)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, weight = tensor_of(self.x, "nn.layer_norm x"), tensor_of(self.weight, "nn.layer_norm weight")
        check_float(x, "nn.layer_norm x")
        check(len(x.get_shape()) >= 1, "nn.layer_norm x must have at least one dimension")
        check_shape(weight, (x.get_shape()[-1],), "nn.layer_norm weight")
        if self.bias is not None:
            check_shape(tensor_of(self.bias, "nn.layer_norm bias"), (x.get_shape()[-1],), "nn.layer_norm bias")
        return [x]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        return along(shape, len(shape) - 1, 7, vectors=len(self.operands) - 1)


@irdl_op_definition
class SoftmaxOp(NnOp):
    """``exp(x - max) / sum(exp(x - max))`` along ``axis``."""

    name = "nn.softmax"

    x = operand_def(TensorType)
    axis = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, axis: int = -1) -> None:
        construct(self, [x], {"axis": integer(axis)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, "nn.softmax x")
        check_float(x, "nn.softmax x")
        axis_index(self.axis.value.data, len(x.get_shape()), "nn.softmax axis")
        return [x]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        return along(shape, axis_index(self.axis.value.data, len(shape)), 5)
