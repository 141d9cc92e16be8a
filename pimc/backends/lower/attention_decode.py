"""Attention of one query row over the cached slots, on the SRAM-PIM unit.

Keys become rows of the array, as many features as it has lanes in each; values are transposed, a feature a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.attention_exchange import Partial
from pimc.backends.lower.attention_query import HeadRows, own_queries
from pimc.backends.lower.cache_stream import KvBlock, KvStream, slots_before, slots_up_to
from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.heads import HeadGroup, Shape
from pimc.backends.lower.online import OnlineSoftmax, Rows, cap_rows
from pimc.backends.lower.score_bias import score_bias
from pimc.backends.lower.values import Buffer
from pimc.ir.pim.ops import AttentionOp


def decode_partial(
    ctx: LoweringContext, op: AttentionOp, group: HeadGroup, q: HeadRows, shape: Shape, keys: int
) -> Partial:
    """The softmax of the core's own slots, ``keys`` at a time."""
    core = ctx.core
    position = ctx.scalar(op.position)
    first, stop = slots_before(ctx, op, group, position), slots_up_to(ctx, group, position)
    stream = KvStream.of(ctx, op, group, keys)
    stream.begin(ctx, first, stop)
    query = own_queries(ctx, op, q, shape, None)
    softmax = OnlineSoftmax.of(ctx, shape.stacked, shape.dim)
    softmax.begin(ctx)
    bias = score_bias(ctx, op, group, keys)
    scores = ctx.alloc("attention.scores", shape.share * keys * 2)
    array = _Array.of(ctx, shape, keys, stream.pitch)
    with stream.blocks(ctx, first, stop) as block:
        array.load_keys(ctx, block)
        array.turn_values(ctx, block)
        rows = Rows(shape.share, core.address(scores.value), keys * 2, block.count)
        for head in range(shape.share):
            to = core.address(scores.value, head * keys * 2)
            array.scores(ctx, core.address(query.value, head * shape.dim * 2), to, block.count)
        if op.softcap is not None:
            cap_rows(ctx, rows, op.softcap.value.data)
        if bias is not None:
            ahead = core.sub(position, core.add(core.slli(block.first, imm=group.shift), core.const(group.rank)))
            for head in range(shape.share):
                bias.add(ctx, core.const(head), core.address(scores.value, head * keys * 2), ahead, block.count)
        softmax.weigh(ctx, rows, seen=True)
        array.load_values(ctx, block)
        for head in range(shape.share):
            to = core.address(softmax.part.value, head * shape.dim * 2)
            array.weigh_values(ctx, core.address(scores.value, head * keys * 2), to, block.count)
        softmax.add(ctx)
    return Partial(group, shape, softmax)


@dataclass(frozen=True)
class _Array:
    """What of a block lies where in the array: the keys' parts one behind the other, then the values' features."""

    dim: int
    keys: int
    pitch: int
    turned: Buffer

    @staticmethod
    def of(ctx: LoweringContext, shape: Shape, keys: int, pitch: int) -> _Array:
        turned = ctx.alloc("attention.vt", shape.dim * keys * 2)
        return _Array(shape.dim, keys, pitch, turned)

    def parts(self, ctx: LoweringContext) -> range:
        """The first feature of each part of the keys."""
        return range(0, self.dim, ctx.target.array.lanes)

    def width(self, ctx: LoweringContext, feature: int) -> int:
        """Features of the part that begins with ``feature``."""
        return min(ctx.target.array.lanes, self.dim - feature)

    def load_keys(self, ctx: LoweringContext, block: KvBlock) -> None:
        """A slot a row, in each part."""
        core = ctx.core
        for index, feature in enumerate(self.parts(ctx)):
            source = core.add(block.keys, core.const(feature * 2)) if feature else block.keys
            core.pimld(
                core.const(index * self.keys), source, block.count, depth=core.const(self.width(ctx, feature)),
                lane=core.const(0), stride_a=core.const(self.pitch),
            )  # fmt: skip

    def scores(self, ctx: LoweringContext, query: SSAValue, to: SSAValue, count: SSAValue) -> None:
        """to[slot] = query . k[slot], part by part in the accumulators."""
        core = ctx.core
        for index, feature in enumerate(self.parts(ctx)):
            width = self.width(ctx, feature)
            name = f"pimmv_{'a' if feature else 'c'}{'w' if feature + width == self.dim else ''}"
            x = core.add(query, core.const(feature * 2)) if feature else query
            core.emit(name, to, x, core.const(index * self.keys), count, depth=core.const(width))

    def turn_values(self, ctx: LoweringContext, block: KvBlock) -> None:
        """Transpose the values in local memory."""
        ctx.core.trans(
            ctx.core.address(self.turned.value), block.values, rows=block.count, cols=ctx.core.const(self.dim),
            stride_a=ctx.core.const(self.pitch), stride_b=ctx.core.const(self.keys * 2),
        )  # fmt: skip

    def load_values(self, ctx: LoweringContext, block: KvBlock) -> None:
        """A feature a row."""
        core = ctx.core
        core.pimld(
            self._values(ctx), core.address(self.turned.value), core.const(self.dim), depth=block.count,
            lane=core.const(0), stride_a=core.const(self.keys * 2),
        )  # fmt: skip

    def weigh_values(self, ctx: LoweringContext, weights: SSAValue, to: SSAValue, count: SSAValue) -> None:
        """to[feature] = sum over slots of weight * value."""
        ctx.core.pimmv_cw(to, weights, self._values(ctx), ctx.core.const(self.dim), depth=count)

    def _values(self, ctx: LoweringContext) -> SSAValue:
        return ctx.core.const(len(self.parts(ctx)) * self.keys)
