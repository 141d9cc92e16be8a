"""Attention of rows: its two products in blocks of the unit's rows and columns, and what rows do not see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.matrix_unit import Left, Right
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
    core, unit = ctx.core, ctx.matrix
    for row in range(0, rows, unit.rows):
        height = core.const(min(unit.rows, rows - row))
        with core.loop(core.const(0), count, unit.columns) as first:
            cols = core.min(core.sub(count, first), core.const(unit.columns))
            left = Left(a.row(ctx, row), core.const(a.pitch))
            keys = core.add(b.at, core.mul(first, core.const(b.pitch)))
            right = Right(keys, core.const(b.pitch), by_column=True)
            unit.multiply(left, right, height, cols, core.const(depth), clear=True)
            place = core.add(to.row(ctx, row), core.slli(first, imm=1))
            unit.round(place, height, cols, core.const(to.pitch))


def multiply_by_columns(
    ctx: LoweringContext, a: Matrix, b: Matrix, to: Matrix, rows: int, columns: int, depth: SSAValue
) -> None:
    """``to[m][n] = sum over k below depth (a register) of a[m][k] * b[k][n]``: weights and values."""
    core, unit = ctx.core, ctx.matrix
    for row in range(0, rows, unit.rows):
        height = core.const(min(unit.rows, rows - row))
        for column in range(0, columns, unit.columns):
            cols = core.const(min(unit.columns, columns - column))
            left = Left(a.row(ctx, row), core.const(a.pitch))
            values = core.add(b.at, core.const(column * 2)) if column else b.at
            right = Right(values, core.const(b.pitch), by_column=False)
            unit.multiply(left, right, height, cols, depth, clear=True)
            place = core.add(to.row(ctx, row), core.const(column * 2)) if column else to.row(ctx, row)
            unit.round(place, height, cols, core.const(to.pitch))


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
