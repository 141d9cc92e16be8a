"""Strided views of tensors in local memory: any rank, any strides, and copies between them.

A view says where each element of an n-dimensional tensor is; permuting, slicing, reversing and broadcasting are new
views of the same bytes and cost nothing.  :func:`copy_view` moves the elements.  A lowering of any rank is then:
operands to views, views arranged, :func:`contiguous` where an instruction needs runs, vector instructions on the runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import INTEGER_BYTES, LoweringContext, element_bytes, is_wide, shape_of
from pimc.backends.lower.values import Buffer, Floats, Integers, Positions, Scalar, Strip, Tensor
from pimc.diagnostics import InternalError

#: Vector instructions that copy, by bytes of an element: a run, and elements apart.
MOVE = {2: "vmov_h", 4: "vmov_f"}
MOVE_STRIDED = {2: "vmovs_h", 4: "vmovs_f"}
FILL = {2: "vfill_h", 4: "vfill_f"}


@dataclass(frozen=True)
class View:
    """Element ``i`` is at byte ``offset + sum(i[d] * strides[d])`` of the buffer; strides may be zero or negative."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    itemsize: int = 2

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements follow each other in row-major order without gaps."""
        return self.elements <= 1 or all(
            extent == 1 or stride == dense
            for extent, stride, dense in zip(
                self.shape, self.strides, dense_strides(self.shape, self.itemsize), strict=True
            )
        )

    def permute(self, order: Sequence[int]) -> View:
        """Dimension ``d`` of the result is dimension ``order[d]``."""
        return replace(self, shape=tuple(self.shape[d] for d in order), strides=tuple(self.strides[d] for d in order))

    def slice(self, dim: int, start: int, count: int, step: int = 1) -> View:
        """Elements ``start``, ``start + step``, ... of a dimension; ``step`` may be negative."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[dim] if count else self.offset
        shape[dim], strides[dim] = count, strides[dim] * step
        return replace(self, shape=tuple(shape), strides=tuple(strides), offset=offset)

    def index(self, dim: int, at: int) -> View:
        """The part at one index of a dimension, without that dimension."""
        return self.slice(dim, at, 1).squeeze(dim)

    def reverse(self, dim: int) -> View:
        """The dimension backwards."""
        return self.slice(dim, max(self.shape[dim] - 1, 0), self.shape[dim], -1)

    def squeeze(self, dim: int) -> View:
        """Without a dimension of extent 1."""
        if self.shape[dim] != 1:
            raise InternalError(f"dimension {dim} of {self.shape} is not 1")
        return replace(
            self, shape=self.shape[:dim] + self.shape[dim + 1 :], strides=self.strides[:dim] + self.strides[dim + 1 :]
        )

    def expand_dims(self, dim: int) -> View:
        """With a new dimension of extent 1 before ``dim``."""
        return replace(
            self, shape=(*self.shape[:dim], 1, *self.shape[dim:]), strides=(*self.strides[:dim], 0, *self.strides[dim:])
        )

    def broadcast(self, shape: Sequence[int]) -> View:
        """Repeated to ``shape`` by numpy's rules: dimensions of 1, and missing leading ones, have stride 0."""
        missing = len(shape) - self.rank
        strides = [0] * missing
        for extent, stride, wanted in zip(self.shape, self.strides, shape[missing:], strict=True):
            if extent not in (1, wanted):
                raise InternalError(f"{self.shape} cannot be broadcast to {tuple(shape)}")
            strides.append(0 if extent == 1 else stride)
        return replace(self, shape=tuple(shape), strides=tuple(strides))

    def reshape(self, shape: Sequence[int]) -> View:
        """The same elements in row-major order; only of a contiguous view (see :func:`contiguous`)."""
        if prod(shape) != self.elements or not self.is_contiguous:
            raise InternalError(f"{self} cannot be reshaped to {tuple(shape)} where it is")
        return replace(self, shape=tuple(shape), strides=dense_strides(shape, self.itemsize))


