"""Rules: work along an axis."""

from __future__ import annotations

from dataclasses import replace

from pimc.ir import nn
from random_graphs.case import Value
from random_graphs.drawing import Drawing, Rule, constant

REDUCTIONS = (nn.ReduceSumOp, nn.ReduceMeanOp, nn.ReduceMaxOp, nn.ReduceMinOp)
EXACT_REDUCTIONS = (nn.ReduceMaxOp, nn.ReduceMinOp)


def norm(d: Drawing) -> None:
    x = d.floats()
    features = d.value(x).shape[-1]
    weight = d.source((features,), weight=True)
    if d.random.random() < 0.5:
        d.op("nn.rms_norm", Value(d.value(x).shape), [x, weight], lambda v, w: nn.RmsNormOp(v, w, 1e-2).result)
    else:
        bias = d.source((features,), weight=True)
        d.op(
            "nn.layer_norm", Value(d.value(x).shape), [x, weight, bias],
            lambda v, w, b: nn.LayerNormOp(v, w, b, 1e-2).result,
        )  # fmt: skip


def softmax(d: Drawing) -> None:
    x = d.floats()
    axis = d.axis(x)
    d.op("nn.softmax", Value(d.value(x).shape), [x], lambda v: nn.SoftmaxOp(v, axis).result)


def reduce(d: Drawing) -> None:
    x = d.floats(2)
    value, op = d.value(x), d.random.choice(REDUCTIONS)
    axes = sorted(d.random.sample(range(len(value.shape)), d.random.choice((1, 1, 2))))
    keep = d.random.random() < 0.5
    found = tuple(1 if place in axes else size for place, size in enumerate(value.shape) if keep or place not in axes)
    exact = value.exact and op in EXACT_REDUCTIONS
    d.op(op.name, Value(found, exact=exact), [x], lambda v: op(v, axes, keep).result)


def multiplied(d: Drawing) -> None:
    """The product of all along an axis, or up to each; of factors around one."""
    x = d.floats()
    shape, axis = d.value(x).shape, d.axis(x)
    near = d.op(
        "near one", Value(shape), [x],
        lambda v: nn.AddOp(nn.MulOp(nn.TanhOp(v).result, constant(0.125)).result, constant(1.0)).result,
    )  # fmt: skip
    if d.random.random() < 0.5:
        d.op("nn.cum_prod", Value(shape), [near], lambda v: nn.CumProdOp(v, axis).result)
    else:
        found = (*shape[:axis], *shape[axis + 1 :])
        d.op("nn.reduce_prod", Value(found), [near], lambda v: nn.ReduceProdOp(v, [axis]).result)


def running_sum(d: Drawing) -> None:
    x = d.of_kind("i") if d.random.random() < 0.3 else d.floats()
    axis, reverse, exclusive = d.axis(x), d.random.random() < 0.5, d.random.random() < 0.5
    value = d.value(x)
    d.op(
        "nn.cum_sum", Value(value.shape, value.kind, value.kind == "i"), [x],
        lambda v: nn.CumSumOp(v, axis, exclusive, reverse).result,
    )  # fmt: skip


def extreme(d: Drawing) -> None:
    """Where an extreme of exact numbers is."""
    x = d.of_kind(d.random.choice("fi"))
    shape, axis, op = d.value(x).shape, d.axis(x), d.random.choice((nn.ArgMaxOp, nn.ArgMinOp))
    last, keep = d.random.random() < 0.3, d.random.random() < 0.5
    found = (*shape[:axis], *([1] if keep else []), *shape[axis + 1 :])
    d.op(op.name, Value(found, "i", True), [x], lambda v: op(v, axis, keep, last).result)


def top(d: Drawing) -> None:
    """The first of an order, and where they are."""
    x = d.of_kind(d.random.choice("fi"))
    value, axis, largest = d.value(x), d.axis(x), d.random.random() < 0.6
    k = d.random.randrange(1, min(value.shape[axis], 6) + 1)
    found = (*value.shape[:axis], k, *value.shape[axis + 1 :])
    if d.random.random() < 0.6:
        d.op("nn.top_k", replace(value, shape=found), [x], lambda v: nn.TopKOp(v, k, axis, largest).values)
    if d.random.random() < 0.6:
        d.op("nn.top_k places", Value(found, "i", True), [x], lambda v: nn.TopKOp(v, k, axis, largest).indices)


RULES: dict[Rule, int] = {
    norm: 2,
    softmax: 1,
    reduce: 3,
    multiplied: 1,
    running_sum: 1,
    extreme: 2,
    top: 2,
}
"""Rules and how often they are drawn."""
