"""Parts of values on the cores: what each core holds of a value that is cut, and where.

Ranges of indices are numbers that are known, known for each core, or in a register: one text runs on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from operator import add, mul, sub
from typing import TypeAlias

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, element_bytes, is_wide, shape_of, whole_shape_of
from pimc.backends.lower.values import Floats, Integers, Strip, Tensor
from pimc.backends.lower.views import FILL, View, dense_strides, view_of
from pimc.ir.layout import ShardAttr, ShardRound, layout_of

#: A number: known, known for each core, or in a register.
Number: TypeAlias = "int | list[int] | SSAValue"


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic on numbers, at compile time as far as they are known then."""

    ctx: LoweringContext

    def register(self, number: Number) -> SSAValue:
        """The number in a register."""
        return number if isinstance(number, SSAValue) else self.ctx.core.const(number)

    def _apply(self, name: str, known: Callable[[int, int], int], a: Number, b: Number) -> Number:
        if isinstance(a, SSAValue) or isinstance(b, SSAValue):
            return self.ctx.core.emit(name, self.register(a), self.register(b)).results[0]
        if isinstance(a, int) and isinstance(b, int):
            return known(a, b)
        found = [known(x, y) for x, y in zip(self._listed(a), self._listed(b), strict=True)]
        return found[0] if len(set(found)) == 1 else found

    def _listed(self, number: int | list[int]) -> list[int]:
        return [number] * self.ctx.cores if isinstance(number, int) else number

    def add(self, a: Number, b: Number) -> Number:
        """a + b."""
        return a if b == 0 else b if a == 0 else self._apply("add", add, a, b)

    def sub(self, a: Number, b: Number) -> Number:
        """a - b."""
        return a if b == 0 else self._apply("sub", sub, a, b)

    def mul(self, a: Number, b: int) -> Number:
        """a * b."""
        return a if b == 1 else self._apply("mul", mul, a, b)

    def min(self, a: Number, b: Number) -> Number:
        """The lesser."""
        return self._apply("min", min, a, b)

    def max(self, a: Number, b: Number) -> Number:
        """The greater."""
        return self._apply("max", max, a, b)


