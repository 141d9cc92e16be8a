"""ATen's elementwise operators -> `nn` primitives: functions of one and of two numbers, comparison, logic, choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np
from xdsl.dialects.builtin import f32, i1, i32
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import Meaning
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

Unary: TypeAlias = Callable[[SSAValue], nn.NnOp]
Binary: TypeAlias = Callable[[SSAValue, SSAValue], nn.NnOp]


def _unary(op: Unary) -> Converter:
    """One operand of the result's element type."""

    def convert(context: NodeContext) -> Meaning:
        return context.emit(op(context.operand(context.node.args[0], context.type.element_type)))

    return convert


def _rounding(op: Unary) -> Converter:
    """A rounding to whole numbers, which leaves integers as they are."""

    def convert(context: NodeContext) -> Meaning:
        value = context.value(context.node.args[0])
        return context.emit(op(value)) if nn.tensor_of(value).element_type == f32 else value

    return convert


def _relu(context: NodeContext) -> Meaning:
    value = context.value(context.node.args[0])
    element = nn.tensor_of(value).element_type
    return context.emit(nn.ReluOp(value) if element == f32 else nn.MaximumOp(value, context.constant(0, element)))


def _scaled_log(base: float) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        logarithm = context.emit(nn.LogOp(context.operand(context.arguments["self"], f32)))
        return context.emit(nn.MulOp(logarithm, context.constant(1 / math.log(base), f32)))

    return convert


def _log1p(context: NodeContext) -> Meaning:
    shifted = nn.AddOp(context.operand(context.arguments["self"], f32), context.constant(1.0, f32))
    return context.emit(nn.LogOp(context.emit(shifted)))


def _expm1(context: NodeContext) -> Meaning:
    power = context.emit(nn.ExpOp(context.operand(context.arguments["self"], f32)))
    return context.emit(nn.SubOp(power, context.constant(1.0, f32)))


def _exp2(context: NodeContext) -> Meaning:
    return context.emit(nn.PowOp(context.constant(2.0, f32), context.operand(context.arguments["self"], f32)))


def _erfc(context: NodeContext) -> Meaning:
    value = context.emit(nn.ErfOp(context.operand(context.arguments["self"], f32)))
    return context.emit(nn.SubOp(context.constant(1.0, f32), value))


def _square(context: NodeContext) -> Meaning:
    value = context.operand(context.arguments["self"], context.type.element_type)
    return context.emit(nn.MulOp(value, value))


def trunc(context: NodeContext, value: SSAValue) -> SSAValue:
    """``value`` without its fraction; integers as they are."""
    if nn.tensor_of(value).element_type != f32:
        return value
    magnitude = context.emit(nn.FloorOp(context.emit(nn.AbsOp(value))))
    return context.emit(nn.MulOp(context.emit(nn.SignOp(value)), magnitude))


def _trunc(context: NodeContext) -> Meaning:
    return trunc(context, context.value(context.arguments["self"]))


def _pair(context: NodeContext, first: str = "self", second: str = "other") -> tuple[SSAValue, SSAValue]:
    """Two operands in the element type of the result."""
    element = context.type.element_type
    lhs, rhs = (context.operand(context.arguments[name], element) for name in (first, second))
    return lhs, rhs


_ON_BOOLEANS: Final[Mapping[Binary, Binary]] = {
    nn.AddOp: nn.OrOp, nn.MulOp: nn.AndOp, nn.MaximumOp: nn.OrOp, nn.MinimumOp: nn.AndOp,
    nn.AndOp: nn.AndOp, nn.OrOp: nn.OrOp, nn.XorOp: nn.XorOp,
}  # fmt: skip