def dense_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of a contiguous row-major tensor."""
    return tuple(itemsize * prod(shape[dim + 1 :]) for dim in range(len(shape)))


def fresh(ctx: LoweringContext, hint: str, shape: Sequence[int], itemsize: int = 2) -> View:
    """A contiguous view of a new buffer."""
    buffer = ctx.alloc(hint, prod(shape) * itemsize)
    return View(buffer, tuple(shape), dense_strides(shape, itemsize), 0, itemsize)


def view_of(ctx: LoweringContext, value: SSAValue) -> View:
    """The view of a replicated value: a tensor, an integer input, or a constant of one element (stored here)."""
    shape, lowered = shape_of(value), ctx.local(value)
    if isinstance(lowered, Integers | Floats):
        return View(lowered.buffer, shape, dense_strides(shape, 4), 0, 4)
    if isinstance(lowered, Positions):
        return _counted(ctx, shape, lowered)
    if isinstance(lowered, Scalar):
        return filled_as(ctx, value, shape, lowered.value)
    tensor = ctx.tensor(value)
    if len(tensor.strips) != 1:
        raise ctx.unsupported("the operand is cut over cores; it must be whole here")
    strip = tensor.whole
    if strip.contiguous:
        return View(strip.buffer, shape, dense_strides(shape, 2), strip.offset, 2)
    rows = tuple(stride // (shape[-1] * 2) * strip.pitch for stride in dense_strides(shape, 2)[:-1])
    return View(strip.buffer, shape, (*rows, 2), strip.offset, 2)


def _counted(ctx: LoweringContext, shape: tuple[int, ...], positions: Positions) -> View:
    """Consecutive positions, stored one by one."""
    core, view = ctx.core, fresh(ctx, "positions", shape, INTEGER_BYTES)
    first = core.addi(core.lw(core.address(positions.base.buffer.value), imm=0), imm=positions.first)
    dims = [Dim(view.elements, (INTEGER_BYTES, 1))] if view.elements > 1 else []
    with nest(ctx, dims, [address_of(ctx, view), first]) as (place, number):
        core.sw(number, place, imm=0)
    return view


def tensor_of_view(view: View) -> Tensor:
    """A contiguous fp16 view as a tensor: its rows are the leading dimensions."""
    if view.itemsize != 2 or not view.is_contiguous:
        raise InternalError(f"{view} is no contiguous fp16 tensor")
    rows, width = prod(view.shape[:-1]), view.shape[-1] if view.shape else 1
    return Tensor((Strip(view.buffer, rows, width, width * 2, view.offset),))


def set_view(ctx: LoweringContext, value: SSAValue, view: View) -> None:
    """Record ``view`` as what ``value`` became, made contiguous if it is not (32 bits: at the start of a buffer)."""
    if view.itemsize == 2:
        ctx.set(value, tensor_of_view(contiguous(ctx, view)))
        return
    if not view.is_contiguous or view.offset:
        whole = fresh(ctx, "words", view.shape, view.itemsize)
        copy_view(ctx, view, whole)
        view = whole
    ctx.set(value, (Floats if is_wide(value) else Integers)(view.buffer, view.elements))


def address_of(ctx: LoweringContext, view: View) -> SSAValue:
    """A register with the address of the view's first element."""
    return ctx.core.address(view.buffer.value, view.offset)


def filled(ctx: LoweringContext, shape: Sequence[int], value: float, itemsize: int = 2) -> View:
    """A new contiguous view with every element ``value`` (itemsize 4: an integer)."""
    view = fresh(ctx, "filled", shape, itemsize)
    if view.elements:
        scalar = ctx.word(int(value)) if itemsize == 4 else ctx.f32(value)
        to = address_of(ctx, view)
        ctx.core.emit(FILL[itemsize], to, to, scalar, ctx.core.const(view.elements))
    return view


def filled_as(ctx: LoweringContext, value: SSAValue, shape: Sequence[int], number: float) -> View:
    """A new contiguous view with every element ``number``, of the element type of ``value``."""
    if not is_wide(value):
        return filled(ctx, shape, number, element_bytes(value))
    view = fresh(ctx, "filled", shape, element_bytes(value))
    if view.elements:
        to = address_of(ctx, view)
        ctx.core.vfill_f(to, to, ctx.f32(number), ctx.core.const(view.elements))
    return view


def contiguous(ctx: LoweringContext, view: View) -> View:
    """The view itself if it is contiguous, else a copy that is."""
    if view.is_contiguous:
        return view
    to = fresh(ctx, "contiguous", view.shape, view.itemsize)
    copy_view(ctx, view, to)
    return to


def copy_view(ctx: LoweringContext, source: View, to: View) -> None:
    """Copy the elements of ``source`` to ``to`` (the same shape and itemsize; they must not overlap).

    Runs of elements along a dimension are one vector instruction, a transposition of two dimensions one of the
    transposition unit; loops of the scalar unit go over the other dimensions.
    """
    if source.shape != to.shape or source.itemsize != to.itemsize:
        raise InternalError(f"a copy of {source} to {to}")
    if source.elements:
        copy_at(ctx, source, to, address_of(ctx, source), address_of(ctx, to))


