"""Attention on the tensor unit: its two products in blocks of the unit's rows and columns, and what rows do not see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.online import HIDDEN, Rows


@dataclass(frozen=True)
class Matrix:
    """fp16 rows, ``pitch`` bytes apart from address ``at`` (a register)."""

    at: SSAValue
    pitch: int

    def row(self, ctx: LoweringContext, row: int) -> SSAValue:
        """The address of a row."""
        return ctx.core.add(self.at, ctx.core.const(row * self.pitch)) if row else self.at


def multiply_by_rows(
    ctx: LoweringContext, a: Matrix, b: Matrix, to: Matrix, rows: int, count: SSAValue, depth: int
) -> None:
    """``to[m][n] = a[m] . b[n]`` for ``n`` below ``count`` (a register): queries and keys."""
    core, tcu = ctx.core, ctx.target.tcu
    for row in range(0, rows, tcu.rows):
        height = core.const(min(tcu.rows, rows - row))
        with core.loop(core.const(0), count, tcu.columns) as first:
            cols = core.min(core.sub(count, first), core.const(tcu.columns))
            core.tmmc_nk(
                a.row(ctx, row), core.add(b.at, core.mul(first, core.const(b.pitch))), rows=height, cols=cols,
                depth=core.const(depth), stride_a=core.const(a.pitch), stride_b=core.const(b.pitch),
            )  # fmt: skip
            place = core.add(to.row(ctx, row), core.slli(first, imm=1))
            core.twb(place, rows=height, cols=cols, stride_c=core.const(to.pitch))


def multiply_by_columns(
    ctx: LoweringContext, a: Matrix, b: Matrix, to: Matrix, rows: int, columns: int, depth: SSAValue
) -> None:
    """``to[m][n] = sum over k below depth (a register) of a[m][k] * b[k][n]``: weights and values."""
    core, tcu = ctx.core, ctx.target.tcu
    for row in range(0, rows, tcu.rows):
        height = core.const(min(tcu.rows, rows - row))
        for column in range(0, columns, tcu.columns):
            cols = core.const(min(tcu.columns, columns - column))
            core.tmmc_kn(
                a.row(ctx, row), core.add(b.at, core.const(column * 2)) if column else b.at, rows=height, cols=cols,
                depth=depth, stride_a=core.const(a.pitch), stride_b=core.const(b.pitch),
            )  # fmt: skip
            place = core.add(to.row(ctx, row), core.const(column * 2)) if column else to.row(ctx, row)
            core.twb(place, rows=height, cols=cols, stride_c=core.const(to.pitch))


@contextmanager
def each_query(
    ctx: LoweringContext, rows: Rows, share: int, first: SSAValue, count: int
) -> Iterator[tuple[SSAValue, Rows]]:
    """A loop over ``count`` query rows: numbers from ``first`` on, and the scores of a row's ``share`` heads."""
    core = ctx.core
    with core.loop_carrying(first, core.add(first, core.const(count)), [rows.at]) as loop:
        (at,) = loop.carried
        yield loop.counter, Rows(share, at, rows.pitch, rows.count)
        loop.next = [core.add(at, core.const(share * rows.pitch))]


def hide_columns(ctx: LoweringContext, rows: Rows, first: SSAValue, columns: SSAValue) -> None:
    """Give ``columns`` scores from ``first`` on (registers) no weight."""
    core = ctx.core
    place = core.add(rows.at, core.slli(first, imm=1)), rows.pitch
    core.on_rows("vfill_h", rows.rows, place, place, (ctx.f32(HIDDEN), 0), n=columns)
