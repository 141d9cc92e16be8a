"""Matrices: GEMV in the HBM-PIM banks, GEMM on the tensor units with weights streamed from the banks."""

from __future__ import annotations

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, shape_of, source_of, widths_of
from pimc.backends.lower.parts import own_indices
from pimc.backends.lower.values import Buffer, Strip, Tensor, Weight
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.layout import shard_of
from pimc.ir.pim.ops import MatrixOp

#: Zero, for h registers that are not set: every register of a controller starts at zero.
NO_BASE = 0
#: A block of rows of a GEMM's cut input takes at most this part of the activation memory (there are two).
BLOCK_SHARE = 4


def bank_layout_of(ctx: LoweringContext, op: MatrixOp) -> GemvLayout:
    """The op's layout; an error if the layout pass has not run."""
    if op.layout is None:
        raise ctx.unsupported("it has no layout (run layout before lower)")
    return op.layout.layout


def results_of(op: MatrixOp, out: Strip) -> list[Tensor]:
    """The results as strips of the tile's stack of local outputs."""
    found: list[Tensor] = []
    for output, first in zip(op.outputs, op.local_offsets, strict=False):
        shard = shard_of(output.type)
        assert shard is not None  # the verifier's
        strips = [
            Strip(out.buffer, out.rows, width, out.pitch, out.offset + (first + shard.local_offset(index)) * 2)
            for index, width in enumerate(widths_of(output))
        ]
        found.append(Tensor(tuple(strips)))
    return found


def stacked_bias(ctx: LoweringContext, op: MatrixOp) -> Buffer | None:
    """The biases in the order of the local outputs, zeros where a weight has none or a core has padding."""
    if not op.biases:
        return None
    core = ctx.core
    total = op.local_offsets[-1]
    stack = ctx.alloc("bias", (total + 1) * 2)
    core.vfill_h(core.address(stack.value), core.address(stack.value), ctx.f32(0.0), core.const(total))
    for index, (output, first) in enumerate(zip(op.outputs, op.local_offsets, strict=False)):
        bias = op.bias(index)
        if bias is None:
            continue
        weight, shard = ctx.weight(bias), shard_of(output.type)
        assert shard is not None  # the verifier's
        for number in range(len(shard.shard_rounds)):
            starts, counts = own_indices(shard, number, shape_of(output)[-1], ctx.cores)
            # A core without features moves one behind the stack: only a use orders it after the bias's transfer.
            starts = [start if count else 0 for start, count in zip(starts, counts, strict=True)]
            at = first + shard.local_offset(number)
            source = _own_part(ctx, weight, starts, [max(count, 1) for count in counts])
            to = core.address(stack.value, [2 * (at if count else total) for count in counts])
            core.vmov_h(to, source, core.const([max(count, 1) for count in counts]))
    return stack


def _own_part(ctx: LoweringContext, vector: Weight, starts: list[int], counts: list[int]) -> SSAValue:
    """Read what each core needs of a vector, whole columns from that of its first element on; the address of that."""
    core, column = ctx.core, ctx.target.hbm.column_bytes // 2
    skipped = [start % column for start in starts]
    sizes = [2 * (skip + count) for skip, count in zip(skipped, counts, strict=True)]
    buffer = ctx.alloc("bias.part", max(sizes))
    first = core.const([2 * (start - skip) for start, skip in zip(starts, skipped, strict=True)])
    core.hrd(core.address(buffer.value), core.add(source_of(ctx, vector), first), core.const(sizes))
    return core.address(buffer.value, [2 * skip for skip in skipped])
