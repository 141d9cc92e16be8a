"""Attention over the cached slots, head-wise on groups of cores with intra-head parallelism over positions.

Each round gives every core one KV head and the slots ``p % n == rank`` of it (``n`` cores a head).
A core takes its slots in blocks, by online softmax, for the query heads of its KV head; the group exchanges maxima and
sums (the paper's All-Gather of the softmax, Fig. 9), scales the outputs, and adds them in slices.
One row may run on the SRAM-PIM unit; rows in blocks on a unit that multiplies matrices.  The pass ``tile`` chose the
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.attention_decode import decode_partial
from pimc.backends.lower.attention_exchange import Partial, send_slices, send_statistics, sum_slices
from pimc.backends.lower.attention_prefill import prefill_partial
from pimc.backends.lower.attention_query import HeadRows
from pimc.backends.lower.cache_stream import slot_address, slot_bytes
from pimc.backends.lower.context import LoweringContext, rows_of, shape_of
from pimc.backends.lower.heads import HeadGroup, Shape, groups_of
from pimc.backends.lower.values import Strip, Tensor
from pimc.ir.pim.ops import AttentionOp, KvAppendOp
from pimc.ir.pim.tiling import AttentionTiling


def lower_kv_append(ctx: LoweringContext, op: KvAppendOp) -> None:
    """The core that owns a position writes the token's key and value rows to their slot."""
    core = ctx.core
    rows, features = rows_of(op.keys), shape_of(op.keys)[-1]
    layer = ctx.scalar(op.layer)
    width = features // sum(round_.heads for round_ in op.rounds.head_rounds)
    for group in groups_of(ctx, op.rounds):
        size = slot_bytes(ctx, op.k, group)
        sources = [HeadRows.of(ctx, value, group, width) for value in (op.keys, op.values)]
        caches = [slot_address(ctx, cache, group, layer) for cache in (op.k, op.v)]
        with _own_rows(ctx, op, group, rows) as (row, position):
            slot = core.mul(core.srli(position, imm=group.shift), core.const(size))
            for source, cache in zip(sources, caches, strict=True):
                head = source.address(ctx, row)
                if 2 * width < size:
                    head = _filled(ctx, head, 2 * width, size)
                core.hwr(head, core.add(cache, slot), core.const(size))


@contextmanager
def _own_rows(
    ctx: LoweringContext, op: KvAppendOp, group: HeadGroup, rows: int
) -> Iterator[tuple[SSAValue | None, SSAValue]]:
    """A loop over the rows whose positions a core owns (None: the only row), giving row and position."""
    core, position = ctx.core, ctx.scalar(op.position)
    mask = group.cores - 1
    if rows == 1:
        with core.if_(core.andi(position, imm=mask), "eq", core.const(group.rank)):
            yield None, position
        return
    first = core.andi(core.sub(core.const(group.rank), position), imm=mask)
    with core.loop(first, rows, group.cores) as row:
        yield row, core.add(position, row)


def _filled(ctx: LoweringContext, head: SSAValue, head_bytes: int, slot_bytes: int) -> SSAValue:
    """The address of a copy of a head's features with zeros behind them, a slot in all."""
    core = ctx.core
    slot = ctx.alloc("kv_append.slot", slot_bytes)
    at, tail = core.address(slot.value), core.address(slot.value, head_bytes)
    core.vmov_h(at, head, core.const(head_bytes // 2))
    core.vfill_h(tail, tail, ctx.f32(0.0), core.const((slot_bytes - head_bytes) // 2))
    return at


def lower_attention_of_token(ctx: LoweringContext, op: AttentionOp) -> None:
    """Attention of one row on the SRAM-PIM unit: partial attention of every round, then the exchange."""
    work = _Attention.of(ctx, op)
    pairs = zip(work.groups, work.queries, strict=True)
    partials = [decode_partial(ctx, op, group, q, work.shape, work.tiling.keys) for group, q in pairs]
    _combine(ctx, partials, [ctx.address(strip) for strip in work.results])
    ctx.set(op.output, work.output())


def lower_attention_of_rows(ctx: LoweringContext, op: AttentionOp) -> None:
    """Attention of rows in blocks, by matrix products; a block's outputs are large: one round after the other."""
    work = _Attention.of(ctx, op)
    size = min(work.shape.rows, work.tiling.rows)
    block = Shape(work.shape.share, work.shape.dim, size)
    with ctx.row_blocks(work.shape.rows, size) as first:
        for group, q, strip in zip(work.groups, work.queries, work.results, strict=True):
            partial = prefill_partial(ctx, op, group, q, block, work.tiling.keys, first)
            _combine(ctx, [partial], [ctx.address(strip, first)])
    ctx.set(op.output, work.output())


@dataclass(frozen=True)
class _Attention:
    """What the lowerings of an attention share: the groups of all rounds, their queries, and where results go."""

    shape: Shape
    tiling: AttentionTiling
    groups: list[HeadGroup]
    queries: list[HeadRows]
    results: list[Strip]

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionOp) -> _Attention:
        groups = list(groups_of(ctx, op.rounds))
        for group in groups:
            if group.cores & (group.cores - 1):  # slots are dealt out by shifts and masks
                raise ctx.unsupported(f"round {group.index}: a group has a power of two of cores, not {group.cores}")
        tiling = AttentionTiling.of(op)
        if tiling is None:
            raise ctx.unsupported("it has no tiling (run tile before lower)")
        rows = rows_of(op.q)
        shape = Shape(op.heads.value.data // op.kv_heads.value.data, op.head_dim.value.data, rows)
        results = [ctx.strip("attention.slice", rows, group.slice(shape)) for group in groups]
        return _Attention(shape, tiling, groups, [HeadRows.of(ctx, op.q, g, shape.width) for g in groups], results)

    def output(self) -> Tensor:
        """The results as strips, one for each part of a head."""
        pairs = zip(self.results, self.groups, strict=True)
        return Tensor(tuple(strip for strip, group in pairs for _ in range(group.cuts(self.shape))))


def _combine(ctx: LoweringContext, partials: list[Partial], results: list[SSAValue]) -> None:
    """Write the outputs of a block of query rows, each core its slice; ``results``: addresses of their first rows.

    All rounds' messages of a kind are sent before those of the next kind are waited for.
    """
    exchanged = [send_statistics(ctx, partial) if partial.group.cores > 1 else None for partial in partials]
    sent = [
        send_slices(ctx, partial, statistics) if statistics is not None else None
        for partial, statistics in zip(partials, exchanged, strict=True)
    ]
    for partial, slices, to in zip(partials, sent, results, strict=True):
        if slices is not None:
            sum_slices(ctx, partial, slices, to)
        else:
            partial.softmax.round(ctx, to, partial.shape.width * 2, partial.shape.share)
