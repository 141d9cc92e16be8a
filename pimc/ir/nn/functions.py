"""Elementary functions of one element beyond the activations, tests of single elements, and bit operations."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from typing_extensions import override
from xdsl.dialects.builtin import BoolAttr, IntegerType, TensorType, i1
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Commutative, Pure

from pimc.ir.nn.base import Array, NnOp, Value, check, check_float, construct, shape_of, tensor_of
from pimc.ir.nn.elementwise import BinaryFunction, BinaryOp, UnaryFunction, UnaryOp
from pimc.ir.nn.space import Space, pointwise


@irdl_op_definition
class SinOp(UnaryOp):
    """Sine of radians."""

    name = "nn.sin"
    FUNCTION: ClassVar[UnaryFunction] = np.sin


@irdl_op_definition
class CosOp(UnaryOp):
    """Cosine of radians."""

    name = "nn.cos"
    FUNCTION: ClassVar[UnaryFunction] = np.cos


@irdl_op_definition
class TanOp(UnaryOp):
    """Tangent of radians."""

    name = "nn.tan"
    FUNCTION: ClassVar[UnaryFunction] = np.tan


@irdl_op_definition
class AsinOp(UnaryOp):
    """Arc sine; NaN outside [-1, 1]."""

    name = "nn.asin"
    FUNCTION: ClassVar[UnaryFunction] = np.arcsin


@irdl_op_definition
class AcosOp(UnaryOp):
    """Arc cosine; NaN outside [-1, 1]."""

    name = "nn.acos"
    FUNCTION: ClassVar[UnaryFunction] = np.arccos


@irdl_op_definition
class AtanOp(UnaryOp):
    """Arc tangent."""

    name = "nn.atan"
    FUNCTION: ClassVar[UnaryFunction] = np.arctan


@irdl_op_definition
class SinhOp(UnaryOp):
    """Hyperbolic sine."""

    name = "nn.sinh"
    FUNCTION: ClassVar[UnaryFunction] = np.sinh


@irdl_op_definition
class CoshOp(UnaryOp):
    """Hyperbolic cosine."""

    name = "nn.cosh"
    FUNCTION: ClassVar[UnaryFunction] = np.cosh


@irdl_op_definition
class AsinhOp(UnaryOp):
    """Inverse hyperbolic sine."""

    name = "nn.asinh"
    FUNCTION: ClassVar[UnaryFunction] = np.arcsinh


@irdl_op_definition
class AcoshOp(UnaryOp):
    """Inverse hyperbolic cosine; NaN below 1."""

    name = "nn.acosh"
    FUNCTION: ClassVar[UnaryFunction] = np.arccosh


@irdl_op_definition
class AtanhOp(UnaryOp):
    """Inverse hyperbolic tangent; NaN outside [-1, 1]."""

    name = "nn.atanh"
    FUNCTION: ClassVar[UnaryFunction] = np.arctanh


@irdl_op_definition
class FloorOp(UnaryOp):
    """The largest whole number not above x."""

    name = "nn.floor"
    FUNCTION: ClassVar[UnaryFunction] = np.floor


@irdl_op_definition
class CeilOp(UnaryOp):
    """The smallest whole number not below x."""

    name = "nn.ceil"
    FUNCTION: ClassVar[UnaryFunction] = np.ceil


@irdl_op_definition
class RoundOp(UnaryOp):
    """The nearest whole number, halves to the even one."""

    name = "nn.round"
    FUNCTION: ClassVar[UnaryFunction] = np.rint


class NumberOp(UnaryOp, ABC):
    """One function of each element, of floats and of integers."""

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, f"{self.name} x")
        check(x.element_type != i1, f"{self.name} x must hold numbers, holds {x.element_type}")
        return [x]


@irdl_op_definition
class NegOp(NumberOp):
    """``-x``."""

    name = "nn.neg"
    FUNCTION: ClassVar[UnaryFunction] = np.negative


@irdl_op_definition
class AbsOp(NumberOp):
    """``|x|``."""

    name = "nn.abs"
    FUNCTION: ClassVar[UnaryFunction] = np.abs


@irdl_op_definition
class SignOp(NumberOp):
    """-1, 0 or 1; NaN of NaN."""

    name = "nn.sign"
    FUNCTION: ClassVar[UnaryFunction] = np.sign


class TestOp(NnOp, ABC):
    """A question about each float; i1 out."""

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, f"{self.name} x")
        check_float(x, f"{self.name} x")
        return [TensorType(i1, x.get_shape())]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(self.x)], shape_of(self.result), 1)


@irdl_op_definition
class IsNanOp(TestOp):
    """Whether x is NaN."""

    name = "nn.is_nan"

    def __init__(self, x: Value) -> None:
        construct(self, [x])


@irdl_op_definition
class IsInfOp(TestOp):
    """Whether x is an infinity: the ``positive`` one, the ``negative`` one."""

    name = "nn.is_inf"

    positive = prop_def(BoolAttr)
    negative = prop_def(BoolAttr)

    def __init__(self, x: Value, positive: bool = True, negative: bool = True) -> None:
        construct(self, [x], {"positive": BoolAttr.from_bool(positive), "negative": BoolAttr.from_bool(negative)})


class BitsOp(UnaryOp, ABC):
    """One function of each integer (or truth value)."""

    BOOLEAN: ClassVar[bool]

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, f"{self.name} x")
        fits = x.element_type == i1 if self.BOOLEAN else isinstance(x.element_type, IntegerType)
        wanted = "i1" if self.BOOLEAN else "integers"
        check(fits, f"{self.name} x must hold {wanted}, holds {x.element_type}")
        return [x]


@irdl_op_definition
class NotOp(BitsOp):
    """Logical not."""

    name = "nn.not"
    FUNCTION: ClassVar[UnaryFunction] = np.logical_not
    BOOLEAN: ClassVar[bool] = True


@irdl_op_definition
class BitNotOp(BitsOp):
    """Every bit of an integer inverted."""

    name = "nn.bit_not"
    FUNCTION: ClassVar[UnaryFunction] = np.bitwise_not
    BOOLEAN: ClassVar[bool] = False


@irdl_op_definition
class ModOp(BinaryOp):
    """Remainder of ``lhs / rhs``: with ``fmod`` it has the sign of lhs (C's fmod), else that of rhs (Python's %)."""

    name = "nn.mod"
    BOOLEAN: ClassVar[bool] = False
    traits = traits_def(Pure())

    fmod = prop_def(BoolAttr)

    def __init__(self, lhs: Value, rhs: Value, fmod: bool = False) -> None:
        construct(self, [lhs, rhs], {"fmod": BoolAttr.from_bool(fmod)})

    @override
    def evaluate(self, lhs: Array, rhs: Array) -> Array:
        return np.asarray(np.fmod(lhs, rhs) if self.fmod.value.data else np.mod(lhs, rhs))


class IntegerBinaryOp(BinaryOp, ABC):
    """One function of two integers or truth values."""

    @override
    def infer_types(self) -> Sequence[Attribute]:
        element = tensor_of(self.lhs, f"{self.name} lhs").element_type
        check(isinstance(element, IntegerType), f"{self.name} works on integers and i1, not on {element}")
        return super().infer_types()


@irdl_op_definition
class AndOp(IntegerBinaryOp):
    """Bitwise and; logical and of i1."""

    name = "nn.and"
    FUNCTION: ClassVar[BinaryFunction] = np.bitwise_and
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class OrOp(IntegerBinaryOp):
    """Bitwise or; logical or of i1."""

    name = "nn.or"
    FUNCTION: ClassVar[BinaryFunction] = np.bitwise_or
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class XorOp(IntegerBinaryOp):
    """Bitwise exclusive or; logical exclusive or of i1."""

    name = "nn.xor"
    FUNCTION: ClassVar[BinaryFunction] = np.bitwise_xor
    traits = traits_def(Pure(), Commutative())


@irdl_op_definition
class ShiftLeftOp(IntegerBinaryOp):
    """``lhs << rhs``, bits shifted out are lost."""

    name = "nn.shift_left"
    FUNCTION: ClassVar[BinaryFunction] = np.left_shift
    BOOLEAN: ClassVar[bool] = False
    traits = traits_def(Pure())


@irdl_op_definition
class ShiftRightOp(IntegerBinaryOp):
    """``lhs >> rhs``, with the sign's bit of signed integers."""

    name = "nn.shift_right"
    FUNCTION: ClassVar[BinaryFunction] = np.right_shift
    BOOLEAN: ClassVar[bool] = False
    traits = traits_def(Pure())
