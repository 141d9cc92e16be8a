"""Attention without a cache: a KV head on a group of cores, which share its queries by rows.

The cores of a group exchange the head's features, so that each has all rows of its keys and values; each takes its rows
of queries in blocks that fill the tensor unit, and for each the keys in blocks, by online softmax; then they exchange
again, so that each ends with its share of the features, of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.attention_tensor import Matrix, each_query, hide_columns, multiply_by_columns, multiply_by_rows
from pimc.backends.lower.context import LoweringContext, shape_of
from pimc.backends.lower.exchange import meet, tell_everybody
from pimc.backends.lower.heads import HeadGroup, Shape, groups_of
from pimc.backends.lower.online import OnlineSoftmax, Rows
from pimc.backends.lower.parts import own_indices
from pimc.backends.lower.values import Strip, Tensor
from pimc.backends.lower.views import View, view_of
from pimc.ir.layout import shard_of
from pimc.ir.pim.encoder import AttentionFullOp
from pimc.ir.pim.tiling import AttentionTiling


@dataclass(frozen=True)
class QueryRows:
    """The rows of queries that a core works on: ``most`` of them, from ``first`` on (a number a core).

    What it sends of them are ``count`` rows behind the first ``skipped`` ones: where rows do not divide, the last cores
    work on rows of others too, so that all do the same work in the same order.
    """

    most: int
    first: tuple[int, ...]
    skipped: tuple[int, ...]
    count: tuple[int, ...]

    @staticmethod
    def of(group: HeadGroup, rows: int) -> QueryRows:
        """Equal blocks of rows over the group's cores; the last ones send fewer, or none."""
        most = -(-rows // group.cores)
        first = tuple(min(rank * most, rows - most) for rank in group.rank)
        count = tuple(max(0, min(most, rows - rank * most)) for rank in group.rank)
        skipped = tuple(
            rank * most - start if n else 0 for rank, start, n in zip(group.rank, first, count, strict=True)
        )
        return QueryRows(most, first, skipped, count)


def lower_attention_full(ctx: LoweringContext, op: AttentionFullOp) -> None:
    """Every head round: gather, attend, exchange."""
    queries, share = shape_of(op.q)[1], op.heads.value.data // op.kv_heads.value.data
    shape = Shape(share, op.head_dim.value.data, queries)
    tiling = AttentionTiling.of(op)
    if tiling is None:
        raise ctx.unsupported("it has no tiling (run tile before lower)")
    strips: list[Strip] = []
    for group in groups_of(ctx, op.rounds):
        rows = QueryRows.of(group, queries)
        q = _head(ctx, op.q, group, shape.width)
        k, v = (_head(ctx, value, group, shape.dim) for value in (op.k, op.v))
        out = _attend(ctx, op, group, (q, k, v), rows, shape, tiling)
        strips.extend([_exchange(ctx, group, out, rows, shape)] * group.cuts(shape))
    meet(ctx, tell_everybody(ctx, out))  # groups drift apart; what is gathered next would keep its memory since before
    ctx.set(op.output, Tensor(tuple(strips)))


def _head(ctx: LoweringContext, value: SSAValue, group: HeadGroup, width: int) -> Strip:
    """All rows of the ``width`` features of the core's KV head, without gaps."""
    core, shard, tensor = ctx.core, shard_of(value.type), ctx.tensor(value)
    whole = ctx.strip("attention.head", tensor.rows, width, remote=shard is not None)
    if shard is None:
        strip = tensor.whole
        features = core.const([2 * width * head for head in group.heads])
        source = (core.add(ctx.address(strip), features), strip.pitch)
        core.on_rows("vmov_h", strip.rows, ctx.place(whole), source, n=width)
        return whole
    semaphore, expected = ctx.semaphores.take(), 0
    first, last = min(group.heads) * width, (max(group.heads) + 1) * width
    for index, (strip, round_) in enumerate(zip(tensor.strips, shard.shard_rounds, strict=True)):
        if not first <= round_.start < last:
            continue
        starts, counts = own_indices(shard, index, shape_of(value)[-1], ctx.cores)
        columns = [start - head * width if n else 0 for start, n, head in zip(starts, counts, group.heads, strict=True)]
        expected += group.cores  # a core without features sends an empty message
        core.nmcast2(
            core.address(whole.buffer.value, [2 * column for column in columns]),
            ctx.address(strip),
            core.const([2 * count for count in counts]),
            sem=semaphore,
            group_base=core.const(group.first_core),
            group_size=core.const(group.cores),
            message_rows=core.const(strip.rows),
            message_src_stride=core.const(strip.pitch),
            message_dst_stride=core.const(whole.pitch),
        )
    core.wait(core.const(0), sem=semaphore, imm=expected)
    return whole


def _attend(
    ctx: LoweringContext,
    op: AttentionFullOp,
    group: HeadGroup,
    qkv: tuple[Strip, Strip, Strip],
    rows: QueryRows,
    shape: Shape,
    tiling: AttentionTiling,
) -> Strip:
    """The core's rows of the outputs of its KV head's queries, ``[rows.most, slice * cores]``."""
    core = ctx.core
    q, k, v = qkv
    out = ctx.strip("attention.out", rows.most, group.slice(shape) * group.cores)
    if out.width > shape.width:
        tail = (core.address(out.buffer.value, out.offset + shape.width * 2), out.pitch)
        core.on_rows("vfill_h", rows.most, tail, tail, (ctx.f32(0.0), 0), n=out.width - shape.width)
    size = min(rows.most, tiling.rows)
    block = Shape(shape.share, shape.dim, size)
    with ctx.row_blocks(rows.most, size) as start:
        first = core.const(list(rows.first))
        if start is not None:
            first = core.add(first, start)
        softmax = _block(ctx, op, group, (q, k, v), first, block, tiling.keys)
        softmax.round(ctx, ctx.address(out, start), out.pitch, shape.share)
    return out


def _block(
    ctx: LoweringContext,
    op: AttentionFullOp,
    group: HeadGroup,
    qkv: tuple[Strip, Strip, Strip],
    first: SSAValue,
    shape: Shape,
    most: int,
) -> OnlineSoftmax:
    """The softmax of ``shape.rows`` query rows from row ``first`` on, over the keys in blocks of ``most`` at most."""
    core = ctx.core
    q, k, v = qkv
    keys, size = k.rows, min(k.rows, most)
    query = ctx.alloc("attention.query", shape.rows * shape.width * 2)
    scale, count = ctx.f32(op.scale.value.data), core.const(shape.rows * shape.width)
    core.vmuls_h(core.address(query.value), ctx.address(q, first), scale, count)
    left = Matrix(core.address(query.value), shape.dim * 2)
    softmax = OnlineSoftmax.of(ctx, shape.stacked, shape.dim)
    softmax.begin(ctx)
    scores = ctx.alloc("attention.scores", shape.stacked * size * 2)
    weights, part = (
        Matrix(core.address(scores.value), size * 2),
        Matrix(core.address(softmax.part.value), shape.dim * 2),
    )
    stop = core.const(keys)
    if op.causal.value.data:  # row r sees keys up to r + keys - queries
        ahead = core.add(first, core.const(shape.rows + keys - shape_of(op.q)[1]))
        stop = core.max(core.min(ahead, stop), core.const(0))
    mask = _Mask.of(ctx, op, group, keys)
    with core.loop(core.const(0), stop, size) as key:
        columns = core.min(core.sub(stop, key), core.const(size))
        multiply_by_rows(
            ctx, left, Matrix(ctx.address(k, key), k.pitch), weights, shape.stacked, columns, shape.dim
        )  # fmt: skip
        rows = Rows(shape.stacked, weights.at, weights.pitch, columns)
        if mask is not None:
            mask.add(ctx, rows, shape, first, key)
        if op.causal.value.data:
            hidden = core.add(first, core.const(keys - shape_of(op.q)[1] + 1))
            _hide(ctx, rows, shape, core.sub(hidden, key))
        softmax.weigh(ctx, rows, seen=False)
        multiply_by_columns(
            ctx, weights, Matrix(ctx.address(v, key), v.pitch), part, shape.stacked, shape.dim, columns
        )  # fmt: skip
        softmax.add(ctx)
    return softmax


@dataclass(frozen=True)
class _Mask:
    """What is added to the scores of the core's query heads: ``view`` is ``[1, heads, queries, keys]``."""

    view: View
    heads: tuple[int, ...]

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionFullOp, group: HeadGroup, keys: int) -> _Mask | None:
        """The mask of an attention; None if there is none, or one that is the same for all keys of a query."""
        if op.mask is None:
            return None
        view = view_of(ctx, op.mask).broadcast((1, op.heads.value.data, shape_of(op.q)[1], keys))
        return None if keys > 1 and view.strides[3] == 0 else _Mask(view, group.heads)

    def add(self, ctx: LoweringContext, rows: Rows, shape: Shape, first: SSAValue, key: SSAValue) -> None:
        """Add the mask of query rows from ``first`` on and keys from ``key`` on."""
        core, view = ctx.core, self.view
        line = core.add(core.slli(key, imm=1), core.mul(first, core.const(view.strides[2])))
        for head in range(shape.share):
            own = [view.offset + (kv * shape.share + head) * view.strides[1] for kv in self.heads]
            to = (core.add(rows.at, core.const(head * rows.pitch)), shape.share * rows.pitch)
            lines = (core.add(core.address(view.buffer.value, own), line), view.strides[2])
            core.on_rows("vadd_h", shape.rows, to, to, lines, n=rows.count)


