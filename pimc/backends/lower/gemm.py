"""GEMM on the cores, with weights streamed from the banks: blocks of rows, outputs and K in loops.

The unit (``ctx.matrix``) holds one block of sums; those that go on with the next block of K stay there, or leave as f32
and return.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import F32_BYTES, LoweringContext, whole_shape_of
from pimc.backends.lower.gemm_input import GatheredInput, GemmInput, WholeInput, piece_of
from pimc.backends.lower.index import Index, Indices
from pimc.backends.lower.matrix import bank_layout_of, results_of, stacked_bias
from pimc.backends.lower.matrix_unit import Left, Right
from pimc.backends.lower.values import Buffer, Strip
from pimc.backends.lower.weight_stream import WeightStream
from pimc.ir.layout import layout_of
from pimc.ir.pim.ops import GemmOp
from pimc.ir.pim.tiling import GemmLoops, GemmTiling

_HALF = 2


def lower_gemm(ctx: LoweringContext, op: GemmOp) -> None:
    """``out = x . weights^T + bias``, the bias first."""
    banks = bank_layout_of(ctx, op)
    tiling = GemmTiling.of(op)
    if tiling is None:
        raise ctx.unsupported("it has no tiling (run tile before lower)")
    rows, cut = prod(whole_shape_of(op.x)[:-1]), layout_of(op.x.type)
    loops = GemmLoops(banks, tiling, rows, cut is not None)
    out = ctx.strip("gemm", rows, op.local_offsets[-1])
    bias = _wide_bias(ctx, op)
    weights = WeightStream.of(ctx, loops)
    source: GemmInput = (
        WholeInput(ctx, loops, ctx.tensor(op.x).whole) if cut is None else GatheredInput.of(ctx, loops, op.x)
    )
    sums = ctx.alloc("gemm.sums", loops.sums_bytes) if loops.sums_bytes else None
    _Gemm(ctx, loops, source, weights, out, bias, sums).run()
    for output, tensor in zip(op.outputs, results_of(op, out), strict=True):
        ctx.set(output, tensor)


def _wide_bias(ctx: LoweringContext, op: GemmOp) -> Buffer | None:
    """The biases of the local outputs in f32."""
    narrow = stacked_bias(ctx, op)
    if narrow is None:
        return None
    count = op.local_offsets[-1]
    wide = ctx.alloc("bias.f32", count * F32_BYTES)
    ctx.core.vcvt_f(ctx.core.address(wide.value), ctx.core.address(narrow.value), count)
    return wide


@dataclass(frozen=True)
class _Block:
    """A block of the tensor unit: its first row and column in the product, its place in the partial sums, its size.

    ``row`` is the first row of the input's block, and the row in that.
    """

    row: tuple[Index, Index]
    column: Index
    sums: Index
    rows: SSAValue
    cols: SSAValue


@dataclass(frozen=True)
class _Gemm:
    """A GEMM that is being lowered."""

    ctx: LoweringContext
    loops: GemmLoops
    source: GemmInput
    weights: WeightStream
    out: Strip
    bias: Buffer | None
    sums: Buffer | None

    def run(self) -> None:
        """All steps."""
        x = Indices(self.ctx.core)
        self.weights.begin()
        with self.source.each_block(self.out) as block, x.loop(self.source.steps_per_block) as number:
            self._step(block, x.add(x.mul(block, self.source.steps_per_block), number))
        self.ctx.core.arrived(self.weights.buffer.value)

    def _step(self, block: Index, step: Index) -> None:
        """Multiply the weights of a step with all rows of its block; meanwhile the next ones arrive."""
        x, loops, most = Indices(self.ctx.core), self.loops, self.ctx.matrix
        if self.weights.ahead == 0:
            self.weights.load(step)
        slot, k, transfer = self.weights.place(step)
        weights = self.weights.address(step)
        first_row = x.mul(x.div(step, loops.weight_transfers) if loops.row_blocks > 1 else 0, loops.tiling.rows)
        width = loops.tiling.slots * loops.layout.outputs_per_slot
        deep, wide = -(-min(loops.tiling.rows, loops.rows) // most.rows), -(-width // most.columns)
        with x.loop(deep * wide) as number:
            down, across = x.split(number, (deep, wide))
            row, column = x.mul(down, most.rows), x.mul(across, most.columns)
            unit = self._unit((first_row, row), slot, transfer, column)
            self._begin(unit, k)
            with x.loop(loops.pieces) as piece:
                self._multiply(unit, block, k, piece, x.add(weights, x.mul(column, loops.pitch)))
                if isinstance(number, int):
                    self.weights.follow(step, piece)
                else:
                    with self.ctx.core.if_(number, "eq", 0):
                        self.weights.follow(step, piece)
            self._finish(unit, k)

    def _unit(self, row: tuple[Index, Index], slot: Index, transfer: Index, column: Index) -> _Block:
        """The tensor unit's block from a row, and from a column of a transfer on."""
        x, core, loops, most = Indices(self.ctx.core), self.ctx.core, self.loops, self.ctx.matrix
        width = loops.tiling.slots * loops.layout.outputs_per_slot
        first = x.add(x.mul(slot, loops.layout.outputs_per_slot), column)
        rows = x.left(loops.rows, x.add(*row), min(most.rows, loops.tiling.rows))
        cols = x.left(loops.layout.n_local, first, min(most.columns, width))
        if width > most.columns and width % most.columns:
            cols = x.least(cols, x.sub(width, column))
        sums = x.add(x.mul(row[1], loops.sums_pitch), x.mul(x.add(x.mul(transfer, width), column), F32_BYTES))
        return _Block(row, first, sums, core.register(rows), core.register(cols))

    @property
    def _clears(self) -> bool:
        """Whether a product of all of K begins with zeros."""
        return self.loops.k_blocks == 1 and self.bias is None

    def _multiply(self, unit: _Block, block: Index, k: Index, piece: Index, weights: Index) -> None:
        """Add the products of a piece of K."""
        x, core, loops = Indices(self.ctx.core), self.ctx.core, self.loops
        run = piece_of(x, loops, k, piece)
        self.ctx.matrix.multiply(
            Left(self.source.address(block, unit.row, piece, run), core.const(self.source.pitch)),
            Right(x.add(weights, x.mul(piece, loops.piece_elements * _HALF)), core.const(loops.pitch), by_column=True),
            unit.rows,
            unit.cols,
            core.register(run.length),
            clear=self._clears,
        )

    def _begin(self, unit: _Block, k: Index) -> None:
        """The sums to go on from: the bias or nothing, later those of the block of K before."""
        core = self.ctx.core
        if isinstance(k, int):
            if not self._clears:
                self._start(unit)
            return
        with core.if_(k, "eq", 0) as first:
            self._start(unit)
        if self.sums is not None:
            with core.else_(first):
                self.ctx.matrix.load(self._sums(unit), unit.rows, unit.cols, self.loops.sums_pitch)

    def _start(self, unit: _Block) -> None:
        x, core = Indices(self.ctx.core), self.ctx.core
        if self.bias is None:
            self.ctx.matrix.clear(unit.rows, unit.cols)
        else:
            bias = x.add(core.address(self.bias.value), x.mul(unit.column, F32_BYTES))
            self.ctx.matrix.load(bias, unit.rows, unit.cols, 0)

    def _finish(self, unit: _Block, k: Index) -> None:
        """Round the sums behind the last block of K; put them aside before."""
        core = self.ctx.core
        if isinstance(k, int):
            self._round(unit)
            return
        with core.if_(k, "eq", self.loops.k_blocks - 1) as last:
            self._round(unit)
        if self.sums is not None:
            with core.else_(last):
                self.ctx.matrix.store(self._sums(unit), unit.rows, unit.cols, self.loops.sums_pitch)

    def _round(self, unit: _Block) -> None:
        x = Indices(self.ctx.core)
        to = x.add(self.ctx.address(self.out), x.mul(x.add(*unit.row), self.out.pitch))
        to = x.add(to, x.mul(unit.column, _HALF))
        self.ctx.matrix.round(to, unit.rows, unit.cols, self.out.pitch)

    def _sums(self, unit: _Block) -> Index:
        assert self.sums is not None
        return Indices(self.ctx.core).add(self.ctx.core.address(self.sums.value), unit.sums)
