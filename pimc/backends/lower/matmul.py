"""Products of two computed tensors on the tensor unit: any rank, any sizes, batches that broadcast.

Products of integers are sums of rows on the vector unit, exact modulo 2^32.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, element_bytes, shape_of
from pimc.backends.lower.views import (
    Dim,
    View,
    address_of,
    coalesce,
    contiguous,
    filled,
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
    shape = shape_of(op.result)
    inner = shape_of(op.a)[-1]
    if inner == 0 or 0 in shape:
        set_view(ctx, op.result, filled(ctx, shape, 0.0, element_bytes(op.result)))
        return
    a, b = view_of(ctx, op.a), view_of(ctx, op.b)
    a, b = a.broadcast((*shape[:-2], *a.shape[-2:])), b.broadcast((*shape[:-2], *b.shape[-2:]))
    if a.itemsize == INTEGER_BYTES:
        result = filled(ctx, shape, 0.0, INTEGER_BYTES)
        _integers(ctx, a, contiguous(ctx, b), result)
    else:
        result = fresh(ctx, "matmul", shape)
        multiply(ctx, a, b, result)
    set_view(ctx, op.result, result)


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


def multiply(ctx: LoweringContext, a: View, b: View, to: View) -> None:
    """``to[..., M, N] = a[..., M, K] @ b[..., K, N]`` of views with the same leading dimensions.

    Copies an operand only where neither of its matrix dimensions has its elements side by side.
    """
    a = a if a.strides[-1] == _HALF or a.shape[-1] == 1 else contiguous(ctx, a)
    if _HALF not in b.strides[-2:] and b.shape[-2:] != (1, 1):
        b = contiguous(ctx, b)
    batch = coalesce(to.shape[:-2], [view.strides[:-2] for view in (to, a, b)])
    with nest(ctx, batch, [address_of(ctx, view) for view in (to, a, b)]) as addresses:
        _tiles(ctx, Product.of(a, b, to), *addresses)


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


def _tiles(ctx: LoweringContext, p: Product, to: SSAValue, a: SSAValue, b: SSAValue) -> None:
    """One product in blocks of the systolic array's size."""
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
            place = core.add(to, core.const(row * p.stride_c + column * _HALF))
            core.twb(place, rows=rows, cols=cols, stride_c=core.const(p.stride_c))
