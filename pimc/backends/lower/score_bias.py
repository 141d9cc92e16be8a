"""What is added to the scores of cached attention before its softmax: by slopes (ALiBi), or by a table of distances.

Slot j of a core holds position ``j * cores + rank``, so from slot to slot the distance of the query falls by ``cores``:
a row of the table is read backwards, in steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from xdsl.ir import SSAValue

from pimc.backends.lower.alibi import Alibi
from pimc.backends.lower.context import LoweringContext, shape_of
from pimc.backends.lower.heads import HeadGroup
from pimc.backends.lower.values import Buffer
from pimc.ir.pim.ops import AttentionOp

_HALF = 2


class ScoreBias(Protocol):
    """A bias of scores."""

    def add(self, ctx: LoweringContext, head: SSAValue, scores: SSAValue, ahead: SSAValue, count: SSAValue) -> None:
        """Add the bias of query head ``head`` of each core's KV head to ``count`` f16 scores, the first of them of a
        slot ``ahead`` positions before the query (all registers).
        """


def score_bias(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, block: int) -> ScoreBias | None:
    """The bias of an attention that takes ``block`` slots at a time; None without any."""
    if op.bias is not None:
        return _ByDistance.of(ctx, op, op.bias, group, block)
    return Alibi.of(ctx, op, group, block)


@dataclass(frozen=True)
class _ByDistance:
    """Rows of the table for the query heads of each core's KV head, ``pitch`` bytes apart, with zeros before distance
    0: slots behind a query are hidden, but read.
    """

    group: HeadGroup
    table: Buffer
    pitch: int
    zeros: int
    row: Buffer

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionOp, bias: SSAValue, group: HeadGroup, block: int) -> _ByDistance:
        core, weight = ctx.core, ctx.weight(bias)
        region = ctx.memory.replicated(weight.name)
        share, column = op.heads.value.data // op.kv_heads.value.data, ctx.target.hbm.column_bytes
        zeros = -(-(shape_of(op.q)[1] - 1) * _HALF // column) * column
        pitch = zeros + region.row_bytes.data
        table = ctx.alloc("bias.table", share * pitch)
        source = core.const(region.region.base, weight.name)
        for head in range(share):
            to = core.address(table.value, head * pitch)
            if zeros:
                core.vfill_h(to, to, ctx.f32(0.0), core.const(zeros // _HALF))
            rows = core.const([(kv * share + head) * region.row_bytes.data for kv in group.heads])
            to = core.address(table.value, head * pitch + zeros)
            core.hrd(to, core.add(source, rows), core.const(shape_of(bias)[1] * _HALF, weight.name))
        return _ByDistance(group, table, pitch, zeros, ctx.alloc("bias.row", block * _HALF))

    def add(self, ctx: LoweringContext, head: SSAValue, scores: SSAValue, ahead: SSAValue, count: SSAValue) -> None:
        core, to = ctx.core, ctx.core.address(self.row.value)
        source = core.add(core.address(self.table.value, self.zeros), core.slli(ahead, imm=1))
        source = core.add(source, core.mul(head, core.const(self.pitch)))
        core.vmovs_h(to, source, count, stride_a=core.const(-_HALF * self.group.cores), stride_b=core.const(_HALF))
        core.vadd_h(scores, scores, to, count)
