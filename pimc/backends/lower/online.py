"""Online softmax: the running maximum, sum and output of rows of scores that come in blocks of columns.

The statistics and the output are f32; a block's scores are fp16.  The output is always that of the columns so far,
normalised: the weights of a block are divided by the sum up to and with it, and what was there before is scaled by its
share of that sum.  So no product of weights and values can leave fp16 where the values do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    fp16 ``[rows, dim]``, and ``total`` the output, f32.
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

    @staticmethod
    def of(ctx: LoweringContext, rows: int, dim: int) -> OnlineSoftmax:
        """Buffers for so many rows."""
        line, size = rows * F32_BYTES, rows * dim
        maxima, sums, highest, factors, added = (
            ctx.alloc(f"attention.{name}", line) for name in ("max", "sum", "highest", "factors", "added")
        )
        total = ctx.alloc("attention.total", size * F32_BYTES)
        wide = ctx.alloc("attention.wide", min(rows, _WIDENED) * dim * F32_BYTES)
        part = ctx.alloc("attention.part", size * 2)
        return OnlineSoftmax(rows, dim, maxima, sums, total, part, wide, highest, factors, added)

    def begin(self, ctx: LoweringContext) -> None:
        """No columns yet."""
        core = ctx.core
        for buffer, value, count in (
            (self.maxima, NOTHING, self.rows),
            (self.sums, 0.0, self.rows),
            (self.total, 0.0, self.rows * self.dim),
        ):
            at = core.address(buffer.value)
            core.vfill_f(at, at, ctx.f32(value), core.const(count))

    def weigh(self, ctx: LoweringContext, scores: Rows, *, seen: bool) -> None:
        """Scores to weights, in place, and the statistics up to and with this block.

        ``seen``: every row has a score that counts, in this block or before.
        """
        core, rows = ctx.core, ctx.core.const(self.rows)
        highest, maxima, sums, factors, added = (
            core.address(b.value) for b in (self.highest, self.maxima, self.sums, self.factors, self.added)
        )
        reduce_rows(ctx, "vrmax_h", self.highest, scores)
        core.vmax_f(highest, highest, maxima, rows)
        apply_rows(ctx, "vexps_h", scores, self.highest)
        core.vsub_f(factors, maxima, highest, rows)
        core.vexp_f(factors, factors, rows)
        core.vmov_f(maxima, highest, rows)
        core.vmul_f(factors, factors, sums, rows)
        reduce_rows(ctx, "vrsum_h", self.added, scores)
        core.vadd_f(sums, factors, added, rows)
        if not seen:
            core.vmaxs_f(sums, sums, ctx.f32(_LEAST), rows)
        apply_rows(ctx, "vdivs_h", scores, self.sums)
        core.vdiv_f(factors, factors, sums, rows)

    def add(self, ctx: LoweringContext) -> None:
        """Add ``part``, this block's product of weights and values, to the output."""
        core, size, step = ctx.core, self.rows * self.dim, min(self.rows, _WIDENED) * self.dim
        self.scale(ctx, self.factors)
        total, part, wide = (core.address(buffer.value) for buffer in (self.total, self.part, self.wide))
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
        apply_rows(ctx, "vmuls_f", self._outputs(ctx), factors)

    def round(self, ctx: LoweringContext, to: SSAValue, pitch: int, share: int) -> None:
        """Write the output as fp16 from address ``to`` on: ``share`` rows side by side, then the next ``pitch`` bytes
        further.
        """
        core, width = ctx.core, share * self.dim
        source = core.address(self.total.value)
        core.on_rows("vcvt_h", self.rows // share, (to, pitch), (source, width * F32_BYTES), n=width)

    def _outputs(self, ctx: LoweringContext) -> Rows:
        at = ctx.core.address(self.total.value)
        return Rows(self.rows, at, self.dim * F32_BYTES, ctx.core.const(self.dim))


def reduce_rows(ctx: LoweringContext, instruction: str, to: Buffer, rows: Rows) -> None:
    """``to[i]`` (f32) = a reduction of row i."""
    ctx.core.on_rows(instruction, rows.rows, _numbers(ctx, to), rows.place, n=rows.count)


def apply_rows(ctx: LoweringContext, instruction: str, rows: Rows, scalars: Buffer) -> None:
    """Row i, in place, with the f32 number ``scalars[i]``."""
    ctx.core.on_rows(instruction, rows.rows, rows.place, rows.place, _numbers(ctx, scalars), n=rows.count)


def cap_rows(ctx: LoweringContext, rows: Rows, softcap: float) -> None:
    """``softcap * tanh(x)`` of fp16 scores that were divided by it."""
    ctx.core.on_rows("vtanh_h", rows.rows, rows.place, rows.place, n=rows.count)
    ctx.core.on_rows("vmuls_h", rows.rows, rows.place, rows.place, (ctx.f32(softcap), 0), n=rows.count)


def _numbers(ctx: LoweringContext, buffer: Buffer) -> Place:
    """A number for each row."""
    return ctx.core.address(buffer.value), F32_BYTES
