"""Which mask an attention has: found by computing it for sample positions.
 A mask is integer arithmetic on the position input, a comparison, and views.  It is computed here with numpy
at several positions of the first token of the chunk, the first and the last that fit the cache among them,
and compared with the causal mask, of all keys or of a sliding window.  A mask that depends on anything else than one
position is not causal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import BlockArgument, Operation, SSAValue

from pimc.ir import nn
from pimc.ir.interpreter.core import dense_values
from pimc.passes.raise_views import apply_steps, shape_of, step_of

Array: TypeAlias = npt.NDArray[Any]  # booleans, integers or floats, as the mask has them

_HIDDEN: Final = -1e4
"""A score with this or less added to it is hidden: exp(-1e4) is 0 in any format."""

_BINARY: Final[Mapping[type[Operation], Callable[[Array, Array], Array]]] = {
    nn.AddOp: np.add,
    nn.SubOp: np.subtract,
    nn.MulOp: np.multiply,
    nn.MaximumOp: np.maximum,
    nn.MinimumOp: np.minimum,
    nn.PowOp: np.power,
    nn.AndOp: np.bitwise_and,
}
_COMPARE: Final[Mapping[str, Callable[[Array, Array], Array]]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


class NotAMask(Exception):  # noqa: N818 - a reason, not an error
    """Why a value is no mask that depends on the position alone."""


@dataclass(frozen=True)
class Mask:
    """What is known of a mask: causal from ``position`` (None: from the first key), or the reason why not.

    ``window``: how many keys up to its own a query sees, where that is fewer than there are.
    """

    causal: bool
    position: SSAValue | None = None
    reason: str = ""
    window: int | None = None


@dataclass
class MaskReader:
    """Recognises masks; remembers each, because all layers share one."""

    known: dict[tuple[SSAValue, int, int], Mask] = field(default_factory=dict)

    def read(self, mask: SSAValue, queries: int, keys: int) -> Mask:
        """What ``mask`` hides from ``queries`` x ``keys`` scores."""
        key = (mask, queries, keys)
        if key not in self.known:
            self.known[key] = _read(mask, queries, keys)
        return self.known[key]


def slopes_of(bias: SSAValue, heads: int, keys: int) -> tuple[float, ...] | None:
    """The slopes of a bias ``slope * key`` of every head (ALiBi), up to a number that is the same for all keys; None
    if it is no such bias.
    """
    try:
        if _leaves(bias):
            return None
        values = _compute(bias, None, 0, {})
    except NotAMask:
        return None
    if values.dtype == np.bool_ or values.size != heads * keys or keys < 2:
        return None
    rows = values.reshape(heads, keys).astype(np.float64)
    slopes = rows[:, 1] - rows[:, 0]
    straight = rows[:, :1] + slopes[:, None] * np.arange(keys)
    return tuple(map(float, slopes)) if np.allclose(rows, straight, rtol=1e-4, atol=1e-6) else None


def _read(mask: SSAValue, queries: int, keys: int) -> Mask:
    positions = _leaves(mask)
    if len(positions) > 1:
        return Mask(False, reason="the mask depends on several inputs")
    position = next(iter(positions), None)
    last = keys - queries
    starts = sorted({0, 1, 2, queries, last // 2, last - 1, last} & set(range(last + 1))) if position else [last]
    try:
        window = keys
        for start in reversed(starts):  # one mask at a time: they are as large as a chunk times the cache
            visible = _visible(_compute(mask, position, start, {}), queries, keys)
            if start == last:
                window = max(1, int(visible[-1].sum()))  # the last query has all keys before it
            if not np.array_equal(visible, seen(queries, keys, start, window)):
                return Mask(False, reason=f"the mask at position {start} is not causal")
    except NotAMask as reason:
        return Mask(False, reason=str(reason))
    return Mask(True, position, window=window if window < keys else None)


def seen(queries: int, keys: int, start: int, window: int) -> npt.NDArray[np.bool_]:
    """Boolean ``[queries, keys]``: the last ``window`` keys up to each query's own, the first query's at ``start``."""
    slots = np.arange(keys, dtype=np.int32)
    own = np.arange(start, start + queries, dtype=np.int32)[:, None]
    return (slots <= own) & (slots > own - window)


def _visible(values: Array, queries: int, keys: int) -> npt.NDArray[np.bool_]:
    """Boolean ``[queries, keys]``: which scores count."""
    shown = np.asarray(values) if values.dtype == np.bool_ else np.asarray(values >= _HIDDEN)
    if values.dtype != np.bool_ and np.any(np.asarray(values)[shown] != 0):
        raise NotAMask("the mask adds numbers to visible scores")
    if shown.ndim < 2 or shown.size != shown.shape[-1] * shown.shape[-2]:
        raise NotAMask("the mask differs between heads")
    return np.broadcast_to(shown.reshape(shown.shape[-2:]), (queries, keys))


def _leaves(value: SSAValue) -> set[SSAValue]:
    pending, seen, found = [value], set[SSAValue](), set[SSAValue]()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, BlockArgument):
            found.add(current)
        elif isinstance(current.owner, Operation):
            pending.extend(current.owner.operands)
    return found


def _compute(value: SSAValue, position: SSAValue | None, start: int, known: dict[SSAValue, Array]) -> Array:
    """``value`` where the position input is ``start``."""
    if value is position:
        return np.full(shape_of(value), start, dtype=np.int64)
    if value not in known:
        op = value.owner
        if not isinstance(op, Operation):
            raise NotAMask("the mask depends on an input that is no position")
        known[value] = _apply(op, [_compute(operand, position, start, known) for operand in op.operands])
    return known[value]


def _apply(op: Operation, inputs: list[Array]) -> Array:
    if type(op) in _BINARY:
        return _BINARY[type(op)](*inputs)
    if isinstance(op, nn.CompareOp):
        return _COMPARE[op.predicate.data](*inputs)
    if isinstance(op, nn.SelectOp):
        return np.where(*inputs)
    if isinstance(op, nn.ReshapeOp | nn.TransposeOp | nn.BroadcastToOp | nn.SliceOp):
        return apply_steps(inputs[0], (step_of(op),))
    if isinstance(op, nn.ConcatOp):
        return np.concatenate(inputs, axis=op.axis.value.data)
    if isinstance(op, nn.IotaOp):
        shape = shape_of(op.result)
        return np.indices(shape)[op.axis.value.data] if shape else np.zeros(())
    if isinstance(op, nn.ConstantOp):
        return dense_values(op.value)
    if isinstance(op, nn.PositionsOp):
        return inputs[0] + np.arange(op.count.value.data)[None, :]
    if isinstance(op, nn.CastOp):
        element = nn.tensor_of(op.result).element_type
        boolean = isinstance(element, IntegerType) and element.width.data == 1
        return inputs[0].astype(np.bool_) if boolean else inputs[0].astype(np.float64)
    raise NotAMask(f"the mask is computed with {op.name}")
