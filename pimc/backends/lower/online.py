"""Online softmax: the running maximum, sum and output of rows of scores that come in blocks of columns.

The statistics and the output are f32; a block's scores are fp16.  The output is always that of the columns so far,
normalised: the weights of a block are divided by the sum up to and with it, and what was there before is scaled by its
share of that sum.  So no product of weights and values can leave fp16 where the values do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from xdsl.ir import SSAValue

from pimc.backends.builder import Place
from pimc.backends.lower.context import F32_BYTES, LoweringContext
from pimc.backends.lower.values import Buffer

#: The maximum of no columns: below every score, and finite, so that differences to it are numbers.
NOTHING: Final = -1e30
#: The score of a column that a row does not see.
HIDDEN: Final = -math.inf
#: The least sum that weights are divided by, for rows that have seen nothing.
_LEAST: Final = 1e-30
#: So many rows of a block's products are made f32 at a time.
_WIDENED: Final = 16


@dataclass(frozen=True)
class Rows:
    """``rows`` rows of ``count`` (a register) elements, ``pitch`` bytes apart from address ``at``."""

    rows: int
    at: SSAValue
    pitch: int
    count: SSAValue

    @property
    def place(self) -> Place:
        """The rows as an operand of an instruction on many rows."""
        return self.at, self.pitch


@dataclass(frozen=True)
class OnlineSoftmax:
    """The state of ``rows`` rows with outputs of ``dim`` elements; see the module.

    ``maxima`` and ``sums`` are f32 ``[rows]``.  ``part`` is where a block's product of weights and values is written,
    fp16 ``[rows, dim]``, and ``total`` the output, f32.  Where there is a state for more rows, ``first`` is the first
    of those that are worked on (a register; see :meth:`rows_from`).
    """

    rows: int
    dim: int
    maxima: Buffer
    sums: Buffer
    total: Buffer
    part: Buffer
    wide: Buffer
    highest: Buffer
    factors: Buffer
    added: Buffer
    first: SSAValue | None = None

    @staticmethod
    def of(ctx: LoweringContext, rows: int, dim: int, states: int = 1) -> OnlineSoftmax:
        """Buffers for so many rows, and the state of ``states`` times as many."""
        line, size = rows * F32_BYTES, rows * dim
        maxima, sums = (ctx.alloc(f"attention.{name}", states * line) for name in ("max", "sum"))
        highest, factors, added = (ctx.alloc(f"attention.{name}", line) for name in ("highest", "factors", "added"))
        total = ctx.alloc("attention.total", states * size * F32_BYTES)
        wide = ctx.alloc("attention.wide", min(rows, _WIDENED) * dim * F32_BYTES)
        part = ctx.alloc("attention.part", size * 2)
        return OnlineSoftmax(rows, dim, maxima, sums, total, part, wide, highest, factors, added)

    def rows_from(self, first: SSAValue) -> OnlineSoftmax:
        """The state of the rows from ``first`` on."""
        return replace(self, first=first)

    def begin(self, ctx: LoweringContext) -> None:
        """No columns yet."""
        core = ctx.core
        for buffer, value in ((self.maxima, NOTHING), (self.sums, 0.0), (self.total, 0.0)):
            at = core.address(buffer.value)
            core.vfill_f(at, at, ctx.f32(value), core.const(buffer.bytes // F32_BYTES))

    def weigh(self, ctx: LoweringContext, scores: Rows, *, seen: bool) -> None:
        """Scores to weights, in place, and the statistics up to and with this block.

        ``seen``: every row has a score that counts, in this block or before.
        """
        core, rows = ctx.core, ctx.core.const(self.rows)
        highest, factors, added = (core.address(b.value) for b in (self.highest, self.factors, self.added))
        maxima, sums = (self._state(ctx, buffer, F32_BYTES) for buffer in (self.maxima, self.sums))
        reduce_rows(ctx, "vrmax_h", highest, scores)
        core.vmax_f(highest, highest, maxima, rows)
        apply_rows(ctx, "vexps_h", scores, highest)
        core.vsub_f(factors, maxima, highest, rows)
        core.vexp_f(factors, factors, rows)
        core.vmov_f(maxima, highest, rows)
        core.vmul_f(factors, factors, sums, rows)
        reduce_rows(ctx, "vrsum_h", added, scores)
        core.vadd_f(sums, factors, added, rows)
        if not seen:
            core.vmaxs_f(sums, sums, ctx.f32(_LEAST), rows)
        apply_rows(ctx, "vdivs_h", scores, sums)
        core.vdiv_f(factors, factors, sums, rows)

    def add(self, ctx: LoweringContext) -> None:
        """Add ``part``, this block's product of weights and values, to the output."""
        core, size, step = ctx.core, self.rows * self.dim, min(self.rows, _WIDENED) * self.dim
        self.scale(ctx, self.factors)
        total = self._state(ctx, self.total, self.dim * F32_BYTES)
        part, wide = (core.address(buffer.value) for buffer in (self.part, self.wide))
        if size == step:
            core.vcvt_f(wide, part, core.const(size))
            core.vadd_f(total, total, wide, core.const(size))
            return
        with core.loop(core.const(0), core.const(size), step) as first:
            count = core.min(core.sub(core.const(size), first), core.const(step))
            to = core.add(total, core.slli(first, imm=2))
            core.vcvt_f(wide, core.add(part, core.slli(first, imm=1)), count)
            core.vadd_f(to, to, wide, count)

    def scale(self, ctx: LoweringContext, factors: Buffer) -> None:
        """Multiply the output of row i by ``factors[i]`` (f32)."""
        line = self.dim * F32_BYTES
        total = Rows(self.rows, self._state(ctx, self.total, line), line, ctx.core.const(self.dim))
        apply_rows(ctx, "vmuls_f", total, ctx.core.address(factors.value))

    def round(self, ctx: LoweringContext, to: SSAValue, pitch: int, share: int) -> None:
        """Write the output as fp16 from address ``to`` on: ``share`` rows side by side, then the next ``pitch`` bytes
        further.
        """
        core, width = ctx.core, share * self.dim
        source = self._state(ctx, self.total, self.dim * F32_BYTES)
        core.on_rows("vcvt_h", self.rows // share, (to, pitch), (source, width * F32_BYTES), n=width)

    def _state(self, ctx: LoweringContext, buffer: Buffer, line: int) -> SSAValue:
        """Where the rows that are worked on begin in a buffer of ``line`` bytes a row."""
        at = ctx.core.address(buffer.value)
        return at if self.first is None else ctx.core.add(at, ctx.core.mul(self.first, ctx.core.const(line)))


def reduce_rows(ctx: LoweringContext, instruction: str, to: SSAValue, rows: Rows) -> None:
    """The f32 number i from address ``to`` on = a reduction of row i."""
    ctx.core.on_rows(instruction, rows.rows, (to, F32_BYTES), rows.place, n=rows.count)


def apply_rows(ctx: LoweringContext, instruction: str, rows: Rows, scalars: SSAValue) -> None:
    """Row i, in place, with the i-th f32 number from address ``scalars`` on."""
    ctx.core.on_rows(instruction, rows.rows, rows.place, rows.place, (scalars, F32_BYTES), n=rows.count)


def cap_rows(ctx: LoweringContext, rows: Rows, softcap: float) -> None:
    """``softcap * tanh(x)`` of fp16 scores that were divided by it."""
    ctx.core.on_rows("vtanh_h", rows.rows, rows.place, rows.place, n=rows.count)
    ctx.core.on_rows("vmuls_h", rows.rows, rows.place, rows.place, (ctx.f32(softcap), 0), n=rows.count)
