"""Parts of values on the cores: what each core holds of a value that is cut, and where.

Ranges of indices are known, alike on all cores or one a core: one text runs on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, element_bytes, is_wide, shape_of, whole_shape_of
from pimc.backends.lower.values import Floats, Integers, Strip, Tensor
from pimc.backends.lower.views import FILL, MOVE, View, dense_strides, view_of
from pimc.ir.layout import LayoutAttr, ShardAttr, ShardRound, layout_of


def own_indices(shard: ShardAttr, index: int, extent: int, cores: int) -> tuple[list[int], list[int]]:
    """(first index, number of indices) that each core holds of round ``index`` of a dimension of ``extent`` indices."""
    first, count = [0] * cores, [0] * cores
    this, end = shard.shard_rounds[index], round_end(shard, index, extent)
    for core in range(this.first_core, min(this.first_core + this.cores, cores)):
        own = this.part(core - this.first_core, end)
        first[core], count[core] = own.start, len(own)
    return first, count


def round_end(shard: ShardAttr, index: int, extent: int) -> int:
    """Where round ``index`` ends in a dimension of ``extent`` indices."""
    rounds = shard.shard_rounds
    return rounds[index + 1].start if index + 1 < len(rounds) else extent


@dataclass(frozen=True)
class Cut:
    """A dimension that is cut: round ``index`` of ``shard``."""

    dim: int
    shard: ShardAttr
    index: int = 0

    @property
    def round(self) -> ShardRound:
        """The round."""
        return self.shard.shard_rounds[self.index]

    def own(self, extent: int, cores: int) -> tuple[list[int], list[int]]:
        """(first index, number of indices) that each core holds."""
        return own_indices(self.shard, self.index, extent, cores)

    def skipped(self, cores: int) -> list[int]:
        """How many elements of each core's part lie before index 0 of the dimension."""
        this = self.round
        own = range(this.first_core, this.first_core + this.cores)
        return [min(this.skipped(core - this.first_core), this.per_core) if core in own else 0 for core in range(cores)]


