"""Products of two computed tensors: any rank, any sizes, batches that broadcast.

The unit writes fp16.  A product that stays f32 is written in two parts: what fp16 holds of a sum, and what that leaves
of it; the second is the sum less the first, which goes through the unit once more.

Products of integers are sums of rows on the vector unit, exact modulo 2^32.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, element_bytes, is_wide, shape_of
from pimc.backends.lower.elementwise import map_views, widened
from pimc.backends.lower.index import Indices
from pimc.backends.lower.matrix_unit import Left, Right, on_vectors
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


def lower_vector_matmul(ctx: LoweringContext, op: nn.MatmulOp) -> None:
    """``a @ b`` on the vector unit: of numbers as on the tensor unit, of integers exactly."""
    if element_bytes(op.a) != INTEGER_BYTES:
        on_vectors(lower_matmul)(ctx, op)
        return
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
    minus = None if rest is None else _minus_identity(ctx, min(to.shape[-1], ctx.matrix.columns))
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
    """One product in blocks of the unit's; ``rest`` by ``minus``, the identity with its sign turned."""
    x, core, unit = Indices(ctx.core), ctx.core, ctx.matrix
    depth, stride = core.const(p.depth), core.const(p.stride_c)
    high, wide = min(unit.rows, p.rows), min(unit.columns, p.columns)
    with x.loop(-(-p.rows // high)) as down, x.loop(-(-p.columns // wide)) as across:
        row, column = x.mul(down, high), x.mul(across, wide)
        rows = core.register(high if p.rows % high == 0 else x.least(x.sub(p.rows, row), high))
        cols = core.register(wide if p.columns % wide == 0 else x.least(x.sub(p.columns, column), wide))
        left = Left(x.add(a, x.mul(row, p.stride_a)), core.const(p.stride_a))
        right = Right(x.add(b, x.mul(column, p.column_step)), core.const(p.stride_b), p.by_column)
        unit.multiply(left, right, rows, cols, depth, clear=True)
        offset = x.add(x.mul(row, p.stride_c), x.mul(column, _HALF))
        place = x.add(to, offset)
        unit.round(place, rows, cols, stride)
        if rest is not None and minus is not None:
            identity = Right(address_of(ctx, minus), core.const(minus.strides[0]), by_column=False)
            unit.multiply(Left(place, stride), identity, rows, cols, cols)
            unit.round(x.add(rest, offset), rows, cols, stride)
