"""Rules: elements at computed indices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pimc.ir import nn
from pimc.ir.nn.indexing import REDUCTIONS
from random_graphs.case import Shape, Value
from random_graphs.drawing import Drawing, Rule


def gather(d: Drawing) -> None:
    x = d.anything()
    value, axis = d.value(x), d.axis(x)
    indices = d.indices(value.shape[axis], d.random.choice(((1,), (3,), (4,), (2, 2))))
    found = replace(value, shape=(*value.shape[:axis], *d.value(indices).shape, *value.shape[axis + 1 :]))
    d.op("nn.gather", found, [x, indices], lambda v, i: nn.GatherOp(v, i, axis).result)


def embedding(d: Drawing) -> None:
    rows, features, tokens = d.random.choice((5, 33, 100)), d.random.choice((8, 32, 40)), d.random.choice((1, 3, 9))
    table = d.source((rows, features), weight=True)
    ids = d.given(d.numbers().integers(0, rows, (1, tokens)))
    value = Value((1, tokens, features), exact=True)
    d.op("nn.embedding", value, [table, ids], lambda t, i: nn.EmbeddingOp(t, i).result)


def _places(d: Drawing, x: int) -> tuple[int, int, Shape]:
    """An axis of x, and one index for each of some of its elements."""
    shape, axis = d.value(x).shape, d.axis(x)
    found = tuple(
        d.random.choice((1, 2, 5)) if place == axis else d.random.randrange(1, n + 1) for place, n in enumerate(shape)
    )
    return axis, d.indices(shape[axis], found), found


def gather_elements(d: Drawing) -> None:
    x = d.anything()
    axis, indices, found = _places(d, x)
    d.op(
        "nn.gather_elements", replace(d.value(x), shape=found), [x, indices],
        lambda v, i: nn.GatherElementsOp(v, i, axis).result,
    )  # fmt: skip


def scatter_elements(d: Drawing) -> None:
    x = d.of_kind("i") if d.random.random() < 0.3 else d.floats()
    axis, indices, found = _places(d, x)
    value, reduction = d.value(x), d.random.choice(REDUCTIONS)
    updates = d.source(found, value.kind)
    exact = value.exact and (value.kind == "i" or reduction in ("none", "max", "min"))
    d.op(
        f"nn.scatter_elements {reduction}", replace(value, exact=exact), [x, indices, updates],
        lambda v, i, u: nn.ScatterElementsOp(v, i, u, axis, reduction).result,
    )  # fmt: skip


def _tuples(d: Drawing, x: int) -> tuple[int, int, int]:
    """Tuples that index x: their operand, their number, and how many dimensions they name."""
    shape = d.value(x).shape
    depth, count = d.random.randrange(1, len(shape) + 1), d.random.choice((1, 2, 5))
    rng = d.numbers()
    places = np.stack([rng.integers(-size, size, count) for size in shape[:depth]], axis=1)
    return d.given(places), count, depth


def gather_nd(d: Drawing) -> None:
    x = d.anything()
    indices, count, depth = _tuples(d, x)
    value = d.value(x)
    found = replace(value, shape=(count, *value.shape[depth:]))
    d.op("nn.gather_nd", found, [x, indices], lambda v, i: nn.GatherNdOp(v, i).result)


def scatter_nd(d: Drawing) -> None:
    x = d.of_kind("i") if d.random.random() < 0.3 else d.floats()
    indices, count, depth = _tuples(d, x)
    value, reduction = d.value(x), d.random.choice(REDUCTIONS)
    updates = d.source((count, *value.shape[depth:]), value.kind)
    exact = value.exact and (value.kind == "i" or reduction in ("none", "max", "min"))
    d.op(
        f"nn.scatter_nd {reduction}", replace(value, exact=exact), [x, indices, updates],
        lambda v, i, u: nn.ScatterNdOp(v, i, u, reduction).result,
    )  # fmt: skip


RULES: dict[Rule, int] = {
    gather: 1,
    embedding: 1,
    gather_elements: 1,
    scatter_elements: 1,
    gather_nd: 1,
    scatter_nd: 1,
}
"""Rules and how often they are drawn."""
