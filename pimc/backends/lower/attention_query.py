"""What a core needs of its KV head: rows of queries, keys and values where they lie, queries scaled."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.heads import HeadGroup, Shape
from pimc.backends.lower.values import Buffer, Strip
from pimc.ir.layout import layout_of
from pimc.ir.pim.ops import AttentionOp


@dataclass(frozen=True)
class HeadRows:
    """Features of a core's KV head, row by row: ``offsets`` bytes (one number a core) into each row of a strip."""

    strip: Strip
    offsets: tuple[int, ...]

    @staticmethod
    def of(ctx: LoweringContext, value: SSAValue, group: HeadGroup, width: int) -> HeadRows:
        """The ``width`` features of each core's KV head of a value that is whole, or cut by heads."""
        tensor = ctx.tensor(value)
        if layout_of(value.type) is None:
            return HeadRows(tensor.whole, tuple(kv * width * 2 for kv in group.heads))
        return HeadRows(tensor.strips[group.index], (0,))

    def address(self, ctx: LoweringContext, row: SSAValue | None = None) -> SSAValue:
        """A register with the address of the features in a row (None: the first)."""
        return ctx.core.add(ctx.address(self.strip, row), ctx.core.const(self.offsets))


def own_queries(ctx: LoweringContext, op: AttentionOp, q: HeadRows, shape: Shape, first: SSAValue | None) -> Buffer:
    """``shape.rows`` rows from row ``first`` on (None: the first), without gaps: ``[stacked, dim]``.

    They are scaled, so that their products with keys are scores, or with a softcap c, scores / c.
    """
    scale = op.scale.value.data / (1.0 if op.softcap is None else op.softcap.value.data)
    core = ctx.core
    own = ctx.alloc("attention.query", shape.rows * shape.width * 2)
    to, source = (core.address(own.value), shape.width * 2), (q.address(ctx, first), q.strip.pitch)
    core.on_rows("vmuls_h", shape.rows, to, source, (ctx.f32(scale), 0), n=shape.width)
    return own
