"""Random machines, and random whole programs for them: decoders, encoders, networks, graphs of operators."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pimc.ir import nn
from random_graphs.case import Graph, Outcome, Value, attempt
from random_graphs.decoders import attempt_decoder, draw_decoder
from random_graphs.draw import draw, drawn
from random_graphs.drawing import Drawing, constant

KB = 1024
#: Sizes of the dimensions of wide graphs, and how many elements their tensors have at most.
WIDE, WIDE_ELEMENTS = (1, 2, 7, 16, 33, 64, 100, 128, 197, 300), 1 << 15


@dataclass(frozen=True)
class Machine:
    """Sizes of a machine: its cores and the columns of their mesh, pseudo-channels of each core, and bytes of a core's
    activation memory.
    """

    cores: int
    columns: int
    channels: int
    activation: int

    @property
    def overrides(self) -> tuple[str, ...]:
        """As ``--set`` takes them."""
        return (
            f"cores.count={self.cores}", f"noc.columns={self.columns}", f"noc.rows={-(-self.cores // self.columns)}",
            f"hbm.stacks={self.cores}", f"hbm.channels={self.channels}", "hbm.pseudo_channels=1",
            f"memory.activation.bytes={self.activation}", f"memory.temp.base={self.activation}",
        )  # fmt: skip


def draw_machine(r: random.Random) -> Machine:
    """1 to 64 cores, powers of two more often than others; 1 to 4 pseudo-channels each; 64 KB to 1 MB."""
    cores = r.choice((1, 2, 4, 8, 16, 32, 64)) if r.random() < 0.5 else r.randint(1, 64)
    activation = r.choice((64, 96, 128, 192, 384, 512, 1024)) * KB
    return Machine(cores, r.randint(1, cores), r.randint(1, 4), activation)


@dataclass(frozen=True)
class Program:
    """A program for a machine; a decoder is told by its seed."""

    kind: str
    machine: Machine
    seed: int
    graph: Graph | None = None

    def attempt(self) -> Outcome:
        """What came of it."""
        if self.graph is None:
            return attempt_decoder(self.seed, self.machine.overrides, wide=True)
        return attempt(self.graph, self.machine.overrides)

    def describe(self) -> str:
        """The machine, and what is not in the text of a graph."""
        sizes = str(draw_decoder(self.seed, wide=True)) if self.graph is None else self.kind
        return f"{self.machine}\n{sizes}"


def draw_program(seed: int) -> Program:
    """The program of a seed and its machine."""
    r = random.Random(f"machine {seed}")
    machine = draw_machine(r)
    kind = r.choices(("decoder", "encoder", "mlp", "graph", "wide graph"), (3, 2, 2, 3, 3))[0]
    if kind == "decoder":
        return Program(kind, machine, seed)
    if kind == "graph":
        return Program(kind, machine, seed, draw(seed))
    if kind == "wide graph":
        return Program(kind, machine, seed, draw(seed, WIDE, WIDE_ELEMENTS))
    return Program(kind, machine, seed, drawn(r, _encoder if kind == "encoder" else _mlp))


def _linear(d: Drawing, x: int, features: int, *, bias: bool) -> int:
    inner = d.value(x).shape[-1]
    operands = [x, d.source((features, inner), weight=True, scale=inner**-0.5)]
    operands += [d.source((features,), weight=True, scale=0.25)] if bias else []
    shape = (*d.value(x).shape[:-1], features)
    return d.op("nn.linear", Value(shape), operands, lambda *v: nn.LinearOp(*v).result)


def _norm(d: Drawing, x: int) -> int:
    features = d.value(x).shape[-1]
    operands = [x, d.source((features,), weight=True), d.source((features,), weight=True)]
    return d.op("nn.layer_norm", Value(d.value(x).shape), operands, lambda *v: nn.LayerNormOp(*v, 1e-2).result)


def _add(d: Drawing, a: int, b: int) -> int:
    return d.op("nn.add", Value(d.value(a).shape), [a, b], lambda v, w: nn.AddOp(v, w).result)


def _feed_forward(d: Drawing, x: int, inner: int, *, bias: bool) -> int:
    gate = _linear(d, x, inner, bias=bias)
    act = d.random.choice((nn.GeluOp, nn.ReluOp, nn.SiluOp))
    hidden = d.op(act.name, Value(d.value(gate).shape), [gate], lambda v: act(v).result)
    if d.random.random() < 0.3:
        up = _linear(d, x, inner, bias=bias)
        hidden = d.op("nn.mul", Value(d.value(gate).shape), [hidden, up], lambda v, w: nn.MulOp(v, w).result)
    return _linear(d, hidden, d.value(x).shape[-1], bias=bias)


def _mlp(d: Drawing) -> None:
    """Feed-forward layers on many rows, with or without norms and residuals."""
    pick = d.random.choice
    rows, width, inner = pick((1, 2, 9, 33, 64, 100)), pick((8, 33, 64, 200, 384)), pick((16, 50, 128, 500, 768))
    bias, residual = d.random.random() < 0.5, d.random.random() < 0.6
    x = d.source(pick([(rows, width), (1, rows, width), (2, max(rows // 2, 1), width)]), weight=False)
    for _ in range(pick((1, 1, 2, 3))):
        y = _feed_forward(d, _norm(d, x) if residual else x, inner, bias=bias)
        x = _add(d, x, y) if residual else y


def _attended(d: Drawing, x: int, heads: int, kv_heads: int, dim: int, mask: int | None, *, causal: bool) -> int:
    query, key, value = (_linear(d, x, n * dim, bias=True) for n in (heads, kv_heads, kv_heads))
    operands = [query, key, value, *([] if mask is None else [mask])]
    return d.op(
        "nn.attention_full", d.value(query), operands,
        lambda q, k, v, m=None: nn.AttentionFullOp(
            q, k, v, m, heads=heads, kv_heads=kv_heads, head_dim=dim, scale=dim**-0.5, causal=causal
        ).result,
    )  # fmt: skip


def _attended_together(d: Drawing, x: int, heads: int, dim: int, mask: int | None) -> int:
    """Of several sequences: products, and a softmax of the scores."""
    batch, tokens, width = d.value(x).shape
    split, scores = (batch, heads, tokens, dim), Value((batch, heads, tokens, tokens))
    parts = []
    for order in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        flat = _linear(d, x, width, bias=True)
        shape = tuple((batch, tokens, heads, dim)[place] for place in order)
        parts.append(
            d.op(
                "split heads", Value(shape), [flat],
                lambda v, o=order: nn.TransposeOp(nn.ReshapeOp(v, (batch, tokens, heads, dim)).result, o).result,
            )
        )  # fmt: skip
    query, key, value = parts
    found = d.op(
        "scores", scores, [query, key],
        lambda q, k: nn.MulOp(nn.MatmulOp(q, k).result, constant(dim**-0.5)).result,
    )  # fmt: skip
    if mask is not None:
        found = d.op("nn.add", scores, [found, mask], lambda v, m: nn.AddOp(v, m).result)
    weights = d.op("nn.softmax", scores, [found], lambda v: nn.SoftmaxOp(v, 3).result)
    mixed = d.op("nn.matmul", Value(split), [weights, value], lambda a, b: nn.MatmulOp(a, b).result)
    return d.op(
        "join heads", d.value(x), [mixed],
        lambda v: nn.ReshapeOp(nn.TransposeOp(v, (0, 2, 1, 3)).result, (batch, tokens, width)).result,
    )  # fmt: skip


def _encoder(d: Drawing) -> None:
    """Layers of attention without a cache and a feed-forward network, on one sequence or several."""
    pick = d.random.choice
    heads, dim, tokens, batch = (
        pick((1, 2, 3, 4, 6, 12)),
        pick((8, 16, 20, 32)),
        pick((1, 5, 17, 40, 77)),
        pick((1, 1, 2)),
    )
    kv_heads = pick([n for n in (1, 2, 3, 4, 12) if heads % n == 0])
    width, inner, causal = heads * dim, pick((32, 96, 300)), d.random.random() < 0.3
    x = d.source((batch, tokens, width), weight=False)
    mask = d.source((batch, 1, 1, tokens), weight=False) if d.random.random() < 0.4 else None
    for _ in range(pick((1, 2))):
        y = _norm(d, x)
        attended = (
            _attended(d, y, heads, kv_heads, dim, mask, causal=causal)
            if batch == 1
            else _attended_together(d, y, heads, dim, mask)
        )
        x = _add(d, x, _linear(d, attended, width, bias=True))
        x = _add(d, x, _feed_forward(d, _norm(d, x), inner, bias=True))