def _hide(ctx: LoweringContext, rows: Rows, shape: Shape, visible: SSAValue) -> None:
    """Hide all but ``visible`` keys of the first query row, one more of each further one, if any are hidden."""
    core = ctx.core
    some = core.if_(visible, "lt", rows.count)
    with some, each_query(ctx, rows, shape.share, visible, shape.rows) as (own, scores):
        seen = core.min(core.max(own, core.const(0)), rows.count)
        hide_columns(ctx, scores, seen, core.sub(rows.count, seen))


def _exchange(ctx: LoweringContext, group: HeadGroup, out: Strip, rows: QueryRows, shape: Shape) -> Strip:
    """Each core's share of the features, of all rows: everybody sends everybody the features of its own rows."""
    if group.cores == 1:
        return out
    core, width = ctx.core, group.slice(shape)
    result = ctx.strip("attention.slice", shape.rows, width, remote=True)
    semaphore = ctx.semaphores.take()
    sent = [start + skip for start, skip in zip(rows.first, rows.skipped, strict=True)]
    to = core.address(result.buffer.value, [first * result.pitch for first in sent])
    lines = core.const([max(1, count) for count in rows.count])
    size = core.const([width * 2 if count else 0 for count in rows.count])
    for step in range(group.cores):
        ranks = [(rank + step) % group.cores for rank in group.rank]
        core.nsend2(
            to,
            core.address(
                out.buffer.value,
                [skip * out.pitch + rank * width * 2 for skip, rank in zip(rows.skipped, ranks, strict=True)],
            ),
            size,
            core.const([first + rank for first, rank in zip(group.first_core, ranks, strict=True)]),
            sem=semaphore,
            message_rows=lines,
            message_src_stride=core.const(out.pitch),
            message_dst_stride=core.const(result.pitch),
        )
    core.wait(core.const(0), sem=semaphore, imm=group.cores)
    return result