def _on_booleans(context: NodeContext, op: Binary, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
    """A sum or product of truth values is a connective; "and" with a mask that is all true is nothing."""
    if op not in _ON_BOOLEANS:
        raise UnsupportedError("arithmetic on booleans", "convert them to numbers first")
    for name, other in (("self", rhs), ("other", lhs)):
        known = context.known(context.arguments[name])
        if _ON_BOOLEANS[op] is nn.AndOp and known is not None and bool(np.all(known)):
            return context.broadcast(other, context.shape)
    return context.emit(_ON_BOOLEANS[op](lhs, rhs))


def _binary(op: Binary) -> Converter:
    """Two operands of the result's element type; ``alpha`` is a factor of the second where the schema has one."""

    def convert(context: NodeContext) -> Meaning:
        element = context.type.element_type
        lhs, rhs = _pair(context)
        if element == i1:
            return _on_booleans(context, op, lhs, rhs)
        alpha = context.arguments.get("alpha", 1)
        if alpha != 1:
            rhs = context.emit(nn.MulOp(rhs, context.operand(alpha, element)))
        return context.emit(op(lhs, rhs))

    return convert


def _rsub(context: NodeContext) -> Meaning:
    lhs, rhs = _pair(context, "other", "self")
    alpha = context.arguments.get("alpha", 1)
    if alpha != 1:
        rhs = context.emit(nn.MulOp(rhs, context.operand(alpha, context.type.element_type)))
    return context.emit(nn.SubOp(lhs, rhs))


def _pow(context: NodeContext) -> Meaning:
    base, exponent = _pair(context, "self", "exponent")
    return context.emit(nn.PowOp(base, exponent))


def _mod(fmod: bool) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        return context.emit(nn.ModOp(*_pair(context), fmod))

    return convert


def _div_mode(context: NodeContext) -> Meaning:
    """Division rounded towards zero ("trunc") or down ("floor")."""
    mode = context.arguments.get("rounding_mode", "floor")
    lhs, rhs = _pair(context)
    if mode is None or (mode == "trunc" and context.type.element_type != f32):
        return context.emit(nn.DivOp(lhs, rhs))
    if context.type.element_type == f32:
        quotient = context.emit(nn.DivOp(lhs, rhs))
        return trunc(context, quotient) if mode == "trunc" else context.emit(nn.FloorOp(quotient))
    rest = context.emit(nn.ModOp(lhs, rhs, False))
    return context.emit(nn.DivOp(context.emit(nn.SubOp(lhs, rest)), rhs))


def _logical(op: Binary) -> Converter:
    """A connective of truth values; numbers count as true where they are not 0."""

    def convert(context: NodeContext) -> Meaning:
        lhs, rhs = (context.operand(context.arguments[name], i1) for name in ("self", "other"))
        return context.emit(op(lhs, rhs))

    return convert


def _logical_not(context: NodeContext) -> Meaning:
    return context.emit(nn.NotOp(context.operand(context.arguments["self"], i1)))


def _bitwise_not(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    truth = nn.tensor_of(value).element_type == i1
    return context.emit(nn.NotOp(value) if truth else nn.BitNotOp(value))


def _compare(predicate: str) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        lhs, other = context.value(context.arguments["self"]), context.arguments["other"]
        kinds = [nn.tensor_of(lhs).element_type, _element(context, other)]
        element = next(kind for kind in (f32, i32, i1) if kind in kinds)
        return context.emit(nn.CompareOp(context.cast(lhs, element), context.operand(other, element), predicate))

    return convert


def _element(context: NodeContext, argument: object) -> Attribute:
    """The element type of an operand; of a Python number the least that holds it."""
    if isinstance(argument, float):
        return f32
    if isinstance(argument, bool | int):
        return i1 if argument in (0, 1) else i32
    return nn.tensor_of(context.value(argument)).element_type


def _is_finite(context: NodeContext) -> Meaning:
    value = context.operand(context.arguments["self"], f32)
    odd = nn.OrOp(context.emit(nn.IsNanOp(value)), context.emit(nn.IsInfOp(value, True, True)))
    return context.emit(nn.NotOp(context.emit(odd)))


def _is_nan(context: NodeContext) -> Meaning:
    return context.emit(nn.IsNanOp(context.operand(context.arguments["self"], f32)))


def _is_inf(context: NodeContext) -> Meaning:
    return context.emit(nn.IsInfOp(context.operand(context.arguments["self"], f32), True, True))


def _where(context: NodeContext) -> Meaning:
    condition = context.operand(context.arguments["condition"], i1)
    return context.emit(nn.SelectOp(condition, *_pair(context)))


def _masked_fill(context: NodeContext) -> Meaning:
    mask = context.value(context.arguments["mask"])
    return context.emit(nn.SelectOp(mask, *_pair(context, "value", "self")))


def _gelu(context: NodeContext) -> Meaning:
    form = str(context.arguments["approximate"])
    return context.emit(nn.GeluOp(context.operand(context.arguments["self"], f32), form))


def _clamp(context: NodeContext) -> Meaning:
    element = context.type.element_type
    value = context.operand(context.arguments["self"], element)
    low = context.arguments.get("min", context.arguments.get("min_val"))
    high = context.arguments.get("max", context.arguments.get("max_val"))
    if low is not None:
        value = context.emit(nn.MaximumOp(value, context.operand(low, element)))
    if high is not None:
        value = context.emit(nn.MinimumOp(value, context.operand(high, element)))
    return value


def _next_after(context: NodeContext) -> Meaning:
    raise UnsupportedError("the neighbours of numbers in fp32", "fp16, in which numbers are stored, does not have them")


_UNARY: Final[Mapping[str, Unary]] = {
    "abs": nn.AbsOp, "acos": nn.AcosOp, "acosh": nn.AcoshOp, "asin": nn.AsinOp, "asinh": nn.AsinhOp,
    "atan": nn.AtanOp, "atanh": nn.AtanhOp, "cos": nn.CosOp, "cosh": nn.CoshOp, "erf": nn.ErfOp, "exp": nn.ExpOp,
    "log": nn.LogOp, "neg": nn.NegOp, "reciprocal": nn.RecipOp, "rsqrt": nn.RsqrtOp, "sgn": nn.SignOp,
    "sigmoid": nn.SigmoidOp, "sign": nn.SignOp, "silu": nn.SiluOp, "sin": nn.SinOp, "sinh": nn.SinhOp,
    "sqrt": nn.SqrtOp, "tan": nn.TanOp, "tanh": nn.TanhOp,
}  # fmt: skip

_BINARY: Final[Mapping[str, Binary]] = {"add": nn.AddOp, "sub": nn.SubOp, "mul": nn.MulOp, "div": nn.DivOp}
_BITWISE: Final[Mapping[str, Binary]] = {"and": nn.AndOp, "or": nn.OrOp, "xor": nn.XorOp}
_SHIFTS: Final[Mapping[str, Binary]] = {"left_shift": nn.ShiftLeftOp, "right_shift": nn.ShiftRightOp}
_FORMS: Final = ("Tensor", "Scalar")


def _forms(name: str, converter: Converter, forms: tuple[str, ...] = _FORMS) -> dict[str, Converter]:
    return {f"aten.{name}.{form}": converter for form in forms}


TABLE: Final[Mapping[str, Converter]] = {
    **{f"aten.{name}.default": _unary(op) for name, op in _UNARY.items()},
    **{f"aten.{name}.default": _rounding(op) for name, op in
       {"ceil": nn.CeilOp, "floor": nn.FloorOp, "round": nn.RoundOp}.items()},
    "aten.trunc.default": _trunc,
    "aten.relu.default": _relu,
    "aten.gelu.default": _gelu,
    "aten.log2.default": _scaled_log(2.0),
    "aten.log10.default": _scaled_log(10.0),
    "aten.log1p.default": _log1p,
    "aten.expm1.default": _expm1,
    "aten.exp2.default": _exp2,
    "aten.erfc.default": _erfc,
    "aten.square.default": _square,
    "aten.isnan.default": _is_nan,
    "aten.isinf.default": _is_inf,
    "aten.isfinite.default": _is_finite,
    "aten.logical_not.default": _logical_not,
    "aten.bitwise_not.default": _bitwise_not,
    **{key: found for name, op in _BINARY.items() for key, found in _forms(name, _binary(op)).items()},
    **{key: found for name, op in _BITWISE.items()
       for key, found in _forms(f"bitwise_{name}", _binary(op)).items()},
    **{key: found for name, op in _BITWISE.items() for key, found in _forms(f"__{name}__", _binary(op)).items()},
    **{f"aten.logical_{name}.default": _logical(op) for name, op in _BITWISE.items()},
    **{key: found for name, op in (("lshift", nn.ShiftLeftOp), ("rshift", nn.ShiftRightOp))
       for key, found in _forms(f"__{name}__", _binary(op)).items()},
    **{key: found for name, op in _SHIFTS.items()
       for key, found in _forms(f"bitwise_{name}", _binary(op), ("Tensor", "Tensor_Scalar")).items()},
    **{key: found for name in nn.PREDICATES for key, found in _forms(name, _compare(name)).items()},
    **_forms("rsub", _rsub),
    **_forms("pow", _pow, ("Tensor_Scalar", "Tensor_Tensor", "Scalar")),
    **_forms("remainder", _mod(fmod=False)),
    **_forms("fmod", _mod(fmod=True)),
    **_forms("div", _div_mode, ("Tensor_mode", "Scalar_mode")),
    **_forms("floor_divide", _div_mode, ("default", "Scalar")),
    "aten.maximum.default": _binary(nn.MaximumOp),
    "aten.minimum.default": _binary(nn.MinimumOp),
    **_forms("where", _where, ("self", "ScalarSelf", "ScalarOther", "Scalar")),
    **_forms("masked_fill", _masked_fill),
    **_forms("clamp", _clamp, ("default", "Tensor")),
    **_forms("clamp_min", _clamp, ("default", "Tensor")),
    **_forms("clamp_max", _clamp, ("default", "Tensor")),
    "aten.hardtanh.default": _clamp,
    "aten.nextafter.default": _next_after,
}  # fmt: skip
"""Converters by the operator's name."""
