"""Matrices: GEMV in the HBM-PIM banks, GEMM on the tensor units with weights streamed from the banks."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.backends.lower.context import GO, LAYER_ROW, LoweringContext, shape_of, widths_of
from pimc.backends.lower.exchange import round_counts
from pimc.backends.lower.values import Buffer, Strip, Tensor
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.instruction_ops import LocalAddressAttr
from pimc.ir.layout import shard_of
from pimc.ir.pim.ops import GemvOp, MatrixOp

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
        source = ctx.tensor(bias).whole
        shard = shard_of(output.type)
        assert shard is not None  # the verifier's
        for number in range(len(shard.shard_rounds)):
            starts, counts = round_counts(shard.shard_rounds, number, shape_of(output)[-1], ctx.cores)
            # A core without features moves one behind the stack: only a use orders it after the bias's transfer.
            starts = [start if count else 0 for start, count in zip(starts, counts, strict=True)]
            at = first + shard.local_offset(number)
            core.vmov_h(
                core.address(stack.value, [2 * (at if count else total) for count in counts]),
                core.address(source.buffer.value, [source.offset + 2 * start for start in starts]),
                core.const([max(count, 1) for count in counts]),
            )
    return stack


# -- GEMV -------------------------------------------------------------------------------------------------------------


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
    _stream_gemv(ctx, run)
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


def _stream_gemv(ctx: LoweringContext, run: GemvRun) -> None:
    """The commands of a GEMV: for every block and K chunk load the global buffer and visit the rows; read results."""
    stream, layout = ctx.stream, run.layout
    stream.wait(sem=GO, count=1)
    base = LAYER_ROW if layout.row_stride else NO_BASE
    last: tuple[int, int] | None = None
    for visit in layout.visits():
        if last is not None and visit.block != last[0]:
            _read_block(ctx, run, last[0])
        if (visit.block, visit.chunk) != last:
            _load_buffer(ctx, run, visit.chunk)
        last = (visit.block, visit.chunk)
        stream.act(base=base, row=layout.row_base + visit.row)
        for segment in visit.segments:
            stream.mac(
                column=segment.column,
                buffer=0,
                count=segment.columns,
                result=segment.slot - visit.block * ctx.geometry.result_registers,
                clear=int(visit.chunk == 0),
            )
        stream.pre()
    assert last is not None  # a layout has at least one row
    _read_block(ctx, run, last[0])


def _load_buffer(ctx: LoweringContext, run: GemvRun, chunk: int) -> None:
    layout = run.layout
    slice_bytes = layout.slice_elements * 2
    start = run.source.offset + chunk * ctx.geometry.buffer_columns * ctx.geometry.lanes * 2
    every = (1 << ctx.channels) - 1
    if layout.ksplit in (1, ctx.channels):
        pieces = [(every, 0, slice_bytes if layout.ksplit > 1 else 0)]
    else:
        pieces = [
            (sum(1 << q for q in range(ctx.channels) if q % layout.ksplit == v), v * slice_bytes, 0)
            for v in range(layout.ksplit)
        ]
    for mask, offset, stride in pieces:
        ctx.stream.wrgb(
            mask=mask,
            base=NO_BASE,
            address=LocalAddressAttr.get(run.source.buffer.name, start + offset),
            column=0,
            count=layout.chunk_columns[chunk],
            stride=stride,
        )


def _read_block(ctx: LoweringContext, run: GemvRun, block: int) -> None:
    slot_bytes = ctx.channels * ctx.geometry.banks * 4
    first = block * ctx.geometry.result_registers
    ctx.stream.rdres(
        base=NO_BASE,
        address=LocalAddressAttr.get(run.results.name, first * slot_bytes),
        result=0,
        count=run.layout.blocks[block],
    )
    if len(run.semaphores) > 1 or block == len(run.layout.blocks) - 1:
        ctx.stream.sig(sem=run.semaphores[block if len(run.semaphores) > 1 else 0])


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