def own_indices(shard: ShardAttr, index: int, extent: int, cores: int) -> tuple[list[int], list[int]]:
    """(first index, number of indices) that each core holds of round ``index`` of a dimension of ``extent`` indices."""
    first, count = [0] * cores, [0] * cores
    this, end = shard.shard_rounds[index], round_end(shard, index, extent)
    for core in range(this.first_core, min(this.first_core + this.cores, cores)):
        start = min(this.start + (core - this.first_core) // this.share * this.per_core, end)
        first[core], count[core] = start, min(this.per_core, end - start)
    return first, count


def round_end(shard: ShardAttr, index: int, extent: int) -> int:
    """Where round ``index`` ends in a dimension of ``extent`` indices."""
    rounds = shard.shard_rounds
    return rounds[index + 1].start if index + 1 < len(rounds) else extent


@dataclass(frozen=True)
class Part:
    """One round of a value on the cores: where it is, the dimension that is cut (None: whole), and its round."""

    view: View
    dim: int | None = None
    shard: ShardAttr | None = None
    index: int = 0

    @property
    def round(self) -> ShardRound:
        """The round of the cut."""
        assert self.shard is not None  # the caller's
        return self.shard.shard_rounds[self.index]

    @property
    def cut(self) -> tuple[int, ShardAttr]:
        """The dimension that is cut, and how."""
        assert self.dim is not None  # the caller's
        assert self.shard is not None
        return self.dim, self.shard

    def sent(self, dim: int, extent: int, cores: int) -> tuple[Number, Number] | None:
        """(first index, number of indices) that each core sends along a dimension, the first of those that share; None
        for all.
        """
        if dim != self.dim or self.shard is None:
            return None
        first, count = own_indices(self.shard, self.index, extent, cores)
        this = self.round
        return first, [n if (core - this.first_core) % this.share == 0 else 0 for core, n in enumerate(count)]


def cut_of(ctx: LoweringContext, value: SSAValue) -> tuple[int, ShardAttr]:
    """The dimension along which a value is cut, and how."""
    layout = layout_of(value.type)
    cuts = {} if layout is None else layout.cuts
    if len(cuts) != 1:
        raise ctx.unsupported("a layout that cuts several dimensions")
    return next(iter(cuts.items()))


def parts_of(ctx: LoweringContext, value: SSAValue) -> list[Part]:
    """A value that is cut along one dimension (or whole), round by round."""
    layout, shape = layout_of(value.type), whole_shape_of(value)
    if layout is None:
        return [Part(view_of(ctx, value))]
    dim, shard = cut_of(ctx, value)
    if dim < len(shape) - 1:
        return [Part(view, dim, shard, index) for index, view in enumerate(_rounds(view_of(ctx, value), dim, shard))]
    found: list[Part] = []
    for index, strip in enumerate(ctx.tensor(value).strips):
        rows = tuple(stride // (shape[-1] * 2) * strip.pitch for stride in dense_strides(shape, 2)[:-1])
        view = View(strip.buffer, (*shape[:-1], strip.width), (*rows, 2), strip.offset)
        found.append(Part(view, dim, shard, index))
    return found


def _rounds(view: View, dim: int, shard: ShardAttr) -> list[View]:
    """The rounds of a core's part, one behind the other along the dimension that is cut."""
    return [
        view.slice(dim, shard.local_offset(index), r.per_core) if len(shard.shard_rounds) > 1 else view
        for index, r in enumerate(shard.shard_rounds)
    ]


def fresh_parts(ctx: LoweringContext, value: SSAValue, hint: str, *, remote: bool = False) -> list[Part]:
    """Room for a value; ``remote``: other cores send parts of it."""
    layout, shape, itemsize = layout_of(value.type), whole_shape_of(value), element_bytes(value)

    def room(own: Sequence[int]) -> View:
        buffer = ctx.alloc(hint, prod(own) * itemsize, remote=remote)
        return View(buffer, tuple(own), dense_strides(own, itemsize), 0, itemsize)

    if layout is None:
        return [Part(room(shape))]
    dim, shard = cut_of(ctx, value)
    if dim < len(shape) - 1:
        view = room((*shape[:dim], shard.max_local_size, *shape[dim + 1 :]))
        return [Part(each, dim, shard, index) for index, each in enumerate(_rounds(view, dim, shard))]
    return [Part(room((*shape[:-1], r.per_core)), dim, shard, index) for index, r in enumerate(shard.shard_rounds)]


def set_parts(ctx: LoweringContext, value: SSAValue, parts: Sequence[Part]) -> None:
    """Record the parts as what a value became."""
    first = parts[0].view
    if first.itemsize != 2:
        elements = first.buffer.bytes // first.itemsize
        ctx.set(value, (Floats if is_wide(value) else Integers)(first.buffer, elements))
        return
    shape = whole_shape_of(value)
    if parts[0].dim is not None and parts[0].dim == len(shape) - 1:
        ctx.set(value, Tensor(tuple(_strip(part.view) for part in parts)))
        return
    own = shape_of(value)
    ctx.set(value, Tensor((_strip(View(first.buffer, own, dense_strides(own, 2), 0, 2)),)))


def _strip(view: View) -> Strip:
    width = view.shape[-1] if view.shape else 1
    return Strip(view.buffer, prod(view.shape[:-1]), width, width * 2, view.offset)


def clear_padding(ctx: LoweringContext, part: Part, shape: Sequence[int]) -> None:
    """Zeros where a core's part is longer than what it holds, so that work on all of it is on numbers."""
    if part.dim is None or part.shard is None:
        return
    _, held = own_indices(part.shard, part.index, shape[part.dim], ctx.cores)
    rest = [part.round.per_core - count for count in held]
    if not any(rest):
        return
    view, core = part.view, ctx.core
    step = view.strides[part.dim]
    inner = step // view.itemsize
    outer = prod(view.shape[: part.dim])
    if all(n in (0, part.round.per_core) for n in rest) and view.is_contiguous:
        outer, rest = 1, [n * outer for n in rest]  # a core has all or nothing
    zero = ctx.f32(0.0) if view.itemsize == 2 else ctx.word(0)
    at = core.address(
        view.buffer.value,
        [
            view.offset + n * step if outer > 1 else view.offset + (n * step if n < part.round.per_core else 0)
            for n in held
        ],
    )
    place = (at, step * view.shape[part.dim])
    core.on_rows(FILL[view.itemsize], outer, place, place, (zero, 0), n=core.const([n * inner for n in rest]))
