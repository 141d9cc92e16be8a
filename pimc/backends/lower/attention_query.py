"""The queries of a core's KV head, read from where they lie and scaled."""

from __future__ import annotations

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.heads import HeadGroup, Shape
from pimc.backends.lower.values import Buffer, Strip
from pimc.ir.pim.ops import AttentionOp


def query_address(
    ctx: LoweringContext, q: Strip, group: HeadGroup, shape: Shape, row: SSAValue | None = None
) -> SSAValue:
    """A register with the address of the first query of the core's KV head in a row of a replicated tensor."""
    heads = ctx.core.const([kv * shape.width * 2 for kv in group.heads])
    return ctx.core.add(ctx.address(q, row), heads)


def own_queries(
    ctx: LoweringContext, op: AttentionOp, q: Strip, group: HeadGroup, shape: Shape, first: SSAValue | None
) -> Buffer:
    """``shape.rows`` rows from row ``first`` on (None: the first), without gaps: ``[stacked, dim]``.

    They are scaled, so that their products with keys are scores, or with a softcap c, scores / c.
    """
    scale = op.scale.value.data / (1.0 if op.softcap is None else op.softcap.value.data)
    core = ctx.core
    own = ctx.alloc("attention.query", shape.rows * shape.width * 2)
    with ctx.each_row(shape.rows) as row:
        to, at = core.address(own.value), first
        if row is not None:
            to = core.add(to, core.mul(row, core.const(shape.width * 2)))
            at = row if first is None else core.add(first, row)
        source = query_address(ctx, q, group, shape, at)
        core.vmuls_h(to, source, ctx.f32(scale), core.const(shape.width))
    return own
