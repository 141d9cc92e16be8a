"""Rules: matrix products, and what is built of them."""

from __future__ import annotations

import numpy as np

from pimc.ir import nn
from random_graphs.case import Shape, Value
from random_graphs.drawing import Drawing, Rule
from random_graphs.elementwise import UNARY


def linear(d: Drawing) -> None:
    x = d.floats()
    inner, outer = d.value(x).shape[-1], d.random.choice((1, 3, 16, 32, 40, 64))
    weight = d.source((outer, inner), weight=True, scale=max(inner, 1) ** -0.5)
    bias = [d.source((outer,), weight=True)] if d.random.random() < 0.5 else []
    shape = (*d.value(x).shape[:-1], outer)
    d.op("nn.linear", Value(shape), [x, weight, *bias], lambda *v: nn.LinearOp(*v).result)


def product(d: Drawing) -> None:
    x = d.floats(2)
    *lead, rows, inner = d.value(x).shape
    batch = lead if d.random.random() < 0.4 else []
    other = d.source((*batch, inner, d.random.choice((1, 3, 8, 20))), scale=max(inner, 1) ** -0.5)
    shape = (*lead, rows, d.value(other).shape[-1])
    d.op("nn.matmul", Value(shape), [x, other], lambda a, b: nn.MatmulOp(a, b).result)


def square(d: Drawing) -> None:
    """A product of two computed values: x times its transpose."""
    x = d.floats(2)
    *lead, rows, _ = d.value(x).shape
    order = [*range(len(lead)), len(lead) + 1, len(lead)]
    d.op(
        "nn.matmul", Value((*lead, rows, rows)), [x],
        lambda a: nn.MatmulOp(nn.TanhOp(a).result, nn.TransposeOp(nn.SigmoidOp(a).result, order).result).result,
    )  # fmt: skip


def integer_product(d: Drawing) -> None:
    rows, inner, columns = (d.random.choice((1, 2, 3, 5, 8)) for _ in range(3))
    a = d.given(d.numbers().integers(-3, 4, (rows, inner)))
    b = d.given(d.numbers().integers(-3, 4, (inner, columns)))
    d.op("nn.matmul", Value((rows, columns), "i", True), [a, b], lambda a, b: nn.MatmulOp(a, b).result)


def layers(d: Drawing) -> None:
    """The same few operators again and again, with weights of their own: outlined to a loop."""
    x = d.source((d.random.choice((1, 1, 4)), d.random.choice((16, 32, 33))))
    width = d.value(x).shape[-1]
    ops = [d.random.choice(UNARY) for _ in range(d.random.randrange(1, 4))]
    twice = d.random.random() < 0.3
    for _ in range(d.random.randrange(2, 5)):
        y = x
        for _ in range(2 if twice else 1):
            weight = d.source((width, width), weight=True, scale=width**-0.5)
            y = d.op("nn.linear", Value(d.value(x).shape), [y, weight], lambda a, b: nn.LinearOp(a, b).result)
            for op in ops:
                y = d.op(op.name, Value(d.value(x).shape), [y], lambda v, op=op: op(v).result)
        x = d.op("nn.add", Value(d.value(x).shape), [x, y], lambda a, b: nn.AddOp(a, b).result)


def recurrence(d: Drawing) -> None:
    """A state from a stored vector, stepped with one matrix."""
    batch, width = d.random.choice((1, 1, 4)), d.random.choice((8, 32))
    state, weight = d.source((batch, width)), d.source((2 * width, width), weight=True, scale=width**-0.5)
    x = d.source((d.random.randrange(2, 4), batch, 2 * width))
    for time in range(d.value(x).shape[0]):
        at = d.op(
            "nn.slice", Value((1, batch, 2 * width)), [x],
            lambda v, t=time: nn.SliceOp(v, [t, 0, 0], [t + 1, batch, 2 * width], [1, 1, 1]).result,
        )  # fmt: skip
        row = d.op("nn.reshape", Value((batch, 2 * width)), [at], lambda v: nn.ReshapeOp(v, (batch, 2 * width)).result)
        total = d.op(
            "nn.linear+", Value((batch, 2 * width)), [row, state, weight],
            lambda r, s, w: nn.AddOp(r, nn.LinearOp(s, w)).result,
        )  # fmt: skip
        gates = [
            d.op(
                "nn.slice", Value((batch, width)), [total],
                lambda v, p=part: nn.SliceOp(v, [0, p * width], [batch, (p + 1) * width], [1, 1]).result,
            )
            for part in range(2)
        ]  # fmt: skip
        state = d.op(
            "gate", Value((batch, width)), [*gates, state],
            lambda a, b, s: nn.AddOp(nn.MulOp(nn.SigmoidOp(a), nn.TanhOp(b)), nn.MulOp(nn.SigmoidOp(b), s)).result,
        )  # fmt: skip


