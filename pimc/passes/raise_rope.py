"""Positions, position tables and rotary embedding."""

from __future__ import annotations

from math import prod
from typing import Final

from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from pimc.ir import nn
from pimc.ir.nn.base import values_of
from pimc.passes.raise_match import Notes, Replacer, producer, users
from pimc.passes.raise_views import chain, heads_split, same_view, shape_of
from pimc.passes.view_strides import Steps

_PATTERN: Final = "rope"


def raise_positions(function: FuncOp, notes: Notes) -> None:
    """``position + iota`` becomes `nn.positions`."""
    for op in list(function.walk()):
        if not isinstance(op, nn.AddOp) or len(shape_of(op.result)) != 1:
            continue
        for position, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            if shape_of(position) == (1,) and producer(other, nn.IotaOp) and not producer(position, nn.IotaOp):
                count = shape_of(op.result)[0]
                positions = nn.PositionsOp(position, count)
                Replacer.replace(op, positions, nn.ReshapeOp(positions, (count,)))
                break


def raise_rope(function: FuncOp, notes: Notes) -> None:
    """``x * cos + rotate_half(x) * sin`` on split heads becomes `nn.rope` on folded heads; so does the same on the
    first features of each head, joined with the others.
    """
    for op in list(function.walk()):
        if isinstance(op, nn.ConcatOp) and len(shape_of(op.result)) == 4:
            _raise_in_part(op, notes)
    for op in list(function.walk()):
        if isinstance(op, nn.AddOp) and len(shape_of(op.result)) == 4 and not _joined(op):
            found = _rotation(op)
            reason = None if found is None else _replace(op, *found)
            if reason is not None:
                notes.refuse(op, _PATTERN, reason)


def _raise_in_part(joined: nn.ConcatOp, notes: Notes) -> None:
    """``concat(rotated first features, other features)``."""
    total = producer(joined.inputs[0], nn.AddOp)
    other = producer(joined.inputs[1], nn.SliceOp) if len(joined.inputs) == 2 else None
    found = _rotation(total) if total is not None else None
    if found is None or other is None:
        return
    x, cosine, sine = found
    first, shape = producer(x, nn.SliceOp), shape_of(other.x)
    turned = shape_of(x)[-1]
    if first is None or first.x is not other.x:
        return
    starts = (*(0,) * (len(shape) - 1), turned)
    if values_of(other.starts) == starts and values_of(other.stops) == shape and shape_of(x)[:-1] == shape[:-1]:
        reason = _replace(joined, other.x, cosine, sine, turned)
        if reason is not None:
            notes.refuse(joined, _PATTERN, reason)


def _joined(total: nn.AddOp) -> bool:
    """Whether the sum is only part of heads that have been replaced as a whole."""
    parts = users(total.result)
    return bool(parts) and all(isinstance(part, nn.ConcatOp) and not users(part.result) for part in parts)


def _rotation(total: nn.AddOp) -> tuple[SSAValue, SSAValue, SSAValue] | None:
    """``(x, cos, sin)`` of ``x * cos + rotate_half(x) * sin``."""
    products = (producer(total.lhs, nn.MulOp), producer(total.rhs, nn.MulOp))
    for straight, rotated in (products, products[::-1]):
        if straight is None or rotated is None:
            return None
        for turned, sine in ((rotated.lhs, rotated.rhs), (rotated.rhs, rotated.lhs)):
            x = _rotated_half(turned)
            if x is not None and x in (straight.lhs, straight.rhs):
                return x, straight.rhs if straight.lhs is x else straight.lhs, sine
    return None


def _replace(
    total: nn.NnOp, x: SSAValue, cosine: SSAValue, sine: SSAValue, rotary_dim: int | None = None
) -> str | None:
    """Replace ``total``, the turned heads; the reason why not.  Heads may stand before tokens or behind them."""
    shape = shape_of(x)
    if shape[0] != 1:
        return f"a batch of {shape[0]}"
    size = shape[3]
    reason = "the rotated value does not come from folded heads"
    for heads, tokens, arranged in (
        (shape[1], shape[2], heads_split(shape[2], shape[1], size)),
        (shape[2], shape[1], heads_split(shape[1], shape[2], size)[:1]),
    ):
        source = _folded(x, tokens * heads * size, arranged)
        if source is None:
            continue
        table = _table(cosine, sine, tokens, rotary_dim or size)
        if table is None:
            reason = "cosine and sine are not the halves of one row of a table"
            continue
        if shape_of(source) != (1, tokens, heads * size):
            source = Replacer.insert(total, nn.ReshapeOp(source, (1, tokens, heads * size))).result
        rope = nn.RopeOp(source, table, size, rotary_dim)
        views: list[nn.NnOp] = [nn.ReshapeOp(rope, (1, tokens, heads, size))]
        if len(arranged) == 2:
            views.append(nn.TransposeOp(views[0], (0, 2, 1, 3)))
        Replacer.replace(total, rope, *views)
        return None
    return reason


def folded_heads(value: SSAValue, tokens: int, heads: int, size: int, batch: int) -> SSAValue | None:
    """The value whose features, cut into heads, are ``value``; the furthest one, preferably ``[B, M,
    H*D]``.
    """
    return _folded(value, batch * tokens * heads * size, heads_split(tokens, heads, size, batch))


def _folded(value: SSAValue, elements: int, arranged: Steps) -> SSAValue | None:
    """The furthest value (preferably of rank 3) of which ``value`` is the view ``arranged``."""
    best: SSAValue | None = None
    for source, steps in chain(value):
        shape = shape_of(source)
        if source is value or prod(shape) != elements or elements == 0:
            continue
        if same_view(shape, steps, arranged) and (best is None or len(shape) == 3 or len(shape_of(best)) != 3):
            best = source
    return best


def _rotated_half(value: SSAValue) -> SSAValue | None:
    """x of ``concat(-x[..., D/2:], x[..., :D/2])``."""
    joined = producer(value, nn.ConcatOp)
    rank = len(shape_of(value))
    if joined is None or len(joined.inputs) != 2 or joined.axis.value.data % rank != rank - 1:
        return None
    negated = producer(joined.inputs[0], nn.NegOp)
    high = producer(negated.x, nn.SliceOp) if negated is not None else None
    low = producer(joined.inputs[1], nn.SliceOp)
    if high is None or low is None or high.x is not low.x:
        return None
    shape = shape_of(high.x)
    half = shape[-1] // 2
    before = (*shape[:-1], half)
    halves = [(("slice", (0,) * len(shape), before, (1,) * len(shape)),)]
    halves.append((("slice", (*(0,) * (len(shape) - 1), half), shape, (1,) * len(shape)),))
    wanted = [same_view(shape, _steps(part), half_) for part, half_ in zip((low, high), halves, strict=True)]
    return high.x if all(wanted) else None


def _steps(op: nn.SliceOp) -> Steps:
    return next(steps for source, steps in chain(op.result) if source is op.x)


def _table(cosine: SSAValue, sine: SSAValue, tokens: int, size: int) -> SSAValue | None:
    """The rows ``[1, M, 2D]`` of which cosine and sine are the halves."""
    found: list[SSAValue] = []
    for value, start in ((cosine, 0), (sine, size)):
        wanted: Steps = (("slice", (0, 0, start), (1, tokens, start + size), (1, 1, 1)),)
        for source, steps in chain(value):
            if shape_of(source) == (1, tokens, 2 * size) and same_view((1, tokens, 2 * size), steps, wanted):
                found.append(source)
                break
    return found[0] if len(found) == 2 and found[0] is found[1] else None
