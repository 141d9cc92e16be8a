"""Norms from their arithmetic: RMS norm and layer norm."""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from pimc.ir import nn
from pimc.ir.nn.base import values_of
from pimc.passes.raise_match import Notes, Replacer, only_user, other_operand, producer, scalar, users, with_scalar
from pimc.passes.raise_views import shape_of


def raise_norms(function: FuncOp, notes: Notes) -> None:
    """Replace ``x * rsqrt(mean(x^2) + eps) * weight`` and its centred form with a bias."""
    for op in list(function.walk()):
        if isinstance(op, nn.RecipOp) and (root := producer(op.x, nn.SqrtOp)) is not None:
            Replacer.replace(op, nn.RsqrtOp(root.x))
    for op in list(function.walk()):
        if isinstance(op, nn.RsqrtOp | nn.SqrtOp):
            _raise_norm(op, notes)


def _raise_norm(root: nn.RsqrtOp | nn.SqrtOp, notes: Notes) -> None:
    squared = _mean_of_square(root.x)
    if squared is None:
        return
    x, eps = squared
    scaled = _normalised(root, x)
    if scaled is None:
        notes.refuse(root, "norm", "the root is not applied to the value whose square is averaged")
        return
    centred = _centred(x)
    product = only_user(scaled.result, nn.MulOp)
    weight = other_operand(product, scaled.result) if product is not None else None
    features = shape_of(x)[-1]
    if product is None or weight is None or shape_of(weight) != (features,):
        notes.refuse(root, "norm", "no weight of one number a feature follows")
        return
    if centred is None:
        _replace(product, x, lambda value: nn.RmsNormOp(value, weight, eps))
        return
    shifted = only_user(product.result, nn.AddOp)
    bias = other_operand(shifted, product.result) if shifted is not None else None
    if shifted is not None and bias is not None and shape_of(bias) == (features,):
        _replace(shifted, centred, lambda value: nn.LayerNormOp(value, weight, bias, eps))
    else:
        _replace(product, centred, lambda value: nn.LayerNormOp(value, weight, None, eps))


def _replace(old: nn.NnOp, x: SSAValue, norm: Callable[[SSAValue], nn.NnOp]) -> None:
    """The norm of ``x`` in the place of ``old``; where ``x`` is transposed and its features stay last, it is taken
    before, so that heads are seen to be those of a row of features (Gemma 3).
    """
    moved = producer(x, nn.TransposeOp)
    if moved is None or values_of(moved.permutation)[-1] != len(shape_of(x)) - 1:
        Replacer.replace(old, norm(x))
        return
    new = norm(moved.x)
    Replacer.replace(old, new, nn.TransposeOp(new, values_of(moved.permutation)))


def _mean_of_square(value: SSAValue) -> tuple[SSAValue, float] | None:
    """``(x, eps)`` of ``mean(x^2, last axis) + eps``."""
    shifted = with_scalar(value.owner, nn.AddOp)
    if shifted is None:
        return None
    mean = producer(shifted[0], nn.ReduceMeanOp)
    if mean is None or not _over_last(mean):
        return None
    x = _square(mean.x)
    return None if x is None else (x, shifted[1])


def _over_last(mean: nn.ReduceMeanOp) -> bool:
    rank = len(shape_of(mean.x))
    return bool(mean.keepdims.value.data) and [axis % rank for axis in values_of(mean.axes)] == [rank - 1]


def _square(value: SSAValue) -> SSAValue | None:
    """x of ``x^2`` or ``x * x``."""
    power = producer(value, nn.PowOp)
    if power is not None:
        return power.lhs if scalar(power.rhs) == 2.0 else None
    product = producer(value, nn.MulOp)
    return product.lhs if product is not None and product.lhs is product.rhs else None


def _normalised(root: nn.RsqrtOp | nn.SqrtOp, x: SSAValue) -> nn.MulOp | nn.DivOp | None:
    """``x * rsqrt`` or ``x / sqrt``."""
    for user in users(root.result):
        if isinstance(root, nn.RsqrtOp) and isinstance(user, nn.MulOp) and other_operand(user, root.result) is x:
            return user
        if isinstance(root, nn.SqrtOp) and isinstance(user, nn.DivOp) and user.lhs is x:
            return user
    return None


def _centred(value: SSAValue) -> SSAValue | None:
    """x of ``x - mean(x)``."""
    difference = producer(value, nn.SubOp)
    mean = producer(difference.rhs, nn.ReduceMeanOp) if difference is not None else None
    if difference is None or mean is None or not _over_last(mean) or mean.x is not difference.lhs:
        return None
    return difference.lhs
