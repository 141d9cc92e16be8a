"""ALiBi: the bias ``slope * (slot - position)`` that is added to a row of scores before its softmax.

Slot j of a core holds position ``j * cores + rank``.  The bias is computed in f32 from a ramp ``0, 1, 2, ...`` and
rounded once: it is small where scores matter, near the query, and large where they do not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext
from pimc.backends.lower.heads import HeadGroup
from pimc.backends.lower.values import Buffer
from pimc.ir.pim.ops import AttentionOp


@dataclass(frozen=True)
class Alibi:
    """The bias of one round: a slope for every query head, the ramp over a core's slots, and room for a row."""

    group: HeadGroup
    slopes: tuple[float, ...]
    share: int
    ramp: Buffer
    bias: Buffer
    rounded: Buffer

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, slots: SSAValue) -> Alibi | None:
        """The bias of an attention, its ramp made for ``slots`` slots (a register); None without slopes."""
        if op.slopes is None:
            return None
        core = ctx.core
        most = ctx.memory.cache(op.k.string_value(), group.index).rows.data
        ramp = ctx.alloc("alibi.ramp", most * F32_BYTES)
        at = core.address(ramp.value)
        with core.loop(core.const(0), slots) as index:
            core.sw(index, core.add(at, core.slli(index, imm=2)))
        core.vitof(at, at, slots)
        share = op.heads.value.data // op.kv_heads.value.data
        bias, rounded = ctx.alloc("alibi.bias", most * F32_BYTES), ctx.alloc("alibi.rounded", most * 2)
        return Alibi(group, tuple(op.slopes.get_values()), share, ramp, bias, rounded)

    def add(self, ctx: LoweringContext, head: int, scores: SSAValue, position: SSAValue, visible: SSAValue) -> None:
        """Add the bias of query head ``head`` of each core's KV head to ``visible`` f16 scores of the query at
        ``position`` (registers).
        """
        core = ctx.core
        slopes = [self.slopes[kv * self.share + head] for kv in self.group.heads]
        at, to = core.address(self.bias.value), core.address(self.rounded.value)
        step = _per_core(ctx, [slope * self.group.cores for slope in slopes])
        core.vmuls_f(at, core.address(self.ramp.value), step, visible)
        first = core.address(ctx.alloc("alibi.first", F32_BYTES).value)
        core.sw(core.sub(core.const(self.group.rank), position), first)
        core.vitof(first, first, core.const(1))
        core.vmuls_f(first, first, _per_core(ctx, slopes), core.const(1))
        core.vadds_f(at, at, first, visible)
        core.vcvt_h(to, at, visible)
        core.vadd_h(scores, scores, to, visible)


def _per_core(ctx: LoweringContext, values: list[float]) -> SSAValue:
    """The address of an f32 that differs from core to core."""
    core = ctx.core
    words = [int.from_bytes(struct.pack("<f", value), "little", signed=True) for value in values]
    buffer = ctx.alloc("alibi.slope", F32_BYTES)
    core.sw(core.const(words), core.address(buffer.value))
    return core.address(buffer.value)
