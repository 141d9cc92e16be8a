"""Matrices: GEMV in the HBM-PIM banks, GEMM on the tensor units with weights streamed from the banks."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import GO, LAYER_ROW, LoweringContext, shape_of, widths_of
from pimc.backends.lower.exchange import gather_rows, meet, round_counts, tell_everybody
from pimc.backends.lower.values import Buffer, Strip, Tensor
from pimc.ir.bank_layout import GemvLayout, Segment
from pimc.ir.instruction_ops import LocalAddressAttr
from pimc.ir.layout import ShardAttr, shard_of
from pimc.ir.pim.ops import GemmOp, GemvOp, MatrixOp
from pimc.ir.pim.tiling import GemmTiling

#: Zero, for h registers that are not set: every register of a controller starts at zero.
NO_BASE = 0
#: A block of rows of a GEMM's cut input takes at most this part of the activation memory (there are two).
BLOCK_SHARE = 4


def layout_of(ctx: LoweringContext, op: MatrixOp) -> GemvLayout:
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
    layout = layout_of(ctx, op)
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


# -- GEMM -------------------------------------------------------------------------------------------------------------


def lower_gemm(ctx: LoweringContext, op: GemmOp) -> None:
    """Weights stream tile by tile through two buffers, each tile's transfer under the previous tile's product.

    A cut input is gathered in blocks of rows, each multiplied with all tiles.
    """
    layout = layout_of(ctx, op)
    tiling = GemmTiling.of(op)
    if tiling is None:
        raise ctx.unsupported("it has no tiling (run tile before lower)")
    bias = stacked_bias(ctx, op)
    x = ctx.tensor(op.x)
    out = ctx.strip("gemm", x.rows, op.local_offsets[-1])
    tiles = WeightTiles.of(ctx, layout, tiling)
    shard = shard_of(op.x.type)
    if shard is None:
        tiles.multiply(ctx, x.whole, out)
    else:
        _blocks(ctx, x, shard, tiles, out)
    if bias is not None:
        with ctx.each_row(out.rows) as row:
            to = ctx.address(out, row)
            ctx.core.vadd_h(to, to, ctx.core.address(bias.value), ctx.core.const(out.width))
    for output, tensor in zip(op.outputs, results_of(op, out), strict=True):
        ctx.set(output, tensor)


def _blocks(ctx: LoweringContext, x: Tensor, shard: ShardAttr, tiles: WeightTiles, out: Strip) -> None:
    """Gather and multiply blocks of rows, in turn through two buffers.

    A buffer is filled again when every core has said that it is done with what was in it.  All cores meet before the
    first block and behind the last, so that the buffers share memory with what is done then and begins then.
    """
    meet(ctx, tell_everybody(ctx, x.strips[0]))
    pitch = tiles.layout.k * 2
    rows = max(1, min(x.rows, ctx.target.memory("activation").bytes // BLOCK_SHARE // pitch, ctx.target.tcu.rows))
    starts = range(0, x.rows, rows)
    buffers = [ctx.alloc("gemm.input", rows * pitch, remote=True) for _ in range(min(2, len(starts)))]
    done: list[int] = []
    for index, start in enumerate(starts):
        if index >= len(buffers):
            meet(ctx, done[index - len(buffers)])
        count = min(rows, x.rows - start)
        block = Strip(buffers[index % len(buffers)], count, tiles.layout.k, pitch)
        gather_rows(ctx, x, shard, block, start)
        part = Strip(out.buffer, count, out.width, out.pitch, out.offset + start * out.pitch)
        tiles.multiply(ctx, block, part)
        done.append(tell_everybody(ctx, part))
    for semaphore in done[-len(buffers) :]:
        meet(ctx, semaphore)


@dataclass
class WeightTiles:
    """The weights of a GEMM in tiles, and the buffers they pass through.

    Where all tiles fit the buffers, they are loaded once, however often they are used.
    """

    layout: GemvLayout
    segments: dict[tuple[int, int], tuple[int, Segment]]
    tiles: list[range]
    buffers: list[Buffer]
    loaded: bool = False

    @staticmethod
    def of(ctx: LoweringContext, layout: GemvLayout, tiling: GemmTiling) -> WeightTiles:
        """Buffers for a GEMM's tiles."""
        tiles = [range(s, min(s + tiling.slots, layout.slots)) for s in range(0, layout.slots, tiling.slots)]
        size = min(tiling.slots, layout.slots) * layout.outputs_per_slot * layout.padded_k * 2
        buffers = [ctx.alloc("gemm.weights", size) for _ in range(min(tiling.buffers, len(tiles)))]
        return WeightTiles(layout, _segments(layout), tiles, buffers)

    def multiply(self, ctx: LoweringContext, x: Strip, out: Strip) -> None:
        """``out = x . weights^T``."""
        ahead = len(self.buffers) - 1
        for index in range(min(ahead, len(self.tiles))):
            self._load(ctx, index)
        for index, tile in enumerate(self.tiles):
            if index + ahead < len(self.tiles):
                self._load(ctx, index + ahead)
            _multiply_tile(ctx, self.layout, x, tile, self.buffers[index % len(self.buffers)], out)
        self.loaded = len(self.tiles) == len(self.buffers)

    def _load(self, ctx: LoweringContext, index: int) -> None:
        if not self.loaded:
            _load_tile(ctx, self.layout, self.segments, self.tiles[index], self.buffers[index % len(self.buffers)])


