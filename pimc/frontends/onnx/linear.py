"""Converters of ONNX matrix products."""

from __future__ import annotations

from math import prod
from typing import Final

from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, NodeContext, Table
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def product(ctx: NodeContext, a: SSAValue, b: SSAValue) -> SSAValue:
    """``a @ b`` as numpy has it, vectors included."""
    left, right = ctx.shape_of(a), ctx.shape_of(b)
    if len(left) == 1:
        a = ctx.reshape(a, (1, *left))
    if len(right) == 1:
        b = ctx.reshape(b, (*right, 1))
    result = ctx.emit(nn.MatmulOp(a, b))
    shape = list(ctx.shape_of(result))
    if len(right) == 1:
        shape.pop()
    if len(left) == 1:
        shape.pop(-1 if len(right) == 1 else -2)
    return ctx.reshape(result, shape)


def _matmul(ctx: NodeContext) -> Converted:
    """With a stored matrix on the right it is a linear layer of its transpose."""
    weight = ctx.linear_weight(1)
    if weight is not None and ctx.known(0) is None:
        return ctx.emit(nn.LinearOp(ctx.value(0), ctx.param(weight.transposed())))
    return product(ctx, ctx.value(0), ctx.value(1))


def _gemm(ctx: NodeContext) -> Converted:
    """``alpha * op(A) @ op(B) + beta * C``; of a stored matrix and vector a linear layer with its bias."""
    alpha, beta = ctx.attr_float("alpha", 1.0), ctx.attr_float("beta", 1.0)
    a = ctx.value(0)
    if ctx.attr_int("transA", 0):
        a = ctx.transpose(a, (1, 0))
    weight = ctx.linear_weight(1)
    turned = bool(ctx.attr_int("transB", 0))
    if weight is not None and ctx.known(0) is None:
        weight = weight if turned else weight.transposed()
        plain = alpha == beta == 1.0 and ctx.has(2) and ctx.shape(2) == weight.shape[:1] and ctx.known(2) is not None
        bias = ctx.value(2) if plain else None
        result = ctx.emit(nn.LinearOp(a, ctx.param(weight), bias))
        if plain:
            return result
    else:
        b = ctx.value(1)
        result = ctx.emit(nn.MatmulOp(a, ctx.transpose(b, (1, 0)) if turned else b))
    if alpha != 1.0:
        result = ctx.emit(nn.MulOp(result, ctx.like(alpha, result)))
    if not ctx.has(2):
        return result
    c = ctx.value(2)
    if beta != 1.0:
        c = ctx.emit(nn.MulOp(c, ctx.like(beta, c)))
    return ctx.emit(nn.AddOp(result, c))


def _einsum(ctx: NodeContext) -> Converted:
    """Operands are joined one after the other, each as a batched product."""
    equation = ctx.attr_str("equation").replace(" ", "")
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    values = ctx.values()
    if len(terms) != len(values):
        raise UnsupportedError(f"{len(values)} operands for the equation {equation!r}")
    terms, right = _without_ellipsis(ctx, terms, values, result if arrow else None)
    wanted = _implicit(terms) if right is None else right
    value, letters = _diagonals(ctx, values[0], terms[0])
    for index, (other, term) in enumerate(zip(values[1:], terms[1:], strict=True), start=2):
        other, theirs = _diagonals(ctx, other, term)
        later = set(wanted).union(*terms[index:])
        value, letters = _join(ctx, value, letters, other, theirs, later)
    summed = [place for place, letter in enumerate(letters) if letter not in wanted]
    if summed:
        value = ctx.emit(nn.ReduceSumOp(value, summed))
        letters = "".join(letter for letter in letters if letter in wanted)
    return ctx.transpose(value, [letters.index(letter) for letter in wanted])


