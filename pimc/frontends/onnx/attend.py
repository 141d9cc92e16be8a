"""Scaled dot-product attention spelled out in `nn` operators, as the passes recognise it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32, f64, i1, i32
from xdsl.ir import Attribute, SSAValue

from pimc.frontends.onnx.context import NodeContext
from pimc.frontends.onnx.expressions import Expressions, lowest
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

_WIDTH: Final = {"bf16": 1, "f16": 1, "f32": 2, "f64": 3}


@dataclass
class Mask:
    """Which keys each query attends to, and what is added to its scores; all broadcast to ``[B, H, M, N]``.

    ``empty_rows`` says that a query without any key may occur: its result is zero then.
    """

    context: NodeContext
    queries: int
    keys: int
    allowed: SSAValue | None = None
    bias: SSAValue | None = None
    empty_rows: bool = False
    _terms: Expressions = field(init=False)

    def __post_init__(self) -> None:
        self._terms = Expressions(self.context)

    def allow(self, allowed: SSAValue) -> None:
        """Only keys that are ``allowed`` (i1) as well."""
        self.allowed = allowed if self.allowed is None else self._terms.both(self.allowed, allowed)

    def add(self, bias: SSAValue) -> None:
        """Add ``bias`` to the scores."""
        self.bias = bias if self.bias is None else self._terms.add(self.bias, bias)

    def window(self, left: int, right: int, offset: int | SSAValue) -> None:
        """Query i sees keys from ``i + offset - left`` to ``i + offset + right``; a negative bound is none.

        ``offset`` is a number, or i32 that broadcasts to ``[B, 1, 1, 1]``.
        """
        if left < 0 and right < 0:
            return
        terms = self._terms
        rows, columns = terms.iota((self.queries, 1), 0), terms.iota((1, self.keys), 1)
        if not isinstance(offset, int) or offset:
            rows = terms.add(rows, offset)
        if right >= 0:
            self.allow(terms.compare(columns, "le", terms.add(rows, right) if right else rows))
        if left >= 0:
            self.allow(terms.compare(columns, "ge", terms.sub(rows, left) if left else rows))
        static = isinstance(offset, int) and offset >= 0 and offset + self.queries <= self.keys
        self.empty_rows = self.empty_rows or not static

    def lengths(self, lengths: SSAValue) -> None:
        """Batch b has ``lengths[b]`` keys (i32 that broadcasts to ``[B, 1, 1, 1]``)."""
        self.allow(self._terms.compare(self._terms.iota((1, self.keys), 1), "lt", lengths))
        self.empty_rows = True

    def given(self, mask: SSAValue, known: np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None) -> None:
        """A boolean mask (true: attend) or one to add; shorter ones hide the keys behind their end."""
        boolean = self.context.element_of(mask) == i1
        shape = self.context.shape_of(mask)
        missing = self.keys - shape[-1]
        if missing < 0:
            raise UnsupportedError(f"a mask of {shape[-1]} keys for {self.keys}")
        if missing and shape[-1] > 1:  # one column is broadcast
            high = [0] * (len(shape) - 1) + [missing]
            mask = self._terms.pad(
                mask, [0] * len(shape), high, 0.0 if boolean else lowest(self.context.element_of(mask))
            )
        if boolean:
            self.allow(mask)
        else:
            self.add(mask)
        if known is None:
            self.empty_rows = True
        else:
            seen = known if boolean else ~np.isneginf(known.astype(np.float32))
            alone = self.allowed in (None, mask)
            self.empty_rows = self.empty_rows or not alone or not bool(seen.any(axis=-1).all())

    def on(self, scores: SSAValue, hidden: SSAValue | None = None) -> SSAValue:
        """The masked scores; ``hidden`` (the lowest number) stands where a key is not seen."""
        if self.bias is not None:
            scores = self._terms.add(scores, self.context.cast(self.bias, self.context.element_of(scores)))
        if self.allowed is None:
            return scores
        element = self.context.element_of(scores)
        return self._terms.select(self.allowed, scores, lowest(element) if hidden is None else hidden)

    def clear_empty(self, result: SSAValue) -> SSAValue:
        """``result`` (``[B, H, M, ...]``) with zeros for queries without any key."""
        if not self.empty_rows:
            return result
        seen = self.allowed
        if self.bias is not None:
            finite = self.context.emit(nn.NotOp(self.context.emit(nn.IsInfOp(self.bias, positive=False))))
            seen = finite if seen is None else self._terms.both(seen, finite)
        if seen is None:
            return result
        count = self._terms.greatest(self.context.cast(seen, f32), [-1])
        return self._terms.select(self._terms.compare(count, "gt", 0.0), result, 0.0)


@dataclass(frozen=True)
class Attended:
    """Result ``[B, H, M, D]`` and the scores ``[B, H, M, N]`` after each step."""

    result: SSAValue
    raw: SSAValue
    capped: SSAValue
    weights: SSAValue


def repeat_heads(context: NodeContext, value: SSAValue, heads: int) -> SSAValue:
    """Every key/value head repeated for the query heads that share it: ``[B, Hkv, N, D]`` -> ``[B, H, N, D]``."""
    batch, kv_heads, tokens, size = context.shape_of(value)
    if kv_heads == heads:
        return value
    if kv_heads == 0 or heads % kv_heads:
        raise UnsupportedError(f"{heads} query heads share {kv_heads} key and value heads")
    grouped = context.reshape(value, (batch, kv_heads, 1, tokens, size))
    repeated = context.broadcast(grouped, (batch, kv_heads, heads // kv_heads, tokens, size))
    return context.reshape(repeated, (batch, heads, tokens, size))


def attend(
    context: NodeContext,
    query: SSAValue,
    key: SSAValue,
    value: SSAValue,
    mask: Mask,
    *,
    scale: float,
    softcap: float = 0.0,
    precision: Attribute | None = None,
) -> Attended:
    """Scores, soft cap, mask, softmax (in ``precision`` where that is wider than f32), weighted sum.

    query ``[B, H, M, D]``, key and value ``[B, Hkv, N, D]``.
    """
    terms = Expressions(context)
    heads = context.shape_of(query)[1]
    key, value = repeat_heads(context, key, heads), repeat_heads(context, value, heads)
    raw = terms.mul(terms.matmul(query, terms.swap(key)), scale)
    capped = terms.mul(context.emit(nn.TanhOp(terms.div(raw, softcap))), softcap) if softcap > 0 else raw
    masked = mask.on(capped)
    element = context.element_of(query)
    other = precision is not None and (precision == f64 or _WIDTH[str(precision)] < _WIDTH[str(element)])
    if precision is not None and other:
        weights = context.cast(terms.softmax(context.cast(masked, precision)), element)
    else:
        weights = terms.softmax(masked)
    return Attended(mask.clear_empty(terms.matmul(weights, value)), raw, capped, weights)


def lengths_column(context: NodeContext, lengths: SSAValue) -> SSAValue:
    """A number for each batch, of any shape with that many elements, as i32 ``[B, 1, 1, 1]``."""
    batch = int(np.prod(context.shape_of(lengths)))
    return context.reshape(context.cast(lengths, i32), (batch, 1, 1, 1))
