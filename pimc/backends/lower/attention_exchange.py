"""Attention, second half: the cores of a KV head exchange softmax statistics and add their outputs in slices."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext
from pimc.backends.lower.heads import HeadGroup, Shape
from pimc.backends.lower.online import OnlineSoftmax
from pimc.backends.lower.values import Buffer, Strip


@dataclass(frozen=True)
class Partial:
    """A core's share of a block of query rows before the exchange: the softmax over its own slots."""

    group: HeadGroup
    shape: Shape
    softmax: OnlineSoftmax


@dataclass(frozen=True)
class Statistics:
    """Maxima and sums of all cores of the group, ``[cores, rows * share]`` f32 each; the semaphore of their arrival."""

    maxima: Buffer
    sums: Buffer
    semaphore: int


def send_statistics(ctx: LoweringContext, partial: Partial) -> Statistics:
    """Multicast the core's maxima and sums to its group, as one row of everybody's table."""
    core, group, softmax = ctx.core, partial.group, partial.softmax
    row = partial.shape.stacked * F32_BYTES
    maxima = ctx.alloc("attention.maxima", group.cores * row, remote=True)
    sums = ctx.alloc("attention.sums", group.cores * row, remote=True)
    statistics = Statistics(maxima, sums, ctx.semaphores.take())
    own = [rank * row for rank in group.rank]
    for table, source in ((maxima, softmax.maxima), (sums, softmax.sums)):
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


def send_slices(ctx: LoweringContext, partial: Partial, statistics: Statistics) -> Slices:
    """Scale the core's outputs by its share of each softmax, and send every core of the group its features."""
    core, group, shape = ctx.core, partial.group, partial.shape
    core.wait(core.const(0), sem=statistics.semaphore, imm=2 * group.cores)
    partial.softmax.scale(ctx, _softmax_shares(ctx, group, statistics, shape))
    out = _outputs(ctx, partial)
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


def _outputs(ctx: LoweringContext, partial: Partial) -> Strip:
    """The outputs as fp16, zeros behind those of a row up to whole slices of the group's cores."""
    core, group, shape = ctx.core, partial.group, partial.shape
    out = ctx.strip("attention.out", shape.rows, group.slice(shape) * group.cores)
    rest = out.width - shape.width
    if rest:
        tail = (core.address(out.buffer.value, out.offset + shape.width * 2), out.pitch)
        core.on_rows("vfill_h", shape.rows, tail, tail, (ctx.f32(0.0), 0), n=rest)
    partial.softmax.round(ctx, ctx.address(out), out.pitch, shape.share)
    return out


def _softmax_shares(ctx: LoweringContext, group: HeadGroup, statistics: Statistics, shape: Shape) -> Buffer:
    """f32 [rows * share]: this core's share of the sum of every softmax, all of them side by side.

    Maximum and sum over the cores are trees over halves of the ``[cores, rows * share]`` tables, so that the chain of
    dependent instructions grows with the logarithm of the cores; the maxima are spread back by doubling.
    """
    core, count = ctx.core, shape.stacked
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


def sum_slices(ctx: LoweringContext, partial: Partial, slices: Slices, to: SSAValue) -> None:
    """Wait for the group's parts of this core's features and add them in f32; ``to``: address of their first row."""
    core, cores = ctx.core, partial.group.cores
    core.wait(core.const(0), sem=slices.semaphore, imm=cores)
    elements = partial.shape.rows * slices.width
    core.vwsum(
        to,
        core.address(slices.parts.value),
        ctx.f32_vector(1.0, cores),
        core.const(elements),
        rows=core.const(cores),
        stride_a=core.const(elements * 2),
    )
