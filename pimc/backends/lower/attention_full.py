"""Attention without a cache: a KV head on a group of cores, which share its queries by rows.

The cores of a group exchange the head's features, so that each has all rows of its keys and values; each multiplies
and normalises its rows of queries on tensor and vector unit; then they exchange again, so that each ends with its share
of the features, of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext, shape_of
from pimc.backends.lower.exchange import meet, round_counts, tell_everybody
from pimc.backends.lower.heads import HeadGroup, Shape, groups_of
from pimc.backends.lower.values import Strip, Tensor
from pimc.backends.lower.views import View, view_of
from pimc.ir.layout import shard_of
from pimc.ir.pim.encoder import AttentionFullOp


@dataclass(frozen=True)
class Rows:
    """The rows of queries that a core works on: at most ``most``, from ``first`` on (one number a core).

    A core without rows of its own computes the last one again and sends nothing: what it does is then ordered like the
    work of the others (an instruction on no elements waits for nothing).
    """

    most: int
    first: tuple[int, ...]
    count: tuple[int, ...]
    own: tuple[bool, ...]

    @staticmethod
    def of(group: HeadGroup, rows: int) -> Rows:
        """Equal blocks of rows over the group's cores; the last ones may have fewer, or none."""
        most = -(-rows // group.cores)
        first = tuple(min(rank * most, rows - 1) for rank in group.rank)
        count = tuple(min(most, rows - start) for start in first)
        return Rows(most, first, count, tuple(rank * most < rows for rank in group.rank))

    def block(self, start: int, size: int) -> list[int]:
        """How many of the rows ``start .. start + size`` of its own each core has."""
        return [max(0, min(size, count - start)) for count in self.count]


def lower_attention_full(ctx: LoweringContext, op: AttentionFullOp) -> None:
    """Every head round: gather, attend, exchange."""
    queries, share = shape_of(op.q)[1], op.heads.value.data // op.kv_heads.value.data
    shape = Shape(share, op.head_dim.value.data, queries)
    strips: list[Strip] = []
    scaled = _scaled(ctx, op)
    for group in groups_of(ctx, op.rounds):
        rows = Rows.of(group, queries)
        q = _head(ctx, op.q, scaled, group, shape.width)
        k, v = (_head(ctx, value, ctx.tensor(value), group, shape.dim) for value in (op.k, op.v))
        out = _attend(ctx, op, group, (q, k, v), rows, shape)
        strips.extend([_exchange(ctx, group, out, rows, shape)] * group.cuts(shape))
    meet(ctx, tell_everybody(ctx, out))  # groups drift apart; what is gathered next would keep its memory since before
    ctx.set(op.output, Tensor(tuple(strips)))


def _scaled(ctx: LoweringContext, op: AttentionFullOp) -> Tensor:
    """The queries times the scale, where they are."""
    source = ctx.tensor(op.q)
    result = ctx.like("attention.query", source)
    for x, to in zip(source.strips, result.strips, strict=True):
        with ctx.each_row(x.rows) as row:
            ctx.core.vmuls_h(
                ctx.address(to, row), ctx.address(x, row), ctx.f32(op.scale.value.data), ctx.core.const(x.width)
            )
    return result


def _head(ctx: LoweringContext, value: SSAValue, tensor: Tensor, group: HeadGroup, width: int) -> Strip:
    """All rows of the ``width`` features of the core's KV head; ``offset`` of the strip is one a core if replicated."""
    core, shard = ctx.core, shard_of(value.type)
    whole = ctx.strip("attention.head", tensor.rows, width, remote=shard is not None)
    if shard is None:
        strip = tensor.whole
        with ctx.each_row(strip.rows) as row:
            at = core.add(ctx.address(strip, row), core.const([2 * width * head for head in group.heads]))
            core.vmov_h(ctx.address(whole, row), at, core.const(width))
        return whole
    semaphore, expected = ctx.semaphores.take(), 0
    first, last = min(group.heads) * width, (max(group.heads) + 1) * width
    for index, (strip, round_) in enumerate(zip(tensor.strips, shard.shard_rounds, strict=True)):
        if not first <= round_.start < last:
            continue
        starts, counts = round_counts(shard.shard_rounds, index, shape_of(value)[-1], ctx.cores)
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
    rows: Rows,
    shape: Shape,
) -> Strip:
    """The core's rows of the outputs of its KV head's queries, ``[rows.most, slice * cores]``."""
    core = ctx.core
    q, k, v = qkv
    out = ctx.strip("attention.out", rows.most, group.slice(shape) * group.cores)
    if out.width > shape.width:
        with ctx.each_row(rows.most) as row:
            tail = core.add(ctx.address(out, row), core.const(shape.width * 2))
            core.vfill_h(tail, tail, ctx.f32(0.0), core.const(out.width - shape.width))
    mask = view_of(ctx, op.mask).broadcast((1, op.heads.value.data, shape.rows, k.rows)) if op.mask else None
    scores = ctx.strip("attention.scores", rows.most, k.rows)
    for head in range(shape.share):
        features = head * shape.dim * 2
        own = core.address(q.buffer.value, [q.offset + first * q.pitch + features for first in rows.first])
        _multiply(ctx, (own, q.pitch), ctx.address(k), (scores, 0), rows, (k.rows, shape.dim), transposed=True)
        _softmax(ctx, op, group, scores, rows, None if mask is None else (mask, head))
        left = (ctx.address(scores), scores.pitch)
        _multiply(ctx, left, ctx.address(v), (out, features), rows, (shape.dim, k.rows), transposed=False)
    return out


