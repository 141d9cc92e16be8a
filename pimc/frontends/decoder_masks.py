"""Masks of decoders whose caches grow: what they hide once keys and values lie in slots of a static cache.

A decoder with past keys and values as inputs attends to all of the past.  Imported for one length of the past, its
mask is a constant; over a cache with a slot for every position, each query must see the slots up to its own position
and no further, whatever the position is, or the last ones up to it where the model has a sliding window.  Here the
constant is checked to be such a mask of that length, and a mask that follows the position takes its place.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp, TensorType, f32, i32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.traits import Pure

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.interpreter.core import Frame, Interpreter
from pimc.ir.locations import where, with_location

Array: TypeAlias = npt.NDArray[Any]  # truth values or floats, as the mask has them

LOWEST: Final = -(2.0 - 2.0**-23) * 2.0**127
"""The lowest f32: the score of a hidden position (an infinity has no text form that parses back)."""

_HIDDEN: Final = -1e4
"""A score with this or less added to it is hidden: exp(-1e4) is 0 in any format."""


def mask_by_position(function: FuncOp, position: SSAValue, queries: int, slots: int) -> int:
    """Give every softmax over ``slots`` scores of cached keys the mask of ``position``; the number of them.

    InputError where such a softmax has a mask that is no constant, or neither causal nor that of a window.
    """
    found = 0
    for op in list(function.walk()):
        if isinstance(op, nn.SoftmaxOp) and nn.tensor_of(op.x).get_shape()[-1] == slots and _reads_cache(op.x):
            scores, window = _without_mask(op, queries, slots)
            op.operands[0] = _masked(op, scores, position, queries, slots, window)
            _drop_nan_guard(op)
            found += 1
    return found


def _reads_cache(value: SSAValue) -> bool:
    """Whether ``value`` is a product with cached keys, scaled and masked."""
    pending, seen = [value], set[SSAValue]()
    while pending:
        current = pending.pop()
        owner = current.owner
        if current in seen or not isinstance(owner, Operation):
            continue
        seen.add(current)
        if isinstance(owner, nn.CacheReadOp):
            return True
        pending.extend(owner.operands)
    return False


def _without_mask(softmax: nn.SoftmaxOp, queries: int, slots: int) -> tuple[SSAValue, int]:
    """The scores under their masks (sums with a constant, choices by a constant), and how many slots up to its own a
    query sees.
    """
    value: SSAValue = softmax.x
    ahead = _ahead(queries, slots)
    shown = ahead <= 0
    while True:
        owner = value.owner
        if isinstance(owner, nn.AddOp):
            left, right = owner.lhs, owner.rhs
            scores, mask = (left, right) if _reads_cache(left) else (right, left)
        elif isinstance(owner, nn.SelectOp):
            scores, mask = owner.a, owner.condition
        else:
            break
        shown = shown & _shown(mask, owner, queries, slots)
        value = scores
    window = max(1, int(shown[-1].sum()))
    if not np.array_equal(shown, (ahead <= 0) & (ahead > -window)):
        raise _not_causal(softmax)
    return value, window


def _shown(mask: SSAValue, op: Operation, queries: int, slots: int) -> npt.NDArray[np.bool_]:
    """Which scores a mask lets through, ``[queries, slots]``, none of them behind a query's own slot."""
    array = _constant(mask)
    if array is None:
        raise InputError(
            "attention has a mask that depends on more than positions",
            where=where(op),
            hint="export the model with a mask that follows from position_ids and attention_mask",
        )
    shown = np.asarray(array if array.dtype == np.bool_ else array >= _HIDDEN)
    if array.dtype != np.bool_ and np.any(array[shown]):
        raise _not_causal(op)
    if array.ndim >= 2 and array.shape[-2] not in (1, queries):
        raise _not_causal(op)
    by_head = np.broadcast_to(shown, np.broadcast_shapes(shown.shape, (1, queries, slots))).reshape(-1, queries, slots)
    flat = by_head[0]
    if np.any(by_head != flat) or np.any(flat & (_ahead(queries, slots) > 0)):
        raise _not_causal(op)
    return np.asarray(flat, np.bool_)


def _ahead(queries: int, slots: int) -> Array:
    """How far each slot lies behind a query's own, ``[queries, slots]``; the last slot is the last query's."""
    return np.arange(slots)[None, :] - (slots - queries) - np.arange(queries)[:, None]


def _not_causal(op: Operation) -> InputError:
    return InputError(
        "attention has a mask that is not causal, or a bias that is added to the scores",
        where=where(op),
        hint="causal attention over the cache, or over a sliding window of it, is supported",
    )


def _constant(value: SSAValue) -> Array | None:
    """What ``value`` is where it follows from constants alone."""
    op = value.owner
    if not isinstance(op, nn.NnOp) or isinstance(op, nn.ParamOp) or len(op.results) != 1 or not op.has_trait(Pure):
        return None
    inputs = [_constant(operand) for operand in op.operands]
    known = [array for array in inputs if array is not None]
    if len(known) < len(inputs):
        return None
    interpreter = Interpreter(ModuleOp([]), None, "f32")
    (result,) = interpreter.table.lookup(op).run(Frame(interpreter), op, known)
    return np.asarray(result)


def _masked(op: Operation, scores: SSAValue, position: SSAValue, queries: int, slots: int, window: int) -> SSAValue:
    """``position + query - window < slot <= position + query ? scores : lowest``, in the form that PyTorch decoders
    have; without the lower bound where there is none.
    """
    columns = nn.IotaOp(TensorType(i32, (1, slots)), 1)
    rows = nn.IotaOp(TensorType(i32, (queries,)))
    own = nn.AddOp(position, rows)
    column = nn.ReshapeOp(own, (queries, 1))
    visible: nn.NnOp = nn.CompareOp(columns, column, "le")
    made: list[Operation] = [columns, rows, own, column, visible]
    if window < slots:
        size = nn.ConstantOp.from_array(np.int32(window), i32)
        start = nn.SubOp(column, size)
        near = nn.CompareOp(columns, start, "gt")
        visible = nn.AndOp(visible, near)
        made += [size, start, near, visible]
    lowest = nn.ConstantOp.from_array(np.float32(LOWEST), f32)
    chosen = nn.SelectOp(visible, scores, lowest)
    block = op.parent_block()
    assert block is not None
    block.insert_ops_before([with_location(new, op) for new in (*made, lowest, chosen)], op)
    return chosen.result


def _drop_nan_guard(softmax: nn.SoftmaxOp) -> None:
    """Exporters replace NaN, what a softmax gives where all is hidden; here a query always sees itself."""
    for use in list(softmax.result.uses):
        guard = use.operation
        if isinstance(guard, nn.IsNanOp):
            for user in [use.operation for use in guard.result.uses]:
                if isinstance(user, nn.SelectOp) and user.b is softmax.result:
                    user.result.replace_all_uses_with(softmax.result)