def copy_at(ctx: LoweringContext, source: View, to: View, source_at: SSAValue, to_at: SSAValue) -> None:
    """As :func:`copy_view`, the first elements at computed addresses: only shapes and strides of the views count."""
    core, size = ctx.core, source.itemsize
    dims = coalesce(source.shape, [to.strides, source.strides])
    pair = _transposed(dims, size)
    if pair is not None:
        rows, cols = (dims.pop(d) for d in sorted(pair, reverse=True))
        if rows.strides[0] != size:
            rows, cols = cols, rows
        with nest(ctx, dims, [to_at, source_at]) as (dst, src):
            core.trans(
                dst, src, rows=core.const(rows.extent), cols=core.const(cols.extent),
                stride_a=core.const(rows.strides[1]), stride_b=core.const(cols.strides[0]),
            )  # fmt: skip
        return
    inner = dims.pop(max(range(len(dims)), key=lambda d: _vector_gain(dims[d], size))) if dims else Dim(1, (size, size))
    if inner.strides == (size, size) or inner.extent == 1:
        on_runs(ctx, MOVE[size], dims, [to_at, source_at], inner.extent)
    else:
        with nest(ctx, dims, [to_at, source_at]) as (dst, src):
            core.emit(
                MOVE_STRIDED[size], dst, src, core.const(inner.extent),
                stride_b=core.const(inner.strides[0]), stride_a=core.const(inner.strides[1]),
            )  # fmt: skip


@dataclass(frozen=True)
class Dim:
    """A loop dimension: its extent, and the stride in bytes of every view that is walked along."""

    extent: int
    strides: tuple[int, ...]


def coalesce(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[Dim]:
    """The dimensions of views of one shape, without those of extent 1, neighbours merged where all views allow it."""
    dims: list[Dim] = []
    for extent, steps in zip(shape, zip(*strides, strict=True), strict=True):
        if extent == 1:
            continue
        if dims and all(outer == inner * extent for outer, inner in zip(dims[-1].strides, steps, strict=True)):
            dims[-1] = Dim(dims[-1].extent * extent, steps)
        else:
            dims.append(Dim(extent, steps))
    return dims


@contextmanager
def nest(ctx: LoweringContext, dims: Sequence[Dim], addresses: Sequence[SSAValue]) -> Iterator[tuple[SSAValue, ...]]:
    """A nest of loops over ``dims``, giving the addresses of the views, advanced by the strides."""
    if not dims:
        yield tuple(addresses)
        return
    outer, core = dims[0], ctx.core
    moving = [view for view, stride in enumerate(outer.strides) if stride]
    with core.loop_carrying(0, outer.extent, [addresses[view] for view in moving]) as loop:
        here = list(addresses)
        for view, carried in zip(moving, loop.carried, strict=True):
            here[view] = carried
        with nest(ctx, dims[1:], here) as inner:
            yield inner
        loop.next = [core.add(here[view], core.const(outer.strides[view])) for view in moving]


def on_runs(ctx: LoweringContext, name: str, dims: Sequence[Dim], addresses: Sequence[SSAValue], run: int) -> None:
    """An instruction on runs of ``run`` elements: the longest dimension as its rows, loops over the others."""
    rest = list(dims)
    rows = rest.pop(max(range(len(rest)), key=lambda d: rest[d].extent)) if rest else Dim(1, (0,) * len(addresses))
    with nest(ctx, rest, addresses) as here:
        ctx.core.on_rows(name, rows.extent, *zip(here, rows.strides, strict=True), n=run)


def _vector_gain(dim: Dim, size: int) -> tuple[bool, int]:
    """How good a dimension is for the vector instruction: runs before gaps, then the longest."""
    return dim.strides == (size, size), dim.extent


def _transposed(dims: Sequence[Dim], size: int) -> tuple[int, int] | None:
    """Two dimensions that the transposition unit can swap: one dense in the destination, the other in the source."""
    if size != 2:
        return None
    rows = [d for d, dim in enumerate(dims) if dim.strides[0] == size and dim.strides[1] > size]
    cols = [d for d, dim in enumerate(dims) if dim.strides[1] == size and dim.strides[0] > size]
    return (rows[0], cols[0]) if rows and cols else None
