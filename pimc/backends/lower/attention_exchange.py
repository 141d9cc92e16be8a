"""Attention, second half: the cores of a KV head exchange softmax statistics and add their outputs in slices."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.backends.lower.context import F32_BYTES, LoweringContext
from pimc.backends.lower.heads import HeadGroup, Partial, Shape
from pimc.backends.lower.values import Buffer, Strip


@dataclass(frozen=True)
class Statistics:
    """Maxima and sums of all cores of the group, ``[cores, G * rows]`` f32 each, and the semaphore of their arrival."""

    maxima: Buffer
    sums: Buffer
    semaphore: int


def send_statistics(ctx: LoweringContext, partial: Partial, shape: Shape) -> Statistics:
    """Multicast the core's maxima and sums to its group, as one row of everybody's table."""
    core, group = ctx.core, partial.group
    row = shape.share * shape.rows * F32_BYTES
    maxima = ctx.alloc("attention.maxima", group.cores * row, remote=True)
    sums = ctx.alloc("attention.sums", group.cores * row, remote=True)
    statistics = Statistics(maxima, sums, ctx.semaphores.take())
    own = [rank * row for rank in group.rank]
    for table, source in ((maxima, partial.maxima), (sums, partial.sums)):
        core.nmcast(
            core.address(table.value, own),
            core.address(source.value),
            core.const(row),
            sem=statistics.semaphore,
            group_base=core.const(group.first_core),
            group_size=core.const(group.cores),
        )
    return statistics


@dataclass(frozen=True)
class Slices:
    """Everybody's part of this core's features, ``[cores, rows, width]`` fp16, and the semaphore of their arrival."""

    parts: Buffer
    width: int
    semaphore: int


def send_slices(ctx: LoweringContext, partial: Partial, statistics: Statistics, shape: Shape) -> Slices:
    """Scale the core's outputs by its share of each softmax, and send every core of the group its features."""
    core, group, out = ctx.core, partial.group, partial.out
    core.wait(core.const(0), sem=statistics.semaphore, imm=2 * group.cores)
    _scale_outputs(ctx, partial, statistics, shape)
    width = group.slice(shape)
    part = shape.rows * width * 2
    slices = Slices(ctx.alloc("attention.parts", group.cores * part, remote=True), width, ctx.semaphores.take())
    to = core.address(slices.parts.value, [rank * part for rank in group.rank])
    with core.loop(core.const(0), core.const(group.cores)) as rank:
        source = core.add(ctx.address(out), core.mul(rank, core.const(width * 2)))
        receiver = core.add(core.const(group.first_core), rank)
        if shape.rows == 1:
            core.nsend(to, source, core.const(part), receiver, sem=slices.semaphore)
        else:
            core.nsend2(
                to, source, core.const(width * 2), receiver, sem=slices.semaphore, message_rows=core.const(shape.rows),
                message_src_stride=core.const(out.pitch), message_dst_stride=core.const(width * 2),
            )  # fmt: skip
    return slices


def _scale_outputs(ctx: LoweringContext, partial: Partial, statistics: Statistics, shape: Shape) -> None:
    """out *= sum_own * exp(max_own - max) / sum over cores of the same: the core's weight in each softmax."""
    core, group = ctx.core, partial.group
    factor = _softmax_shares(ctx, group, statistics, shape)
    for head in range(shape.share):
        with ctx.each_row(shape.rows) as row:
            at = core.address(factor.value, head * shape.rows * F32_BYTES)
            if row is not None:
                at = core.add(at, core.slli(row, imm=2))
            features = core.add(ctx.address(partial.out, row), core.const(head * shape.dim * 2))
            core.vmuls_h(features, features, at, core.const(shape.dim))


def _softmax_shares(ctx: LoweringContext, group: HeadGroup, statistics: Statistics, shape: Shape) -> Buffer:
    """f32 [G * rows]: this core's share of the sum of every softmax, all of them side by side.

    Maximum and sum over the cores are trees over halves of the ``[cores, G * rows]`` tables, so that the chain of
    dependent instructions grows with the logarithm of the cores; the maxima are spread back by doubling.
    """
    core, count = ctx.core, shape.share * shape.rows
    size = group.cores * count * F32_BYTES
    common, weights = ctx.alloc("attention.common", size), ctx.alloc("attention.weights", size)
    factor = ctx.alloc("attention.factor", count * F32_BYTES)
    every = core.const(group.cores * count)
    _tree(ctx, "vmax_f", statistics.maxima, common, group.cores, count)
    width = count
    while width < group.cores * count:
        core.vmov_f(core.address(common.value, width * F32_BYTES), core.address(common.value), core.const(width))
        width *= 2
    at = core.address(weights.value)
    core.vsub_f(at, core.address(statistics.maxima.value), core.address(common.value), every)
    core.vexp_f(at, at, every)
    core.vmul_f(at, at, core.address(statistics.sums.value), every)
    _tree(ctx, "vadd_f", weights, common, group.cores, count)
    own = core.address(weights.value, [rank * count * F32_BYTES for rank in group.rank])
    core.vdiv_f(core.address(factor.value), own, core.address(common.value), core.const(count))
    return factor


def _tree(ctx: LoweringContext, instruction: str, source: Buffer, to: Buffer, rows: int, count: int) -> None:
    """to[0:count] = the ``rows`` rows of ``count`` f32 of ``source`` combined.

    ``rows`` is a power of two above 1; the first ``rows / 2`` rows of ``to`` are overwritten.
    """
    core = ctx.core
    half = rows // 2
    while half:
        low, high = core.address(source.value), core.address(source.value, half * count * F32_BYTES)
        ctx.core.emit(instruction, core.address(to.value), low, high, core.const(half * count))
        source, half = to, half // 2


def sum_slices(ctx: LoweringContext, partial: Partial, slices: Slices, shape: Shape) -> Strip:
    """Wait for the group's parts of this core's features and add them in f32."""
    core, cores = ctx.core, partial.group.cores
    core.wait(core.const(0), sem=slices.semaphore, imm=cores)
    result = ctx.strip("attention.slice", shape.rows, slices.width)
    elements = shape.rows * slices.width
    core.vwsum(
        ctx.address(result),
        core.address(slices.parts.value),
        ctx.f32_vector(1.0, cores),
        core.const(elements),
        rows=core.const(cores),
        stride_a=core.const(elements * 2),
    )
    return result