def _multiply(
    ctx: LoweringContext,
    left: tuple[SSAValue, int],
    right: SSAValue,
    to: tuple[Strip, int],
    rows: Rows,
    sizes: tuple[int, int],
    *,
    transposed: bool,
) -> None:
    """``to = left @ right`` for the core's rows, in blocks of the tensor unit.

    ``left``: address of the first row, bytes from row to row.  ``right``: ``[columns, depth]`` if transposed, else
    ``[depth, columns]``, without gaps.  ``sizes``: columns, depth.  ``to``: a strip, and the byte of its first column.
    """
    core, tcu = ctx.core, ctx.target.tcu
    columns, depth = sizes
    (at, pitch), (strip, offset) = left, to
    step = depth * 2 if transposed else 2
    multiply = core.tmmc_nk if transposed else core.tmmc_kn
    for row in range(0, rows.most, tcu.rows):
        count = core.const(rows.block(row, tcu.rows))
        for column in range(0, columns, tcu.columns):
            cols = core.const(min(tcu.columns, columns - column))
            a, b = core.add(at, core.const(row * pitch)), core.add(right, core.const(column * step))
            multiply(
                a, b, rows=count, cols=cols, depth=core.const(depth), stride_a=core.const(pitch),
                stride_b=core.const(depth * 2 if transposed else columns * 2),
            )  # fmt: skip
            place = core.address(strip.buffer.value, strip.offset + row * strip.pitch + offset + column * 2)
            core.twb(place, rows=count, cols=cols, stride_c=core.const(strip.pitch))


def _softmax(
    ctx: LoweringContext,
    op: AttentionFullOp,
    group: HeadGroup,
    scores: Strip,
    rows: Rows,
    mask: tuple[View, int] | None,
) -> None:
    """Softmax of the core's rows of scores, with the mask of the core's query head added."""
    core, keys = ctx.core, scores.width
    share, queries = op.heads.value.data // op.kv_heads.value.data, shape_of(op.q)[1]
    every = core.const(keys)
    statistics = ctx.alloc("attention.statistics", 2 * F32_BYTES)
    top, total = core.address(statistics.value), core.address(statistics.value, F32_BYTES)
    with core.loop(core.const(0), core.const(list(rows.count))) as row:
        at = ctx.address(scores, row)
        if mask is not None:
            view, head = mask
            places = [
                view.offset + (kv * share + head) * view.strides[1] + first * view.strides[2]
                for kv, first in zip(group.heads, rows.first, strict=True)
            ]
            line = core.add(core.address(view.buffer.value, places), core.mul(row, core.const(view.strides[2])))
            core.vadd_h(at, at, line, every)
        visible = every
        if op.causal.value.data:
            ahead = core.add(row, core.const([first + keys - queries + 1 for first in rows.first]))
            visible = core.max(ahead, core.const(0))
        core.vrmax_h(top, at, visible)
        core.vexps_h(at, at, top, visible)
        core.vrsum_h(total, at, visible)
        core.vdivs_h(at, at, total, visible)
        if op.causal.value.data:
            hidden = core.add(at, core.slli(visible, imm=1))
            core.vfill_h(hidden, hidden, ctx.f32(0.0), core.sub(every, visible))


def _exchange(ctx: LoweringContext, group: HeadGroup, out: Strip, rows: Rows, shape: Shape) -> Strip:
    """Each core's share of the features, of all rows: everybody sends everybody the features of its own rows."""
    if group.cores == 1:
        return out
    core, width = ctx.core, group.slice(shape)
    result = ctx.strip("attention.slice", shape.rows, width, remote=True)
    semaphore = ctx.semaphores.take()
    to = core.address(result.buffer.value, [first * result.pitch for first in rows.first])
    lines = core.const(list(rows.count))
    size = core.const([width * 2 if own else 0 for own in rows.own])
    for step in range(group.cores):
        ranks = [(rank + step) % group.cores for rank in group.rank]
        core.nsend2(
            to,
            core.address(out.buffer.value, [out.offset + rank * width * 2 for rank in ranks]),
            size,
            core.const([first + rank for first, rank in zip(group.first_core, ranks, strict=True)]),
            sem=semaphore,
            message_rows=lines,
            message_src_stride=core.const(out.pitch),
            message_dst_stride=core.const(result.pitch),
        )
    core.wait(core.const(0), sem=semaphore, imm=group.cores)
    return result
