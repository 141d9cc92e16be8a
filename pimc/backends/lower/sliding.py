"""Windows that slide over x: how x has to lie for units that take runs of elements, and which elements a place meets.

x is *arranged*: padded, and for steps above 1 cut into phases (elements ``p, p + step, ...``).  Then what is under one
place of the window, at all positions of the window, is one run through the rows of a phase; the few elements between a
row's last position and the next row's first are met too, and left behind in the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.views import FILL, View, address_of, copy_at, fresh
from pimc.ir.nn.conv import Window

#: Each of these takes this part of the activation memory at most: what is arranged at once; weights that stay there
#: (larger ones are read in blocks of output channels); runs of results with elements between rows.
BLOCK_SHARE = 4
#: The part that weights may take in any case, whatever is beside them.
LEAST_SHARE = 16


@dataclass(frozen=True)
class Arranged:
    """x as it has to lie: an address, and bytes from a channel, phase or group to the next."""

    at: SSAValue
    channel: int
    phases: tuple[int, ...]
    group: int


@dataclass(frozen=True)
class Sliding:
    """A window of ``places`` over ``groups`` groups of ``channels`` channels, at ``counts`` positions."""

    window: Window
    places: tuple[int, ...]
    counts: tuple[int, ...]
    groups: int
    channels: int
    itemsize: int = 2

    @property
    def rank(self) -> int:
        """Dimensions of the window."""
        return len(self.places)

    @property
    def phases(self) -> tuple[int, ...]:
        """Phases of x that places of the window lie in."""
        return tuple(min(stride, last + 1) for stride, last in zip(self.window.strides, self._last_places, strict=True))

    @property
    def rows(self) -> tuple[int, ...]:
        """Elements of a phase: one a position of the window, and those that the window reaches beyond."""
        return tuple(
            count + last // stride
            for count, last, stride in zip(self.counts, self._last_places, self.window.strides, strict=True)
        )

    @property
    def _last_places(self) -> tuple[int, ...]:
        return tuple(d * (places - 1) for d, places in zip(self.window.dilations, self.places, strict=True))

    @property
    def row_steps(self) -> tuple[int, ...]:
        """Elements from a row of the arranged x to the next, in each dimension."""
        return tuple(prod(self.rows[dim + 1 :]) for dim in range(self.rank))

    @property
    def run(self) -> int:
        """Elements from the first position to the last, those between rows too."""
        return sum((count - 1) * step for count, step in zip(self.counts, self.row_steps, strict=True)) + 1

    @property
    def is_dense(self) -> bool:
        """Whether there is nothing between rows."""
        return self.rows[1:] == self.counts[1:]

    # -- x ------------------------------------------------------------------------------------------------------------

    def arrange(self, ctx: LoweringContext, x: View, at: SSAValue, fill: SSAValue) -> Arranged:
        """x ``[groups, channels, sizes...]`` at an address: in place if it lies so already, else a copy.

        ``fill``: the address of what is around x.
        """
        sizes = zip(self.rows, self.window.strides, self.phases, x.shape[2:], strict=True)
        if any(self.window.low) or any((rows - 1) * step + phases > size for rows, step, phases, size in sizes):
            copy = self._padded(ctx, x, at, fill)
        else:
            split = self._split(x)
            dense = tuple(self.itemsize * step for step in self.row_steps)
            if prod(self.phases) == 1 and split.strides[-self.rank :] == dense:
                return Arranged(at, split.strides[1 + self.rank], (0,) * self.rank, split.strides[0])
            copy = fresh(ctx, "window.phases", split.shape, self.itemsize)
            copy_at(ctx, split, copy, at, address_of(ctx, copy))
        steps = copy.strides[1 : 1 + self.rank]
        return Arranged(address_of(ctx, copy), copy.strides[1 + self.rank], steps, copy.strides[0])

    def _split(self, x: View) -> View:
        """x ``[groups, channels, sizes...]`` as ``[groups, phases..., channels, rows...]``."""
        steps = x.strides[2:]
        rows = tuple(step * stride for step, stride in zip(steps, self.window.strides, strict=True))
        return replace(
            x,
            shape=(self.groups, *self.phases, self.channels, *self.rows),
            strides=(x.strides[0], *steps, x.strides[1], *rows),
        )

    def _padded(self, ctx: LoweringContext, x: View, at: SSAValue, fill: SSAValue) -> View:
        """The phases of x with what is around it, as much as the windows meet."""
        core = ctx.core
        whole = fresh(ctx, "window.padded", (self.groups, *self.phases, self.channels, *self.rows), self.itemsize)
        start = address_of(ctx, whole)
        core.emit(FILL[self.itemsize], start, start, fill, core.const(whole.elements))
        for place in product(*map(range, self.phases)):
            source, to = self._phase(x, whole, place, range(self.rank))
            if source.elements:
                offset = source.offset - x.offset
                copy_at(ctx, source, to, core.add(at, core.const(offset)) if offset else at, address_of(ctx, to))
        return whole

    def arrange_rows(self, ctx: LoweringContext, x: View, at: SSAValue, fill: SSAValue, first: SSAValue) -> Arranged:
        """As :meth:`arrange`, of the rows that positions from row ``first`` on meet: the window's own padding too."""
        core, window = ctx.core, self.window
        whole = fresh(ctx, "window.rows", (self.groups, *self.phases, self.channels, *self.rows), self.itemsize)
        start = address_of(ctx, whole)
        core.emit(FILL[self.itemsize], start, start, fill, core.const(whole.elements))
        stride, pitch = window.strides[0], x.strides[2]
        top = core.sub(core.mul(first, stride), core.const(window.low[0]))  # the row of x under the first position
        for place in product(*map(range, self.phases)):
            source, to = self._phase(x, whole, place, range(1, self.rank))
            row = core.addi(top, imm=place[0]) if place[0] else top
            low, high = (self._rows_before(ctx, row, limit) for limit in (0, x.shape[2]))
            with core.loop(low, core.min(high, core.const(self.rows[0]))) as number:
                line = core.add(row, core.mul(number, stride))
                here = core.add(at, core.add(core.mul(line, pitch), core.const(source.offset - x.offset)))
                there = core.add(address_of(ctx, to), core.mul(number, to.strides[2]))
                copy_at(ctx, source.slice(2, 0, 1), to.slice(2, 0, 1), here, there)
        steps = whole.strides[1 : 1 + self.rank]
        return Arranged(start, whole.strides[1 + self.rank], steps, whole.strides[0])

    def _rows_before(self, ctx: LoweringContext, row: SSAValue, limit: int) -> SSAValue:
        """How many rows, a step apart from ``row`` on, come before ``limit``."""
        core, stride = ctx.core, self.window.strides[0]
        left = core.max(core.sub(core.const(limit), row), core.const(0))
        return left if stride == 1 else core.divu(core.addi(left, imm=stride - 1), core.const(stride))

    def _phase(self, x: View, whole: View, place: Sequence[int], dims: Iterable[int]) -> tuple[View, View]:
        """What x has of a phase along ``dims``, and where it goes in the arranged ``whole``."""
        source, to = x, whole
        for phase in place:
            to = to.index(1, phase)
        for dim in dims:
            phase, stride, low = place[dim], self.window.strides[dim], self.window.low[dim]
            first = max(0, -(-(low - phase) // stride))
            stop = min(self.rows[dim], -(-(x.shape[2 + dim] + low - phase) // stride))
            count = max(0, stop - first)
            source = source.slice(2 + dim, first * stride + phase - low, count, stride)
            to = to.slice(2 + dim, first, count)
        return source, to

    def between_rows(self, flat: View, shape: tuple[int, ...]) -> View:
        """What a result of ``shape`` ``[channels, counts...]`` keeps of runs ``[channels, run]``."""
        return replace(flat, shape=shape, strides=(flat.strides[0], *(self.itemsize * step for step in self.row_steps)))

    # -- places of the window -----------------------------------------------------------------------------------------

    @contextmanager
    def each_place(
        self, ctx: LoweringContext, arranged: Arranged, at: SSAValue, beside: SSAValue | None = None, step: int = 0
    ) -> Iterator[tuple[SSAValue, SSAValue | None]]:
        """Loops over the places, giving the address of the first element under each, ``at`` that under the first; and
        of what lies ``beside`` each, ``step`` bytes apart.
        """
        with self._places(ctx, 0, arranged, [at] if beside is None else [at, beside], step) as here:
            yield here[0], here[1] if len(here) > 1 else None

    @contextmanager
    def _places(
        self, ctx: LoweringContext, dim: int, arranged: Arranged, here: list[SSAValue], step: int
    ) -> Iterator[list[SSAValue]]:
        core = ctx.core
        if dim == self.rank:
            yield here
            return
        places, stride, dilation = self.places[dim], self.window.strides[dim], self.window.dilations[dim]
        if places == 1:
            with self._places(ctx, dim + 1, arranged, here, step) as inner:
                yield inner
            return
        with core.loop_carrying(0, places, here) as loop:
            at, *beside = loop.carried
            row, phase = self.itemsize * self.row_steps[dim], arranged.phases[dim]
            move = dilation * row if stride == 1 else dilation * phase
            current = at
            if stride > 1 and dilation * (places - 1) >= stride:  # several phases, and more than one row of one
                place, divisor = core.mul(loop.counter, core.const(dilation)), core.const(stride)
                current = core.add(at, core.mul(core.remu(place, divisor), core.const(phase)))
                current = core.add(current, core.mul(core.divu(place, divisor), core.const(row)))
                move = 0
            with self._places(ctx, dim + 1, arranged, [current, *beside], step) as inner:
                yield inner
            inside = core.const(step * prod(self.places[dim + 1 :]))
            loop.next = [core.add(at, core.const(move)) if move else at, *(core.add(each, inside) for each in beside)]
