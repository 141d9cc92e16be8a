"""Products of two computed tensors on the tensor unit: any rank, any sizes, batches that broadcast.

The unit writes fp16.  A product that stays f32 is written in two parts: what fp16 holds of a sum, and what that leaves
of it; the second is the sum less the first, which goes through the unit once more.

Products of integers are sums of rows on the vector unit, exact modulo 2^32.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, is_wide, shape_of
from pimc.backends.lower.elementwise import map_views, widened
from pimc.backends.lower.views import (
    Dim,
    View,
    address_of,
    coalesce,
    contiguous,
    copy_view,
    filled,
    filled_as,
    fresh,
    nest,
    set_view,
    view_of,
)
from pimc.ir import nn

#: Bytes of an fp16 element: the stride of a dimension whose elements follow each other.
_HALF = 2


def lower_matmul(ctx: LoweringContext, op: nn.MatmulOp) -> None:
    """``a @ b``: fp32 sums over ascending k, one rounding; the whole product on every core."""
    operands = _operands(ctx, op)
    if operands is None:
        return
    a, b = operands
    result = fresh(ctx, "matmul", shape_of(op.result))
    rest = fresh(ctx, "matmul.rest", result.shape) if is_wide(op.result) else None
    multiply(ctx, a, b, result, rest)
    if rest is not None:
        result = widened(ctx, result)
        map_views(ctx, "vadd_f", result, result, widened(ctx, rest))
    set_view(ctx, op.result, result)


def lower_integer_matmul(ctx: LoweringContext, op: nn.MatmulOp) -> None:
    """``a @ b`` of integers."""
    operands = _operands(ctx, op)
    if operands is None:
        return
    a, b = operands
    result = filled(ctx, shape_of(op.result), 0.0, INTEGER_BYTES)
    _integers(ctx, a, contiguous(ctx, b), result)
    set_view(ctx, op.result, result)


def _operands(ctx: LoweringContext, op: nn.MatmulOp) -> tuple[View, View] | None:
    """The operands with the leading dimensions of the result; None where that is empty or all zeros, and set here."""
    shape = shape_of(op.result)
    if shape_of(op.a)[-1] == 0 or 0 in shape:
        set_view(ctx, op.result, filled_as(ctx, op.result, shape, 0.0))
        return None
    a, b = view_of(ctx, op.a), view_of(ctx, op.b)
    return a.broadcast((*shape[:-2], *a.shape[-2:])), b.broadcast((*shape[:-2], *b.shape[-2:]))


def _integers(ctx: LoweringContext, a: View, b: View, to: View) -> None:
    """``to[..., m, :] += a[..., m, k] * b[..., k, :]`` for every m and k."""
    core, columns = ctx.core, to.shape[-1]
    factor = ctx.alloc("factor", columns * INTEGER_BYTES)
    outer = coalesce(to.shape[:-1], [(*view.strides[:-2], step) for view, step in _rows(to, a, b)])
    inner = [Dim(a.shape[-1], (a.strides[-1], b.strides[-2]))] if a.shape[-1] > 1 else []
    count = core.const(columns)
    with (
        nest(ctx, outer, [address_of(ctx, view) for view in (to, a, b)]) as (place, number, matrix),
        nest(ctx, inner, [number, matrix]) as (scalar, row),
    ):
        scaled = core.address(factor.value)
        core.vfill_f(scaled, scaled, scalar, count)
        core.vmul_i(scaled, scaled, row, count)
        core.vadd_i(place, place, scaled, count)


def _rows(to: View, a: View, b: View) -> list[tuple[View, int]]:
    """The views, and their steps from a row of the product to the next."""
    return [(to, to.strides[-2]), (a, a.strides[-2]), (b, 0)]


def multiply(ctx: LoweringContext, a: View, b: View, to: View, rest: View | None = None) -> None:
    """``to[..., M, N] = a[..., M, K] @ b[..., K, N]`` of views with the same leading dimensions.

    Copies an operand only where neither of its matrix dimensions has its elements side by side.  ``rest``, like ``to``,
    gets what rounding has taken from the product.
    """
    a = a if a.strides[-1] == _HALF or a.shape[-1] == 1 else contiguous(ctx, a)
    if _HALF not in b.strides[-2:] and b.shape[-2:] != (1, 1):
        b = contiguous(ctx, b)
    views = [to, a, b] if rest is None else [to, a, b, rest]
    minus = None if rest is None else _minus_identity(ctx, min(to.shape[-1], ctx.target.tcu.columns))
    batch = coalesce(to.shape[:-2], [view.strides[:-2] for view in views])
    with nest(ctx, batch, [address_of(ctx, view) for view in views]) as addresses:
        place, left, right, *others = addresses
        _tiles(ctx, Product.of(a, b, to), place, left, right, others[0] if others else None, minus)


def _minus_identity(ctx: LoweringContext, size: int) -> View:
    """The matrix with -1 in the diagonal."""
    matrix = filled(ctx, (size, size), 0.0)
    diagonal = View(matrix.buffer, (size,), ((size + 1) * _HALF,))
    copy_view(ctx, filled(ctx, (size,), -1.0), diagonal)
    return matrix


@dataclass(frozen=True)
class Product:
    """Sizes and strides (bytes) of a matrix product; ``by_column``: B is stored by its columns."""

    rows: int
    columns: int
    depth: int
    stride_a: int
    stride_b: int
    stride_c: int
    by_column: bool

    @staticmethod
    def of(a: View, b: View, to: View) -> Product:
        """Of the last two dimensions of views."""
        by_column = b.strides[-1] != _HALF and b.shape[-1] != 1
        rows, depth = a.shape[-2:]
        return Product(
            rows, b.shape[-1], depth, a.strides[-2], b.strides[-1] if by_column else b.strides[-2], to.strides[-2],
            by_column,
        )  # fmt: skip

    @property
    def column_step(self) -> int:
        """Bytes from a column of B to the next."""
        return self.stride_b if self.by_column else _HALF


def _tiles(
    ctx: LoweringContext,
    p: Product,
    to: SSAValue,
    a: SSAValue,
    b: SSAValue,
    rest: SSAValue | None = None,
    minus: View | None = None,
) -> None:
    """One product in blocks of the systolic array's size; ``rest`` by ``minus``, the identity with its sign turned."""
    core, tcu = ctx.core, ctx.target.tcu
    depth, stride_a, stride_b = core.const(p.depth), core.const(p.stride_a), core.const(p.stride_b)
    multiply_ = core.tmmc_nk if p.by_column else core.tmmc_kn
    for row in range(0, p.rows, tcu.rows):
        rows = core.const(min(tcu.rows, p.rows - row))
        left = core.add(a, core.const(row * p.stride_a))
        for column in range(0, p.columns, tcu.columns):
            cols = core.const(min(tcu.columns, p.columns - column))
            right = core.add(b, core.const(column * p.column_step))
            multiply_(left, right, rows=rows, cols=cols, depth=depth, stride_a=stride_a, stride_b=stride_b)
            offset, stride = core.const(row * p.stride_c + column * _HALF), core.const(p.stride_c)
            place = core.add(to, offset)
            core.twb(place, rows=rows, cols=cols, stride_c=stride)
            if rest is not None and minus is not None:
                pitch = core.const(minus.strides[0])
                core.tmm_kn(
                    place, address_of(ctx, minus), rows=rows, cols=cols, depth=cols, stride_a=stride, stride_b=pitch
                )
                core.twb(core.add(rest, offset), rows=rows, cols=cols, stride_c=stride)
