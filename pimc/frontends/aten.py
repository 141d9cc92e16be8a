"""ATen operators -> `nn` primitives: arithmetic, activations, norms, products, attention; and the whole
table.
 A converter gets a :class:`~pimc.frontends.graph.NodeContext` and returns what the node stands for.  An
operator is added by writing one function and one line of the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from xdsl.dialects.builtin import TensorType, f32, i1, i32
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.aten_shape import SHAPE_CONVERTERS, as_int, as_ints
from pimc.frontends.fx_values import Meaning, ParamRef, UnsupportedError
from pimc.frontends.graph import Converter, NodeContext
from pimc.ir import nn

LOWEST: Final = -(2.0 - 2.0**-23) * 2.0**127
"""The lowest f32: the score of a masked position (an infinity has no text form that parses back)."""

Unary = Callable[[SSAValue], nn.NnOp]
Binary = Callable[[SSAValue, SSAValue], nn.NnOp]


def _unary(op: Unary) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        return context.emit(op(context.operand(context.node.args[0], f32)))

    return convert


def _binary(op: Binary) -> Converter:
    """Two operands of the result's element type; ``alpha`` (a factor of the second) where the schema has
    one.
    """

    def convert(context: NodeContext) -> Meaning:
        arguments = context.arguments
        element = context.type.element_type
        if element == i1:
            raise UnsupportedError("arithmetic on booleans")
        lhs = context.operand(arguments["self"], element)
        rhs = context.operand(arguments["other"], element)
        alpha = arguments.get("alpha", 1)
        if alpha != 1:
            rhs = context.emit(nn.MulOp(rhs, context.operand(alpha, element)))
        return context.emit(op(lhs, rhs))

    return convert


def _compare(predicate: str) -> Converter:
    def convert(context: NodeContext) -> Meaning:
        lhs = context.value(context.arguments["self"])
        other = context.arguments["other"]
        element = nn.tensor_of(lhs).element_type
        if isinstance(other, float) or (
            not isinstance(other, bool | int) and nn.tensor_of(context.value(other)).element_type == f32
        ):
            element = f32
        return context.emit(nn.CompareOp(context.cast(lhs, element), context.operand(other, element), predicate))

    return convert


def _rsub(context: NodeContext) -> Meaning:
    element = context.type.element_type
    lhs, rhs = (context.operand(context.arguments[name], element) for name in ("other", "self"))
    return context.emit(nn.SubOp(lhs, rhs))


def _pow(context: NodeContext) -> Meaning:
    base, exponent = (context.operand(context.arguments[name], f32) for name in ("self", "exponent"))
    return context.emit(nn.PowOp(base, exponent))


def _where(context: NodeContext) -> Meaning:
    element = context.type.element_type
    condition = context.value(context.arguments["condition"])
    a, b = (context.operand(context.arguments[name], element) for name in ("self", "other"))
    return context.emit(nn.SelectOp(condition, a, b))


def _masked_fill(context: NodeContext) -> Meaning:
    element = context.type.element_type
    mask = context.value(context.arguments["mask"])
    fill, kept = (context.operand(context.arguments[name], element) for name in ("value", "self"))
    return context.emit(nn.SelectOp(mask, fill, kept))


def _gelu(context: NodeContext) -> Meaning:
    form = str(context.arguments["approximate"])
    return context.emit(nn.GeluOp(context.operand(context.arguments["self"], f32), form))


def _clamp(context: NodeContext) -> Meaning:
    element = context.type.element_type
    value = context.operand(context.arguments["self"], element)
    low, high = context.arguments.get("min"), context.arguments.get("max")
    if low is not None:
        value = context.emit(nn.MaximumOp(value, context.operand(low, element)))
    if high is not None:
        value = context.emit(nn.MinimumOp(value, context.operand(high, element)))
    return value


def _softmax(context: NodeContext) -> Meaning:
    axis = as_int(context.arguments["dim"], "dimension") % len(context.shape)
    return context.emit(nn.SoftmaxOp(context.operand(context.arguments["self"], f32), axis))


def _norm_weight(context: NodeContext, name: str, size: int, default: float) -> SSAValue:
    """The weight or bias of a norm; ones or zeros where the model has none."""
    argument = context.arguments[name]
    if argument is not None:
        return context.value(argument)
    return context.emit(nn.ConstantOp.from_array([default] * size, f32))


def _one_axis(context: NodeContext) -> int:
    sizes = as_ints(context.arguments["normalized_shape"], "shape")
    if len(sizes) != 1:
        raise UnsupportedError("a norm over several dimensions")
    return sizes[0]


def _layer_norm(context: NodeContext) -> Meaning:
    size = _one_axis(context)
    x = context.operand(context.arguments["input"], f32)
    weight = _norm_weight(context, "weight", size, 1.0)
    bias = context.value(context.arguments["bias"]) if context.arguments["bias"] is not None else None
    eps = context.arguments["eps"]
    return context.emit(nn.LayerNormOp(x, weight, bias, float(str(eps))))


def _rms_norm(context: NodeContext) -> Meaning:
    size = _one_axis(context)
    x = context.operand(context.arguments["input"], f32)
    eps = context.arguments["eps"]
    # Without eps torch takes the machine epsilon of the element type.
    value = float(str(eps)) if eps is not None else 2.0**-23
    return context.emit(nn.RmsNormOp(x, _norm_weight(context, "weight", size, 1.0), value))


def _linear(context: NodeContext) -> Meaning:
    x = context.operand(context.arguments["input"], f32)
    bias = context.arguments["bias"]
    return context.emit(
        nn.LinearOp(x, context.value(context.arguments["weight"]), None if bias is None else context.value(bias))
    )


def _product(context: NodeContext, left: object, right: object) -> SSAValue:
    """``left @ right``; with a weight matrix on the right it is a linear layer of its transpose."""
    found = context.meaning(right)
    x = context.operand(left, f32)
    if isinstance(found, ParamRef) and len(found.shape) == 2:
        return context.emit(nn.LinearOp(x, context.param(found.transposed())))
    return context.emit(nn.MatmulOp(x, context.operand(right, f32)))


def _matmul(context: NodeContext) -> Meaning:
    arguments = context.arguments
    return _product(context, arguments["self"], arguments.get("other", arguments.get("mat2")))


def _addmm(context: NodeContext) -> Meaning:
    arguments = context.arguments
    if (arguments["alpha"], arguments["beta"]) != (1, 1):
        raise UnsupportedError("factors other than 1")
    weight = context.meaning(arguments["mat2"])
    bias = context.value(arguments["self"])
    if isinstance(weight, ParamRef) and len(nn.tensor_of(bias).get_shape()) == 1:
        x = context.operand(arguments["mat1"], f32)
        return context.emit(nn.LinearOp(x, context.param(weight.transposed()), bias))
    return context.emit(nn.AddOp(_product(context, arguments["mat1"], arguments["mat2"]), bias))


def _attention(context: NodeContext) -> Meaning:
    """Scaled dot-product attention, spelled out: scores, mask, softmax, weighted sum."""
    arguments = context.arguments
    query, key, value = (context.operand(arguments[name], f32) for name in ("query", "key", "value"))
    if arguments["dropout_p"] != 0.0:
        raise UnsupportedError("dropout in attention")
    heads = nn.tensor_of(query).get_shape()[-3] if len(nn.tensor_of(query).get_shape()) > 2 else 1
    if arguments["enable_gqa"]:
        key, value = (_repeat_heads(context, tensor, heads) for tensor in (key, value))
    rank = len(nn.tensor_of(key).get_shape())
    order = [*range(rank - 2), rank - 1, rank - 2]
    scores = context.emit(nn.MatmulOp(query, context.emit(nn.TransposeOp(key, order))))
    scale = arguments["scale"]
    factor = float(str(scale)) if scale is not None else 1 / math.sqrt(nn.tensor_of(query).get_shape()[-1])
    scores = context.emit(nn.MulOp(scores, context.constant(factor, f32)))
    mask: object = arguments["attn_mask"]
    if mask is not None:
        scores = _masked(context, scores, context.value(mask))
    elif arguments["is_causal"]:
        scores = _masked(context, scores, _causal_mask(context, scores))
    return context.emit(nn.MatmulOp(context.emit(nn.SoftmaxOp(scores)), value))


def _repeat_heads(context: NodeContext, value: SSAValue, heads: int) -> SSAValue:
    """Every key/value head repeated for the query heads that share it: ``[B, Hkv, N, D]`` -> ``[B, H, N,
    D]``.
    """
    batch, kv_heads, tokens, size = nn.tensor_of(value).get_shape()
    if kv_heads == heads:
        return value
    grouped = context.reshape(value, (batch, kv_heads, 1, tokens, size))
    repeated = context.emit(nn.BroadcastToOp(grouped, (batch, kv_heads, heads // kv_heads, tokens, size)))
    return context.reshape(repeated, (batch, heads, tokens, size))


def _masked(context: NodeContext, scores: SSAValue, mask: SSAValue) -> SSAValue:
    if nn.tensor_of(mask).element_type == i1:
        return context.emit(nn.SelectOp(mask, scores, context.constant(LOWEST, f32)))
    return context.emit(nn.AddOp(scores, mask))


def _causal_mask(context: NodeContext, scores: SSAValue) -> SSAValue:
    queries, keys = nn.tensor_of(scores).get_shape()[-2:]
    rows: TensorType[Attribute] = TensorType(i32, (queries, 1))
    columns: TensorType[Attribute] = TensorType(i32, (1, keys))
    lhs, rhs = context.emit(nn.IotaOp(columns, 1)), context.emit(nn.IotaOp(rows, 0))
    return context.emit(nn.CompareOp(lhs, rhs, "le"))


_UNARY: Final[Mapping[str, Unary]] = {
    "abs": nn.AbsOp,
    "erf": nn.ErfOp,
    "exp": nn.ExpOp,
    "log": nn.LogOp,
    "neg": nn.NegOp,
    "reciprocal": nn.RecipOp,
    "relu": nn.ReluOp,
    "rsqrt": nn.RsqrtOp,
    "sigmoid": nn.SigmoidOp,
    "silu": nn.SiluOp,
    "sqrt": nn.SqrtOp,
    "tanh": nn.TanhOp,
}

_BINARY: Final[Mapping[str, Binary]] = {"add": nn.AddOp, "sub": nn.SubOp, "mul": nn.MulOp, "div": nn.DivOp}

CONVERTERS: Final[Mapping[str, Converter]] = {
    **SHAPE_CONVERTERS,
    **{f"aten.{name}.default": _unary(op) for name, op in _UNARY.items()},
    **{f"aten.{name}.{form}": _binary(op) for name, op in _BINARY.items() for form in ("Tensor", "Scalar")},
    **{f"aten.{name}.{form}": _compare(name) for name in nn.PREDICATES for form in ("Tensor", "Scalar")},
    "aten.maximum.default": _binary(nn.MaximumOp),
    "aten.minimum.default": _binary(nn.MinimumOp),
    **dict.fromkeys(("aten.rsub.Tensor", "aten.rsub.Scalar"), _rsub),
    **dict.fromkeys(("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor"), _pow),
    **dict.fromkeys(
        ("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar"), _where
    ),
    **dict.fromkeys(("aten.masked_fill.Scalar", "aten.masked_fill.Tensor"), _masked_fill),
    "aten.gelu.default": _gelu,
    "aten.clamp.default": _clamp,
    **dict.fromkeys(("aten.softmax.int", "aten._softmax.default"), _softmax),
    "aten.layer_norm.default": _layer_norm,
    "aten.rms_norm.default": _rms_norm,
    "aten.linear.default": _linear,
    **dict.fromkeys(("aten.matmul.default", "aten.mm.default", "aten.bmm.default"), _matmul),
    "aten.addmm.default": _addmm,
    "aten.scaled_dot_product_attention.default": _attention,
}
"""Converters by the operator's name as ``str(node.target)`` gives it."""
