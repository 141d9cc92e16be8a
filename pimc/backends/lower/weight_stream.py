"""Weights on their way from the banks to a core's tensor unit: the bank layout's arithmetic, in registers."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.index import Index, Indices
from pimc.backends.lower.values import Buffer
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.pim.tiling import GemmLoops

_HALF = 2


@dataclass(frozen=True)
class Run:
    """Columns of a segment, or banks, from ``start`` on, at ``most`` so many (None: all)."""

    start: Index
    most: int | None


@dataclass(frozen=True)
class WeightStream:
    """The transfers of a GEMM's weights, in the order of its steps, through a ring of buffers."""

    ctx: LoweringContext
    loops: GemmLoops
    buffer: Buffer
    first_row: Index

    @staticmethod
    def of(ctx: LoweringContext, loops: GemmLoops) -> WeightStream:
        """Buffers for the transfers, and the first row of the weights (of the layer)."""
        buffer = ctx.alloc("gemm.weights", loops.tiling.buffers * loops.transfer_bytes)
        layout, x = loops.layout, Indices(ctx.core)
        row: Index = layout.row_base
        if layout.row_stride:
            assert ctx.layer is not None  # per-layer weights are used in the layer loop only
            row = x.add(row, x.mul(ctx.layer, layout.row_stride))
        return WeightStream(ctx, loops, buffer, row)

    @property
    def layout(self) -> GemvLayout:
        """The layout of the weights in the banks."""
        return self.loops.layout

    @property
    def ahead(self) -> int:
        """Steps from the start of a transfer to its use."""
        return self.loops.weight_transfers if self.loops.resident else self.loops.tiling.buffers - 1

    def place(self, step: Index) -> tuple[Index, Index, Index]:
        """(first slot, block of K, number in the block of outputs) of the weights of a step."""
        x, loops = Indices(self.ctx.core), self.loops
        number = x.mod(step, loops.weight_transfers) if loops.row_blocks > 1 else step
        block, k, transfer = x.split(number, (loops.output_blocks, loops.k_blocks, loops.transfers))
        slot = x.add(x.mul(block, loops.tiling.block_slots), x.mul(transfer, loops.tiling.slots))
        return slot, k, transfer

    def address(self, step: Index) -> SSAValue:
        """Where the weights of a step are."""
        x, core = Indices(self.ctx.core), self.ctx.core
        number = x.mod(step, self.loops.tiling.buffers)
        return core.add(core.address(self.buffer.value), core.register(x.mul(number, self.loops.transfer_bytes)))

    def begin(self) -> None:
        """Start the transfers of the first steps."""
        count = min(self.ahead, self.loops.steps)
        if count:
            with Indices(self.ctx.core).loop(count) as step:
                self.load(step)

    def follow(self, step: Index, part: Index) -> None:
        """At a step, start a part of the transfer of a later one, if there is one: one of ``GemmLoops.pieces``."""
        if self.loops.resident or not 0 < self.ahead < self.loops.steps:
            return
        core = self.ctx.core
        later = core.register(Indices(core).add(step, self.ahead))
        with core.if_(later, "lt", self.loops.steps):
            self.load(later, part, self.loops.pieces)

    def load(self, step: Index, part: Index = 0, parts: int = 1) -> None:
        """Start a part of the transfer of a step, some of the banks: chunk by chunk of slot by slot."""
        x, loops, layout = Indices(self.ctx.core), self.loops, self.layout
        g, columns = layout.geometry, loops.tiling.columns
        first, k, _ = self.place(step)
        to = self.address(step)
        slots: Index = loops.tiling.slots
        if layout.slots % loops.tiling.slots or loops.output_blocks * loops.tiling.block_slots > layout.slots:
            slots = x.left(layout.slots, first, loops.tiling.slots)
        chunk0, run = x.mul(k, columns // g.buffer_columns), Run(0, None)
        chunks: Index = 1
        if loops.k_blocks == 1:
            chunks = len(layout.chunk_columns)
        elif columns < g.buffer_columns:
            chunk0, number = x.split(k, (loops.k_blocks, g.buffer_columns // columns))
            run = Run(x.mul(number, columns), columns)
        else:
            chunks = x.left(len(layout.chunk_columns), chunk0, columns // g.buffer_columns)
        with x.loop(slots) as slot, x.loop(chunks) as chunk:
            at = x.add(to, x.mul(slot, layout.outputs_per_slot * loops.pitch))
            at = x.add(at, x.mul(chunk, g.buffer_columns * g.lanes * _HALF))
            banks = Run(x.mul(part, -(-g.banks // parts)), -(-g.banks // parts))
            self._segment(x.add(first, slot), x.add(chunk0, chunk), run, banks, at)

    def _segment(self, slot: Index, chunk: Index, run: Run, banks: Run, to: Index) -> None:
        """Read ``run`` of one slot and chunk from those of ``banks`` that hold outputs of it."""
        x, core, layout, g = Indices(self.ctx.core), self.ctx.core, self.layout, self.layout.geometry
        row, column, columns = self._row(slot, chunk)
        if run.most is not None:
            column, columns = x.add(column, run.start), x.left(columns, run.start, run.most)
        together = layout.ksplit in (1, g.channels)  # one read serves all channels; else groups of them take turns
        pieces, groups = (g.channels, 1) if together else (layout.ksplit, layout.groups)
        stride = g.banks * self.loops.pitch if layout.ksplit == 1 else self.loops.slice_stride * _HALF
        first, most = x.add(x.mul(slot, layout.outputs_per_slot), banks.start), min(g.banks, banks.most or g.banks)
        begin = x.add(column, x.mul(banks.start, g.columns))
        at: SSAValue = core.register(x.add(to, x.mul(banks.start, self.loops.pitch)))
        # What nobody multiplies is not read: nothing would wait for it.  The last group has the fewest outputs.
        for last in reversed(range(groups)):
            count = x.left(layout.n_local, x.add(first, last * g.banks), most)
            end = x.add(x.add(column, x.mul(banks.start, g.columns)), x.mul(count, g.columns))
            with core.loop_carrying(begin, end, [at], g.columns) as loop:
                (here,) = loop.carried
                for group in range(last + 1):
                    place = x.add(here, group * g.banks * self.loops.pitch)
                    mask = ((1 << pieces) - 1) << (group * pieces)
                    core.hrdb(place, row, loop.counter, columns, pch_mask=mask, pch_stride=stride)
                loop.next = [core.add(here, self.loops.pitch)]
            begin, at = end, loop.results[0]

    def _row(self, slot: Index, chunk: Index) -> tuple[Index, Index, Index]:
        """(row, first column, columns) of a slot and chunk in every bank: ``GemvLayout.visits`` as arithmetic."""
        x, layout, g = Indices(self.ctx.core), self.layout, self.layout.geometry
        widths = layout.chunk_columns
        columns: Index = widths[0]
        if widths[-1] != widths[0]:
            columns = x.left(sum(widths), x.mul(chunk, widths[0]), widths[0])
        per_row = x.div(g.columns, columns)
        row, slots = self.first_row, layout.slots
        in_block: Index = slot
        of_block: Index = slots
        if slots > g.result_registers:
            block = x.div(slot, g.result_registers)
            done = x.mul(block, g.result_registers)
            in_block, of_block = x.sub(slot, done), x.left(slots, done, g.result_registers)
            rows = sum(-(-g.result_registers // (g.columns // width)) for width in widths)
            row = x.add(row, x.mul(block, rows))
        full = g.columns // widths[0]
        rows_before = x.mul(chunk, x.div(x.add(of_block, full - 1), full))
        row = x.add(x.add(row, rows_before), x.div(in_block, per_row))
        column = x.mul(x.mod(in_block, per_row), columns)
        return row, column, columns
