"""Work on many rows at once: what several lowerings do to each row of a matrix, in a number of instructions that does
not depend on the number of rows.
"""

from __future__ import annotations

from pimc.backends.builder import Place, Register
from pimc.backends.lower.context import F32_BYTES, LoweringContext


def numbers_of_rows(ctx: LoweringContext, hint: str, most: int) -> Place:
    """A new buffer of an f32 for each of at most ``most`` rows."""
    return ctx.core.address(ctx.alloc(hint, most * F32_BYTES).value), F32_BYTES


def softmax_rows(
    ctx: LoweringContext, rows: Register, to: Place, source: Place, *, n: Register, most: int, kind: str = "h"
) -> None:
    """Softmax of each of ``rows`` rows of ``n`` elements, in place or from ``source`` to ``to``.

    Args:
        most: the greatest number of rows, where that is a register.
        kind: the letter of the element type: h for fp16, f for f32.
    """
    core = ctx.core
    top, total = (numbers_of_rows(ctx, f"softmax.{name}", most) for name in ("max", "sum"))
    core.on_rows(f"vrmax_{kind}", rows, top, source, n=n)
    core.on_rows(f"vexps_{kind}", rows, to, source, top, n=n)
    core.on_rows(f"vrsum_{kind}", rows, total, to, n=n)
    core.on_rows(f"vdivs_{kind}", rows, to, to, total, n=n)


def inverse_deviation(ctx: LoweringContext, rows: int, source: Place, *, n: int, eps: float) -> Place:
    """1 / sqrt(mean(x^2) + eps) of each row, an f32 a row."""
    core = ctx.core
    scale = numbers_of_rows(ctx, "norm.scale", rows)
    core.on_rows("vrsumsq_h", rows, scale, source, n=n)
    at, _ = scale
    _mean(ctx, at, rows, n)
    core.vadds_f(at, at, ctx.f32(eps), rows)
    core.vrsqrt_f(at, at, rows)
    return scale


def mean_of_rows(ctx: LoweringContext, rows: int, source: Place, *, n: int) -> Place:
    """The mean of each row, an f32 a row."""
    mean = numbers_of_rows(ctx, "norm.mean", rows)
    ctx.core.on_rows("vrsum_h", rows, mean, source, n=n)
    _mean(ctx, mean[0], rows, n)
    return mean


def _mean(ctx: LoweringContext, totals: Register, rows: int, n: int) -> None:
    """Totals of ``n`` elements to means, in place."""
    ctx.core.vmuls_f(totals, totals, ctx.f32(1.0 / n), rows)