def attention(d: Drawing) -> None:
    """Self-attention and cross-attention; causal, masked, both or neither."""
    heads, dim, tokens = d.random.choice((1, 2, 4, 3)), d.random.choice((4, 8, 16)), d.random.choice((1, 2, 5, 9))
    keys = tokens + d.random.choice((0, 0, 0, 1, 4))
    shared = d.random.choice([n for n in (1, 2, 3, 4) if heads % n == 0])
    width = heads * dim
    x, memory = d.source((1, tokens, width)), d.source((1, keys, width))
    parts = []
    for source, features in ((x, width), (memory, width // shared), (memory, width // shared)):
        weight = d.source((features, width), weight=True, scale=width**-0.5)
        shape = (1, d.value(source).shape[1], features)
        parts.append(
            d.op("nn.linear", Value(shape), [source, weight], lambda a, b: nn.LinearOp(a, b).result)
            if d.random.random() < 0.8
            else d.source(shape)
        )
    causal = d.random.random() < 0.4
    if d.random.random() < 0.4:
        full = (1, heads, tokens, keys)
        mask: Shape = tuple(size if place > 1 or d.random.random() < 0.5 else 1 for place, size in enumerate(full))
        parts.append(d.source(mask[d.random.choice((0, 2)) :] if mask[1] == 1 else mask))
    d.op(
        "nn.attention_full", Value((1, tokens, width)), parts,
        lambda q, k, v, mask=None: nn.AttentionFullOp(
            q, k, v, mask, heads=heads, kv_heads=heads // shared, head_dim=dim, scale=dim**-0.5, causal=causal
        ).result,
    )  # fmt: skip


def convolution(d: Drawing) -> None:
    """One to three dimensions; steps, distances, padding and groups; weights stored or given."""
    pick, rank = d.random.choice, d.random.choice((1, 2, 2, 2, 3))
    groups = pick((1, 1, 1, 2, 3))
    channels, outputs = groups * pick((1, 2, 3, 8)), groups * pick((1, 2, 5, 40))
    sizes = [pick((1, 2, 5, 6, 9, 12) if rank < 3 else (1, 2, 4, 5)) for _ in range(rank)]
    places = [pick((1, 2, 3, 3, 5)) for _ in range(rank)]
    strides, dilations = ([pick((1, 1, 2, 3)) for _ in range(rank)] for _ in range(2))
    low = [d.random.randrange(places[dim]) for dim in range(rank)]
    reach = [dilation * (count - 1) + 1 for dilation, count in zip(dilations, places, strict=True)]
    high = [max(d.random.randrange(3), reach[dim] - sizes[dim] - low[dim]) for dim in range(rank)]
    window = nn.Window(*(tuple(numbers) for numbers in (strides, dilations, low, high)))
    x = d.source((pick((1, 1, 2)), channels, *sizes))
    inner = channels // groups
    scale = (inner * int(np.prod(places))) ** -0.5
    operands = [x, d.source((outputs, inner, *places), weight=d.random.random() < 0.7, scale=scale)]
    if d.random.random() < 0.5:
        operands.append(d.source((outputs,), weight=True))
    shape = (d.value(x).shape[0], outputs, *window.counts(sizes, places))
    d.op(
        "nn.conv", Value(shape), operands, lambda x, w, b=None: nn.ConvOp(x, w, b, window, groups).result
    )  # fmt: skip


def pooling(d: Drawing) -> None:
    """The greatest under windows of one to three dimensions, of floats and integers."""
    pick, rank = d.random.choice, d.random.choice((1, 2, 2, 3))
    sizes, places = ([pick(choice) for _ in range(rank)] for choice in ((1, 2, 5, 6, 9), (1, 2, 3)))
    strides, dilations = ([pick((1, 1, 2, 3)) for _ in range(rank)] for _ in range(2))
    low = [d.random.randrange(count) for count in places]
    reach = [dilation * (count - 1) + 1 for dilation, count in zip(dilations, places, strict=True)]
    high = [max(d.random.randrange(2), reach[dim] - sizes[dim] - low[dim]) for dim in range(rank)]
    window = nn.Window(*(tuple(numbers) for numbers in (strides, dilations, low, high)))
    kind = pick("ffi")
    x = d.source((pick((1, 1, 2)), pick((1, 2, 3, 8)), *sizes), kind)
    counts = window.counts(sizes, places)
    if any(  # a window that meets nothing of x would be infinite
        not any(0 <= at * stride + place * dilation - before < size for place in range(count))
        for size, count, stride, dilation, before, positions in zip(
            sizes, places, strides, dilations, low, counts, strict=True
        )
        for at in range(positions)
    ):
        return
    value = Value((*d.value(x).shape[:2], *counts), kind, d.value(x).exact)
    d.op("nn.max_pool", value, [x], lambda x: nn.MaxPoolOp(x, places, window).result)


RULES: dict[Rule, int] = {
    pooling: 1,
    convolution: 2,
    linear: 6,
    product: 2,
    square: 1,
    integer_product: 1,
    layers: 2,
    recurrence: 1,
    attention: 2,
}
"""Rules and how often they are drawn."""
