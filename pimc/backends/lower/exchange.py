"""Gathers: a cut value made whole on every core by multicasts over the NoC."""

from __future__ import annotations

from xdsl.ir import SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext, rows_of, shape_of
from pimc.backends.lower.parts import own_indices
from pimc.backends.lower.relayout import lower_change
from pimc.backends.lower.values import Strip, Tensor
from pimc.ir.layout import ShardAttr, shard_of
from pimc.ir.pim.changes import AllGatherOp


def lower_all_gather(ctx: LoweringContext, op: AllGatherOp) -> None:
    """Every core multicasts its strips into the whole tensor of all cores, then waits for everybody's."""
    shard = shard_of(op.input.type)
    if shard is None or any(round_.share > 1 for round_ in shard.shard_rounds):
        lower_change(ctx, op)
        return
    ctx.set(op.output, Tensor((gather(ctx, ctx.tensor(op.input), shard, op.output),)))


def gather(ctx: LoweringContext, source: Tensor, shard: ShardAttr, result: SSAValue) -> Strip:
    """Issue the multicasts of a cut tensor and wait for all of them; the whole tensor's strip."""
    extent, rows = shape_of(result)[-1], rows_of(result)
    whole = ctx.strip("gather", rows, extent, remote=True)
    core = ctx.core
    semaphore = ctx.semaphores.take()
    expected = 0
    group = {"group_base": core.const(0), "group_size": core.const(ctx.cores)}
    for index, strip in enumerate(source.strips):
        starts, counts = own_indices(shard, index, whole.width, ctx.cores)
        expected += ctx.cores  # a core without features sends an empty message
        to = core.address(whole.buffer.value, [whole.offset + 2 * start for start in starts])
        size = core.const([2 * count for count in counts])
        if rows == 1:
            core.nmcast(to, ctx.address(strip), size, sem=semaphore, **group)
        else:
            core.nmcast2(
                to,
                ctx.address(strip),
                size,
                sem=semaphore,
                **group,
                message_rows=core.const(rows),
                message_src_stride=core.const(strip.pitch),
                message_dst_stride=core.const(whole.pitch),
            )
    core.wait(core.const(0), sem=semaphore, imm=expected)
    return whole


def tell_everybody(ctx: LoweringContext, done: Strip) -> int:
    """Tell all cores that what made the first row of ``done`` has finished; the semaphore that counts the cores."""
    core = ctx.core
    semaphore = ctx.semaphores.take()
    token = ctx.alloc("token", F32_BYTES * ctx.cores, memory="temp", remote=True)
    to = core.address(token.value, [F32_BYTES * number for number in range(ctx.cores)])
    core.nmcast(
        to, ctx.address(done), core.const(2), sem=semaphore, group_base=core.const(0), group_size=core.const(ctx.cores)
    )
    return semaphore


def meet(ctx: LoweringContext, semaphore: int) -> None:
    """Wait for what all cores tell by a semaphore."""
    ctx.core.wait(ctx.core.const(0), sem=semaphore, imm=ctx.cores)