def _segments(layout: GemvLayout) -> dict[tuple[int, int], tuple[int, Segment]]:
    """(row, segment) of every slot and K chunk."""
    return {
        (segment.slot, visit.chunk): (visit.row, segment) for visit in layout.visits() for segment in visit.segments
    }


def _load_tile(
    ctx: LoweringContext,
    layout: GemvLayout,
    segments: dict[tuple[int, int], tuple[int, Segment]],
    tile: range,
    buffer: Buffer,
) -> None:
    """Read the weights of the slots of ``tile`` as rows of ``padded_k`` elements, local output by local output."""
    core, g = ctx.core, ctx.geometry
    pitch = layout.padded_k * 2
    slice_bytes = layout.slice_elements * 2
    if layout.ksplit == 1:
        reads = [((1 << g.channels) - 1, g.banks * pitch, 0)]
    else:
        reads = [
            (((1 << layout.ksplit) - 1) << (u * layout.ksplit), slice_bytes, u * g.banks) for u in range(layout.groups)
        ]
    for slot in tile:
        first = slot * layout.outputs_per_slot
        for chunk in range(len(layout.chunk_columns)):
            row, segment = segments[slot, chunk]
            for mask, stride, group_output in reads:
                banks = min(g.banks, layout.n_local - first - group_output)
                if banks <= 0:
                    continue
                at = ((slot - tile.start) * layout.outputs_per_slot + group_output) * pitch
                at += chunk * g.buffer_columns * g.lanes * 2
                _load_banks(ctx, layout, (row, segment), banks, (mask, stride), core.address(buffer.value, at))


def _load_banks(
    ctx: LoweringContext,
    layout: GemvLayout,
    place: tuple[int, Segment],
    banks: int,
    channels: tuple[int, int],
    to: SSAValue,
) -> None:
    """One segment from each of the first ``banks`` banks, to rows ``padded_k`` apart from address ``to``."""
    core, g = ctx.core, ctx.geometry
    row, segment = place
    mask, stride = channels
    address = core.const(layout.row_base + row)
    if layout.row_stride:
        assert ctx.layer is not None  # per-layer weights are used in the layer loop only
        address = core.add(address, core.mul(ctx.layer, core.const(layout.row_stride)))
    count = core.const(segment.columns)
    config = {"pch_mask": core.const(mask), "pch_stride": core.const(stride)}
    with core.loop(core.const(0), core.const(banks)) as bank:
        column = core.addi(core.mul(bank, core.const(g.columns)), imm=segment.column)
        place_here = core.add(to, core.mul(bank, core.const(layout.padded_k * 2)))
        core.hrdb(place_here, address, column, count, **config)


def _multiply_tile(ctx: LoweringContext, layout: GemvLayout, x: Strip, tile: range, buffer: Buffer, out: Strip) -> None:
    """out[:, outputs of the tile] = x . tile^T, in blocks of the systolic array's size."""
    core, tcu = ctx.core, ctx.target.tcu
    pitch = layout.padded_k * 2
    first = tile.start * layout.outputs_per_slot
    stop = min(tile.stop * layout.outputs_per_slot, layout.n_local)
    for row in range(0, x.rows, tcu.rows):
        rows = core.const(min(tcu.rows, x.rows - row))
        for column in range(first, stop, tcu.columns):
            cols = core.const(min(tcu.columns, stop - column))
            core.tmmc_nk(
                core.address(x.buffer.value, x.offset + row * x.pitch),
                core.address(buffer.value, (column - first) * pitch),
                rows=rows,
                cols=cols,
                depth=core.const(x.width),
                stride_a=core.const(x.pitch),
                stride_b=core.const(pitch),
            )
            to = core.address(out.buffer.value, out.offset + row * out.pitch + column * 2)
            core.twb(to, rows=rows, cols=cols, stride_c=core.const(out.pitch))
