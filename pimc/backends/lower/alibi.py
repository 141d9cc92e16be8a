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
    """The bias of one round: for every query head its slope and the bias of the slots of a block to its first one,
    f32; and room for a row.
    """

    group: HeadGroup
    block: int
    slopes: Buffer
    steps: Buffer
    bias: Buffer
    rounded: Buffer
    first: Buffer

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, block: int) -> Alibi | None:
        """The bias of an attention that takes ``block`` slots at a time; None without slopes."""
        if op.slopes is None:
            return None
        share = op.heads.value.data // op.kv_heads.value.data
        given = [float(slope) for slope in op.slopes.get_values()]
        core = ctx.core
        slopes, steps = (
            ctx.alloc("alibi.slopes", share * F32_BYTES),
            ctx.alloc("alibi.steps", share * block * F32_BYTES),
        )
        ramp = _ramp(ctx, block)
        for head in range(share):
            own = [given[kv * share + head] for kv in group.heads]
            slope, line = (core.address(b.value, head * n * F32_BYTES) for b, n in ((slopes, 1), (steps, block)))
            _store(ctx, [number * group.cores for number in own], slope)
            core.vmuls_f(line, core.address(ramp.value), slope, core.const(block))
            _store(ctx, own, slope)
        bias, rounded = ctx.alloc("alibi.bias", block * F32_BYTES), ctx.alloc("alibi.rounded", block * 2)
        return Alibi(group, block, slopes, steps, bias, rounded, ctx.alloc("alibi.first", F32_BYTES))

    def add(self, ctx: LoweringContext, head: SSAValue, scores: SSAValue, ahead: SSAValue, count: SSAValue) -> None:
        """Add the bias of query head ``head`` of each core's KV head to ``count`` f16 scores, the first of them of a
        slot ``ahead`` positions before the query (all registers).
        """
        core = ctx.core
        line = core.mul(head, core.const(F32_BYTES))
        slope = core.add(core.address(self.slopes.value), line)
        steps = core.add(core.address(self.steps.value), core.mul(line, core.const(self.block)))
        bias, rounded, first = (core.address(b.value) for b in (self.bias, self.rounded, self.first))
        core.sw(core.sub(core.const(0), ahead), first)
        core.vitof(first, first, core.const(1))
        core.vmuls_f(first, first, slope, core.const(1))
        core.vadds_f(bias, steps, first, count)
        core.vcvt_h(rounded, bias, count)
        core.vadd_h(scores, scores, rounded, count)


def _ramp(ctx: LoweringContext, count: int) -> Buffer:
    """f32 0, 1, 2, ...: each part is what lies before it, shifted."""
    core = ctx.core
    ramp = ctx.alloc("alibi.ramp", count * F32_BYTES)
    at = core.address(ramp.value)
    core.vfill_f(at, at, ctx.f32(0.0), core.const(1))
    done = 1
    while done < count:
        more = min(done, count - done)
        core.vadds_f(core.address(ramp.value, done * F32_BYTES), at, ctx.f32(float(done)), core.const(more))
        done += more
    return ramp


def _store(ctx: LoweringContext, values: list[float], to: SSAValue) -> None:
    """Store an f32 that differs from core to core."""
    words = [int.from_bytes(struct.pack("<f", value), "little", signed=True) for value in values]
    ctx.core.sw(ctx.core.const(words), to)