@dataclass(frozen=True)
class Part:
    """What the cores hold of a value, or of one round of it: where it is, and the dimensions that are cut."""

    view: View
    cuts: tuple[Cut, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether every core holds all of it."""
        return not self.cuts

    @property
    def cut(self) -> Cut:
        """The one dimension that is cut."""
        (cut,) = self.cuts
        return cut

    def along(self, dim: int) -> Cut | None:
        """How a dimension is cut; None where it is whole."""
        return next((cut for cut in self.cuts if cut.dim == dim), None)

    def sent(self, dim: int, shape: Sequence[int], cores: int) -> tuple[list[int], list[int]] | None:
        """(first index, number of indices) that each core sends along a dimension of a value of ``shape``; None for
        all.  Of the cores that hold the same, only the first sends.
        """
        cut = self.along(dim)
        if cut is None:
            return None
        first, count = cut.own(shape[dim], cores)
        if cut is not self.cuts[0]:
            return first, count
        boxes = list(zip(*(zip(*each.own(shape[each.dim], cores), strict=True) for each in self.cuts), strict=True))
        return first, [n if boxes.index(boxes[core]) == core else 0 for core, n in enumerate(count)]


def cut_of(ctx: LoweringContext, value: SSAValue) -> tuple[int, ShardAttr]:
    """The dimension along which a value is cut, and how."""
    layout = layout_of(value.type)
    cuts = {} if layout is None else layout.cuts
    if len(cuts) != 1:
        raise ctx.unsupported("a layout that cuts several dimensions")
    return next(iter(cuts.items()))


def blocks_of(ctx: LoweringContext, layout: LayoutAttr) -> tuple[Cut, ...]:
    """Dimensions that are cut, each in one round."""
    if any(len(shard.shard_rounds) > 1 for shard in layout.shards):
        raise ctx.unsupported("a layout that cuts several dimensions in rounds")
    return tuple(Cut(dim, shard) for dim, shard in layout.cuts.items())


def local_shape(value: SSAValue) -> tuple[int, ...]:
    """The longest part of a value that a core holds, along every dimension."""
    shape, layout = whole_shape_of(value), layout_of(value.type)
    cuts = {} if layout is None else layout.cuts
    return tuple(cuts[dim].max_local_size if dim in cuts else size for dim, size in enumerate(shape))


def parts_of(ctx: LoweringContext, value: SSAValue) -> list[Part]:
    """A value that is cut along one dimension round by round; one that is cut along several, or whole, at once."""
    layout, shape = layout_of(value.type), whole_shape_of(value)
    if layout is None:
        return [Part(view_of(ctx, value))]
    if len(layout.cuts) > 1:
        return [Part(_view_of_rows(ctx.tensor(value).whole, local_shape(value)), blocks_of(ctx, layout))]
    dim, shard = cut_of(ctx, value)
    if dim < len(shape) - 1:
        views = _rounds(view_of(ctx, value), dim, shard)
        return [Part(view, (Cut(dim, shard, index),)) for index, view in enumerate(views)]
    return [
        Part(_view_of_rows(strip, (*shape[:-1], strip.width)), (Cut(dim, shard, index),))
        for index, strip in enumerate(ctx.tensor(value).strips)
    ]


def _view_of_rows(strip: Strip, shape: Sequence[int]) -> View:
    """The rows of a strip by the leading dimensions of ``shape``."""
    rows = tuple(stride // (shape[-1] * 2) * strip.pitch for stride in dense_strides(shape, 2)[:-1])
    return View(strip.buffer, tuple(shape), (*rows, 2), strip.offset)


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
    if len(layout.cuts) > 1:
        return [Part(room(local_shape(value)), blocks_of(ctx, layout))]
    dim, shard = cut_of(ctx, value)
    if dim < len(shape) - 1:
        view = room((*shape[:dim], shard.max_local_size, *shape[dim + 1 :]))
        return [Part(each, (Cut(dim, shard, index),)) for index, each in enumerate(_rounds(view, dim, shard))]
    return [
        Part(room((*shape[:-1], r.per_core)), (Cut(dim, shard, index),)) for index, r in enumerate(shard.shard_rounds)
    ]


def set_parts(ctx: LoweringContext, value: SSAValue, parts: Sequence[Part]) -> None:
    """Record the parts as what a value became."""
    first = parts[0].view
    if first.itemsize != 2:
        elements = first.buffer.bytes // first.itemsize
        ctx.set(value, (Floats if is_wide(value) else Integers)(first.buffer, elements))
        return
    if len(parts[0].cuts) > 1 or parts[0].along(len(whole_shape_of(value)) - 1) is not None:
        ctx.set(value, Tensor(tuple(_strip(part.view) for part in parts)))
        return
    own = shape_of(value)
    ctx.set(value, Tensor((_strip(View(first.buffer, own, dense_strides(own, 2), 0, 2)),)))


def _strip(view: View) -> Strip:
    width = view.shape[-1] if view.shape else 1
    return Strip(view.buffer, prod(view.shape[:-1]), width, width * 2, view.offset)


def clear_padding(ctx: LoweringContext, part: Part, shape: Sequence[int], number: SSAValue | None = None) -> None:
    """Zeros where a core's part is longer than what it holds, so that work on all of it is on numbers.

    ``number``: the address of another number than zero.
    """
    for cut in part.cuts:
        _, held = cut.own(shape[cut.dim], ctx.cores)
        before = [n if count else 0 for n, count in zip(cut.skipped(ctx.cores), held, strict=True)]
        _fill(ctx, part.view, cut, [0] * ctx.cores, before, number)
        end = [n + count for n, count in zip(before, held, strict=True)]
        _fill(ctx, part.view, cut, end, [cut.round.per_core - n for n in end], number)


def _fill(
    ctx: LoweringContext, view: View, cut: Cut, first: Sequence[int], rest: list[int], number: SSAValue | None
) -> None:
    """Fill ``rest[core]`` indices of a dimension that is cut from ``first[core]`` on."""
    if not any(rest):
        return
    core, size, step = ctx.core, cut.round.per_core, view.strides[cut.dim]
    inner, outer = step // view.itemsize, prod(view.shape[: cut.dim])
    if all(n in (0, size) for n in rest) and view.is_contiguous:
        outer, rest = 1, [n * outer for n in rest]  # a core has all or nothing
    if number is None:
        number = ctx.f32(0.0) if view.itemsize == 2 else ctx.word(0)
    at = core.address(
        view.buffer.value,
        [view.offset + (n * step if n < size else 0) for n in first],
    )
    place = (at, step * view.shape[cut.dim])
    core.on_rows(FILL[view.itemsize], outer, place, place, (number, 0), n=core.const([n * inner for n in rest]))


def copy_held(ctx: LoweringContext, source: Part, to: Part, shape: Sequence[int]) -> None:
    """Copy what each core holds of a part to the same places of another part of the same size; ``shape``: the source's,
    all cores together.
    """
    dim, view, core = source.cut.dim, source.view, ctx.core
    _, held = source.cut.own(shape[dim], ctx.cores)
    before = source.cut.skipped(ctx.cores)
    steps = (view.strides[dim], to.view.strides[dim])
    at, place = (
        core.address(each.buffer.value, [each.offset + n * step for n in before])
        for each, step in zip((view, to.view), steps, strict=True)
    )
    inner, outer = prod(view.shape[dim + 1 :]), prod(view.shape[:dim])
    pitches = [step * each.shape[dim] for each, step in zip((view, to.view), steps, strict=True)]
    rows = ((place, pitches[1]), (at, pitches[0]))
    core.on_rows(MOVE[view.itemsize], outer, *rows, n=core.const([n * inner for n in held]))
