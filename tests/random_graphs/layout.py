"""Rules: elements that change their places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from xdsl.dialects.builtin import TensorType, i64

from pimc.ir import nn
from random_graphs.case import Value
from random_graphs.drawing import Drawing, Rule

PAD_MODES = ("constant", "constant", "reflect", "edge", "wrap")


def transpose(d: Drawing) -> None:
    x = d.anything()
    value = d.value(x)
    order = d.random.sample(range(len(value.shape)), len(value.shape))
    found = replace(value, shape=tuple(value.shape[place] for place in order))
    d.op("nn.transpose", found, [x], lambda v: nn.TransposeOp(v, order).result)


def slice_(d: Drawing) -> None:
    x = d.anything()
    value = d.value(x)
    starts = [d.random.randrange(size) for size in value.shape]
    stops = [d.random.randrange(start, size) + 1 for start, size in zip(starts, value.shape, strict=True)]
    steps = [d.random.choice((1, 1, 2)) for _ in value.shape]
    if d.random.random() < 0.15:  # the last dimension backwards
        starts[-1], stops[-1], steps[-1] = stops[-1] - 1, starts[-1] - 1, -1
    found = tuple(len(range(*bounds)) for bounds in zip(starts, stops, steps, strict=True))
    d.op("nn.slice", replace(value, shape=found), [x], lambda v: nn.SliceOp(v, starts, stops, steps).result)


def reshape(d: Drawing) -> None:
    x = d.anything()
    value = d.value(x)
    count = int(np.prod(value.shape))
    first = d.random.choice([n for n in (1, 2, 3, 4, 8) if count % n == 0])
    shape = d.random.choice([(count,), (first, count // first), (count // first, first), (1, count)])
    d.op("nn.reshape", replace(value, shape=shape), [x], lambda v: nn.ReshapeOp(v, shape).result)


def broadcast(d: Drawing) -> None:
    x = d.anything()
    value = d.value(x)
    if np.prod(value.shape) > 256:
        return
    wide = tuple(d.random.choice((2, 3)) if size == 1 else size for size in value.shape)
    shape = (d.random.choice((1, 2)), *wide)
    d.op("nn.broadcast_to", replace(value, shape=shape), [x], lambda v: nn.BroadcastToOp(v, shape).result)


def concat(d: Drawing) -> None:
    x = d.anything()
    value, axis = d.value(x), d.axis(x)
    parts = [x]
    for _ in range(d.random.choice((1, 1, 2))):
        shape = tuple(d.random.choice((1, 2, 5)) if place == axis else n for place, n in enumerate(value.shape))
        parts.append(d.source(shape, value.kind))
    d.random.shuffle(parts)
    joined = list(value.shape)
    joined[axis] = sum(d.value(part).shape[axis] for part in parts)
    found = replace(value, shape=tuple(joined))
    d.op("nn.concat", found, parts, lambda *v: nn.ConcatOp(list(v), axis).result)


def pad(d: Drawing) -> None:
    x = d.anything()
    value, mode = d.value(x), d.random.choice(PAD_MODES)
    most = [3 if mode in ("constant", "edge") else min(3, size) for size in value.shape]
    low, high = ([d.random.randrange(n) for n in most] for _ in range(2))
    found = replace(value, shape=tuple(a + size + b for a, size, b in zip(low, value.shape, high, strict=True)))
    number = 0.5 if value.kind == "f" else 1.0
    d.op(f"nn.pad {mode}", found, [x], lambda v: nn.PadOp(v, low, high, mode, number).result)


def counting(d: Drawing) -> None:
    shape = d.shape()
    axis = d.random.randrange(len(shape))
    d.op("nn.iota", Value(shape, "i", True), [], lambda: nn.IotaOp(TensorType(i64, shape), axis).result)


RULES: dict[Rule, int] = {
    transpose: 2,
    slice_: 2,
    reshape: 2,
    broadcast: 1,
    concat: 2,
    pad: 2,
    counting: 1,
}
"""Rules and how often they are drawn."""