def _without_ellipsis(
    ctx: NodeContext, terms: list[str], values: list[SSAValue], right: str | None
) -> tuple[list[str], str | None]:
    """Letters in the place of ``...`` (they broadcast from the right)."""
    if not any("..." in term for term in terms):
        return terms, right
    spare = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    ranks = [len(ctx.shape_of(v)) - len(t.replace("...", "")) for t, v in zip(terms, values, strict=True)]
    most = max(rank for rank, term in zip(ranks, terms, strict=True) if "..." in term)
    found = [term.replace("...", spare[most - rank : most]) for term, rank in zip(terms, ranks, strict=True)]
    if right is not None:
        return found, right.replace("...", spare[:most])
    return found, spare[:most] + _implicit([term.replace("...", "") for term in terms])


def _implicit(terms: list[str]) -> str:
    """The result's letters where the equation has none: those that stand once, in order."""
    joined = "".join(terms)
    return "".join(sorted(letter for letter in set(joined) if joined.count(letter) == 1))


def _diagonals(ctx: NodeContext, value: SSAValue, letters: str) -> tuple[SSAValue, str]:
    """A letter that stands twice in a term takes the diagonal."""
    while len(set(letters)) != len(letters):
        letter = next(one for one in letters if letters.count(one) > 1)
        first = letters.index(letter)
        second = letters.index(letter, first + 1)
        order = [place for place in range(len(letters)) if place not in (first, second)]
        value = ctx.transpose(value, [*order, first, second])
        *rest, size, _ = ctx.shape_of(value)
        flat = ctx.reshape(value, (*rest, size * size))
        value = ctx.cut(flat, len(rest), 0, (size - 1) * (size + 1) + 1, size + 1)
        letters = "".join(letters[place] for place in order) + letter
    return value, letters


def _join(ctx: NodeContext, a: SSAValue, mine: str, b: SSAValue, theirs: str, later: set[str]) -> tuple[SSAValue, str]:
    """The product of two terms, summed over common letters that nothing later needs."""
    batch = [letter for letter in mine if letter in theirs and letter in later]
    inner = [letter for letter in mine if letter in theirs and letter not in later]
    rows = [letter for letter in mine if letter not in theirs]
    columns = [letter for letter in theirs if letter not in mine]
    sizes = dict(zip(mine, ctx.shape_of(a), strict=True))
    sizes |= {k: n for k, n in zip(theirs, ctx.shape_of(b), strict=True) if sizes.get(k, 1) == 1}
    left = _arranged(ctx, a, mine, [batch, rows, inner])
    right = _arranged(ctx, b, theirs, [batch, inner, columns])
    if not inner or left[-1] == right[-2]:
        result = ctx.emit(nn.MatmulOp(_shaped(ctx, a, mine, [batch, rows, inner]), _shaped(
            ctx, b, theirs, [batch, inner, columns]
        )))  # fmt: skip
    else:
        raise UnsupportedError("an einsum whose common sizes differ")
    return ctx.reshape(result, [sizes[letter] for letter in (*batch, *rows, *columns)]), "".join(
        (*batch, *rows, *columns)
    )


def _arranged(ctx: NodeContext, value: SSAValue, letters: str, groups: list[list[str]]) -> tuple[int, ...]:
    """Sizes of the groups of letters."""
    sizes = dict(zip(letters, ctx.shape_of(value), strict=True))
    return tuple(prod(sizes[letter] for letter in group) for group in groups)


def _shaped(ctx: NodeContext, value: SSAValue, letters: str, groups: list[list[str]]) -> SSAValue:
    """``value`` with its batch letters as dimensions and the two other groups each as one."""
    order = [letters.index(letter) for group in groups for letter in group]
    sizes = dict(zip(letters, ctx.shape_of(value), strict=True))
    moved = ctx.transpose(value, order)
    shape = [*(sizes[letter] for letter in groups[0]), *(prod(sizes[k] for k in group) for group in groups[1:])]
    return ctx.reshape(moved, shape)


TABLE: Final[Table] = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
