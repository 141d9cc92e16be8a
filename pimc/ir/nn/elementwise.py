"""Elementwise operators: one operand, two operands with numpy broadcasting, comparison, selection,
conversion.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import numpy as np
from typing_extensions import override
from xdsl.dialects.builtin import StringAttr, TensorType, i1
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Commutative, Pure

from pimc.ir.nn.base import (
    Array,
    NnOp,
    OpClass,
    Tensor,
    Value,
    broadcast_shapes,
    check,
    check_float,
    check_same_element,
    construct,
    shape_of,
    tensor_of,
)
from pimc.ir.nn.numeric import divide, erf, gelu, power, reciprocal, sigmoid
from pimc.ir.nn.space import Space, pointwise

UnaryFunction: TypeAlias = Callable[[Array], Array]
BinaryFunction: TypeAlias = Callable[[Array, Array], Array]

PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge")
"""What `nn.compare` can ask."""


def broadcast_type(operands: Sequence[Tensor], element: Attribute) -> Tensor:
    """The broadcast result type."""
    return TensorType(element, broadcast_shapes([operand.get_shape() for operand in operands]))


class UnaryOp(NnOp, ABC):
    """One function of each element; float in, the same type out."""

    FLOPS: ClassVar[int] = 1
    """Flops counted an element (an elementary function counts as one)."""
    FUNCTION: ClassVar[UnaryFunction]
    """What it computes of each element, where no attribute matters (else: :meth:`evaluate`)."""

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value) -> None:
        construct(self, [x])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, f"{self.name} x")
        check_float(x, f"{self.name} x")
        return [x]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(self.x)], shape_of(self.result), self.FLOPS)

    def evaluate(self, x: Array) -> Array:
        """Its meaning in numpy, which the interpreter rounds to the type of the result."""
        return type(self).FUNCTION(x)


class BinaryOp(NnOp, ABC):
    """One function of two elements, broadcast as numpy does; both operands have one element type."""

    BOOLEAN: ClassVar[bool] = True
    """Whether it also works on i1 (a sum is then the logical or, a product the logical and)."""
    FUNCTION: ClassVar[BinaryFunction]
    """What it computes of two elements, where no attribute matters (else: :meth:`evaluate`)."""

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, lhs: Value, rhs: Value) -> None:
        construct(self, [lhs, rhs])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        lhs, rhs = tensor_of(self.lhs, f"{self.name} lhs"), tensor_of(self.rhs, f"{self.name} rhs")
        check_same_element(lhs, rhs, self.name)
        check(self.BOOLEAN or lhs.element_type != i1, f"{self.name} works on numbers, not on i1")
        return [broadcast_type([lhs, rhs], lhs.element_type)]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(self.lhs), shape_of(self.rhs)], shape_of(self.result), 1)

    def evaluate(self, lhs: Array, rhs: Array) -> Array:
        """Its meaning in numpy, which the interpreter rounds to the type of the result."""
        return type(self).FUNCTION(lhs, rhs)


@irdl_op_definition
class SiluOp(UnaryOp):
    """``x / (1 + exp(-x))``."""

    name = "nn.silu"
    FUNCTION: ClassVar[UnaryFunction] = lambda x: x * sigmoid(x)
    FLOPS: ClassVar[int] = 4


@irdl_op_definition
class GeluOp(UnaryOp):
    """Gaussian error linear unit: ``approximate="none"`` ``x * (1 + erf(x / sqrt 2)) / 2``; ``"tanh"``
    ``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2``.

    Definition: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """

    name = "nn.gelu"
    FLOPS: ClassVar[int] = 8

    approximate = prop_def(StringAttr)

    def __init__(self, x: Value, approximate: str = "none") -> None:
        construct(self, [x], {"approximate": StringAttr(approximate)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        form = self.approximate.data
        check(form in ("none", "tanh"), f'nn.gelu approximate must be "none" or "tanh", is "{form}"')
        return super().infer_types()

    @override
    def evaluate(self, x: Array) -> Array:
        return gelu(x, self.approximate.data)


@irdl_op_definition
class ReluOp(UnaryOp):
    """``max(x, 0)``."""

    name = "nn.relu"
    FUNCTION: ClassVar[UnaryFunction] = lambda x: np.maximum(x, np.float32(0))


@irdl_op_definition
class TanhOp(UnaryOp):
    """Hyperbolic tangent."""

    name = "nn.tanh"
    FUNCTION: ClassVar[UnaryFunction] = np.tanh


@irdl_op_definition
class SigmoidOp(UnaryOp):
    """``1 / (1 + exp(-x))``."""

    name = "nn.sigmoid"
    FUNCTION: ClassVar[UnaryFunction] = sigmoid
    FLOPS: ClassVar[int] = 3


@irdl_op_definition
class ExpOp(UnaryOp):
    """``e^x``."""

    name = "nn.exp"
    FUNCTION: ClassVar[UnaryFunction] = np.exp


@irdl_op_definition
class LogOp(UnaryOp):
    """Natural logarithm; NaN below 0, -inf at 0."""

    name = "nn.log"
    FUNCTION: ClassVar[UnaryFunction] = np.log


@irdl_op_definition
class ErfOp(UnaryOp):
    """Error function."""

    name = "nn.erf"
    FUNCTION: ClassVar[UnaryFunction] = erf


@irdl_op_definition
class SqrtOp(UnaryOp):
    """Square root; NaN below 0."""

    name = "nn.sqrt"
    FUNCTION: ClassVar[UnaryFunction] = np.sqrt


@irdl_op_definition
class RsqrtOp(UnaryOp):
    """``1 / sqrt(x)``."""

    name = "nn.rsqrt"
    FUNCTION: ClassVar[UnaryFunction] = lambda x: reciprocal(np.sqrt(x))
    FLOPS: ClassVar[int] = 2


@irdl_op_definition
class RecipOp(UnaryOp):
    """``1 / x``."""

    name = "nn.recip"
    FUNCTION: ClassVar[UnaryFunction] = reciprocal


@irdl_op_definition
class AddOp(BinaryOp):
    """``lhs + rhs``."""

    name = "nn.add"
    FUNCTION: ClassVar[BinaryFunction] = np.add
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class SubOp(BinaryOp):
    """``lhs - rhs``."""

    name = "nn.sub"
    FUNCTION: ClassVar[BinaryFunction] = np.subtract
    BOOLEAN: ClassVar[bool] = False
    traits = traits_def(Pure())


@irdl_op_definition
class MulOp(BinaryOp):
    """``lhs * rhs``."""

    name = "nn.mul"
    FUNCTION: ClassVar[BinaryFunction] = np.multiply
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class DivOp(BinaryOp):
    """``lhs / rhs``; integers are divided towards zero."""

    name = "nn.div"
    FUNCTION: ClassVar[BinaryFunction] = divide
    BOOLEAN: ClassVar[bool] = False
    traits = traits_def(Pure())


@irdl_op_definition
class MaximumOp(BinaryOp):
    """The larger of two; NaN if either is NaN."""

    name = "nn.maximum"
    FUNCTION: ClassVar[BinaryFunction] = np.maximum
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class MinimumOp(BinaryOp):
    """The smaller of two; NaN if either is NaN."""

    name = "nn.minimum"
    FUNCTION: ClassVar[BinaryFunction] = np.minimum
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class PowOp(BinaryOp):
    """``lhs ^ rhs``; the exponent may have another element type, the result has that of lhs."""

    name = "nn.pow"
    FUNCTION: ClassVar[BinaryFunction] = power
    traits = traits_def(Pure())

    @override
    def infer_types(self) -> Sequence[Attribute]:
        lhs, rhs = tensor_of(self.lhs, "nn.pow lhs"), tensor_of(self.rhs, "nn.pow rhs")
        check(lhs.element_type != i1, "nn.pow works on numbers, not on i1")
        return [broadcast_type([lhs, rhs], lhs.element_type)]


@irdl_op_definition
class CompareOp(NnOp):
    """Elementwise comparison to i1: ``predicate`` is one of eq, ne, lt, le, gt, ge."""

    name = "nn.compare"

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    predicate = prop_def(StringAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, lhs: Value, rhs: Value, predicate: str) -> None:
        construct(self, [lhs, rhs], {"predicate": StringAttr(predicate)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        lhs, rhs = tensor_of(self.lhs, "nn.compare lhs"), tensor_of(self.rhs, "nn.compare rhs")
        predicate = self.predicate.data
        check(
            predicate in PREDICATES,
            f"nn.compare predicate {predicate!r} is not one of {', '.join(PREDICATES)}",
        )
        check_same_element(lhs, rhs, "nn.compare")
        return [broadcast_type([lhs, rhs], i1)]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(self.lhs), shape_of(self.rhs)], shape_of(self.result), 1)


@irdl_op_definition
class SelectOp(NnOp):
    """``condition ? a : b`` by element with broadcasting; the condition is i1."""

    name = "nn.select"

    condition = operand_def(TensorType)
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, condition: Value, a: Value, b: Value) -> None:
        construct(self, [condition, a, b])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        condition = tensor_of(self.condition, "nn.select condition")
        a, b = tensor_of(self.a, "nn.select a"), tensor_of(self.b, "nn.select b")
        check(condition.element_type == i1, f"nn.select condition must hold i1, holds {condition.element_type}")
        check_same_element(a, b, "nn.select")
        return [broadcast_type([condition, a, b], a.element_type)]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(value) for value in self.operands], shape_of(self.result))


@irdl_op_definition
class CastOp(NnOp):
    """Conversion of the element type: to a float rounded to nearest even, to an integer towards zero."""

    name = "nn.cast"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, element_type: Attribute) -> None:
        type_ = tensor_of(x, "nn.cast x")
        construct(self, [x], {}, [TensorType(element_type, type_.get_shape())])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, result = tensor_of(self.x, "nn.cast x"), tensor_of(self.result, "nn.cast result")
        return [TensorType(result.element_type, x.get_shape())]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(self.x)], shape_of(self.result))
