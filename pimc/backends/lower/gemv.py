"""GEMV in the HBM-PIM banks: start it, fetch its results."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.backends.lower.context import GO, LoweringContext
from pimc.backends.lower.gemv_stream import GemvBuffers, stream_gemv
from pimc.backends.lower.matrix import bank_layout_of, results_of, stacked_bias
from pimc.backends.lower.values import Buffer, Strip
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.pim.ops import GemvOp


@dataclass
class GemvRun:
    """A GEMV under way: where its results arrive and which semaphores tell."""

    layout: GemvLayout
    results: Buffer
    out: Strip
    source: Strip
    bias: Buffer | None
    semaphores: list[int]


def lower_gemv(ctx: LoweringContext, op: GemvOp) -> None:
    """Start a GEMV and fetch its results at once."""
    collect_gemv(ctx, issue_gemv(ctx, op))


def issue_gemv(ctx: LoweringContext, op: GemvOp) -> GemvRun:
    """Start a GEMV: a signal to the controllers, and the commands of their stream."""
    layout = bank_layout_of(ctx, op)
    source = _buffer_input(ctx, ctx.tensor(op.x).whole, layout)
    bias = stacked_bias(ctx, op)
    size = layout.slots * ctx.channels * ctx.geometry.banks * 4
    results = ctx.alloc("gemv.partial", size)
    blocks = len(layout.blocks)
    count = blocks if blocks <= ctx.options.result_blocks else 1
    run = GemvRun(
        layout, results, ctx.strip("gemv", 1, op.local_offsets[-1]), source, bias,
        [ctx.semaphores.take() for _ in range(count)],
    )  # fmt: skip
    ctx.core.sigh(sem=GO)
    stream_gemv(ctx, GemvBuffers(run.source, run.results, run.semaphores), layout)
    for output, tensor in zip(op.outputs, results_of(op, run.out), strict=True):
        ctx.set(output, tensor)
    return run


def _buffer_input(ctx: LoweringContext, x: Strip, layout: GemvLayout) -> Strip:
    """The input as the global buffers take it: whole K-slices, zeros behind K."""
    if layout.padded_k == x.width:
        return x
    core = ctx.core
    padded = ctx.strip("gemv.input", 1, layout.padded_k)
    rest = layout.padded_k - x.width
    tail = core.address(padded.buffer.value, x.width * 2)
    core.vfill_h(tail, tail, ctx.f32(0.0), core.const(rest))
    core.vmov_h(ctx.address(padded), ctx.address(x), core.const(x.width))
    return padded


def collect_gemv(ctx: LoweringContext, run: GemvRun) -> None:
    """Wait for the results, block by block, and bring them to fp16 with the bias."""
    core, layout = ctx.core, run.layout
    slot_bytes = ctx.channels * ctx.geometry.banks * 4
    per_slot = layout.outputs_per_slot
    first = 0
    parts = core.const(layout.ksplit)
    blocks = layout.blocks if len(run.semaphores) > 1 else (layout.slots,)
    for slots, semaphore in zip(blocks, run.semaphores, strict=True):
        core.wait(core.const(0), sem=semaphore, imm=ctx.channels)
        start = first * per_slot
        count = min(slots * per_slot, layout.n_local - start)
        to = core.address(run.out.buffer.value, run.out.offset + start * 2)
        partial = core.address(run.results.value, first * slot_bytes)
        if run.bias is None:
            core.vredp(to, partial, core.const(count), parts=parts)
        else:
            core.vredpb(to, partial, core.address(run.bias.value, start * 2), core.const(count), parts=parts)
        first += slots
    core.keep(run.source.buffer.value)
