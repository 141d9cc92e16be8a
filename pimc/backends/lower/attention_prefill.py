"""Attention of a block of query rows over the cached slots, on the tensor unit.

The query heads of a KV head are rows of one block: row ``r * share + h`` is head h of query row r.
"""

from __future__ import annotations

from xdsl.ir import SSAValue

from pimc.backends.lower.attention_exchange import Partial
from pimc.backends.lower.attention_query import HeadRows, own_queries
from pimc.backends.lower.attention_tensor import Matrix, each_query, hide_columns, multiply_by_columns, multiply_by_rows
from pimc.backends.lower.cache_stream import KvBlock, KvStream, slots_before, slots_up_to
from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.heads import HeadGroup, Shape
from pimc.backends.lower.online import OnlineSoftmax, Rows, cap_rows
from pimc.backends.lower.score_bias import ScoreBias, score_bias
from pimc.ir.pim.ops import AttentionOp


def prefill_partial(
    ctx: LoweringContext, op: AttentionOp, group: HeadGroup, q: HeadRows, shape: Shape, keys: int, row: SSAValue | None
) -> Partial:
    """The softmax of the core's own slots, ``keys`` at a time, for ``shape.rows`` query rows from ``row`` on."""
    core = ctx.core
    position = ctx.scalar(op.position)
    if row is not None:
        position = core.add(position, row)
    first = slots_before(ctx, op, group, position)
    stop = slots_up_to(ctx, group, core.addi(position, imm=shape.rows - 1))
    stream = KvStream.of(ctx, op, group, keys)
    stream.begin(ctx, first, stop)
    query = own_queries(ctx, op, q, shape, row)
    softmax = OnlineSoftmax.of(ctx, shape.stacked, shape.dim)
    softmax.begin(ctx)
    bias = score_bias(ctx, op, group, keys)
    scores = ctx.alloc("attention.scores", shape.stacked * keys * 2)
    left = Matrix(core.address(query.value), shape.dim * 2)
    weights, part = (
        Matrix(core.address(scores.value), keys * 2),
        Matrix(core.address(softmax.part.value), shape.dim * 2),
    )
    with stream.blocks(ctx, first, stop) as block:
        multiply_by_rows(ctx, left, Matrix(block.keys, stream.pitch), weights, shape.stacked, block.count, shape.dim)
        rows = Rows(shape.stacked, weights.at, keys * 2, block.count)
        if op.softcap is not None:
            cap_rows(ctx, rows, op.softcap.value.data)
        if bias is not None:
            _add_bias(ctx, bias, group, shape, rows, position, block)
        if op.causal.value.data:
            _hide_later(ctx, group, shape, rows, position, block)
        if op.window is not None:
            _hide_earlier(ctx, op, group, shape, rows, position, block)
        softmax.weigh(ctx, rows, seen=False)
        values = Matrix(block.values, stream.pitch)
        multiply_by_columns(ctx, weights, values, part, shape.stacked, shape.dim, block.count)
        softmax.add(ctx)
    return Partial(group, shape, softmax)


def _add_bias(
    ctx: LoweringContext,
    bias: ScoreBias,
    group: HeadGroup,
    shape: Shape,
    rows: Rows,
    position: SSAValue,
    block: KvBlock,
) -> None:
    """Add the bias to every row of scores."""
    core = ctx.core
    first = core.add(core.slli(block.first, imm=group.shift), core.const(group.rank))
    with core.loop(core.const(0), core.const(shape.rows)) as row:
        ahead = core.sub(core.add(position, row), first)
        with core.loop(core.const(0), core.const(shape.share)) as head:
            index = core.add(core.mul(row, core.const(shape.share)), head)
            at = core.add(rows.at, core.mul(index, core.const(rows.pitch)))
            bias.add(ctx, head, at, ahead, block.count)


def _hide_later(
    ctx: LoweringContext, group: HeadGroup, shape: Shape, rows: Rows, position: SSAValue, block: KvBlock
) -> None:
    """Hide the slots behind a query row's own position, in blocks where there are such rows."""
    core = ctx.core
    behind = core.add(block.first, block.count)
    some = core.if_(slots_up_to(ctx, group, position), "lt", behind)
    with some, each_query(ctx, rows, shape.share, position, shape.rows) as (own, scores):
        seen = _within(ctx, slots_up_to(ctx, group, own), block)
        hide_columns(ctx, scores, seen, core.sub(block.count, seen))


def _hide_earlier(
    ctx: LoweringContext,
    op: AttentionOp,
    group: HeadGroup,
    shape: Shape,
    rows: Rows,
    position: SSAValue,
    block: KvBlock,
) -> None:
    """Hide the slots before a query row's window, in blocks where there are such rows."""
    core = ctx.core
    last = slots_before(ctx, op, group, core.addi(position, imm=shape.rows - 1))
    some = core.if_(block.first, "lt", last)
    with some, each_query(ctx, rows, shape.share, position, shape.rows) as (own, scores):
        hidden = _within(ctx, slots_before(ctx, op, group, own), block)
        hide_columns(ctx, scores, core.const(0), hidden)


def _within(ctx: LoweringContext, slot: SSAValue, block: KvBlock) -> SSAValue:
    """How many slots of a block lie before ``slot``."""
    core = ctx.core
    return core.min(core.max(core.sub(slot, block.first), core.const(0)), block.count)
