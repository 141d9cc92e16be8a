"""Changes of layout by messages: each core sends each other core what the latter shall have of what it has itself.

A value is a box of indices; a core's part of it is a run along each dimension that is cut.  What a core sends to
another is where its part meets the other's.  The text is one for all cores: a core's own ranges are constants that
differ by core, the receivers are a loop, and where nothing is to be sent an empty message keeps the counts equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, source_of, whole_shape_of
from pimc.backends.lower.index import Number, Numbers
from pimc.backends.lower.parts import (
    Cut,
    Part,
    clear_padding,
    fresh_parts,
    parts_of,
    round_end,
    set_parts,
)
from pimc.backends.lower.values import Weight
from pimc.backends.lower.views import MOVE, Dim, View, contiguous, nest, view_of
from pimc.ir.pim.changes import AllGatherOp, AllToAllOp, TakeOp


def lower_change(ctx: LoweringContext, op: AllToAllOp | AllGatherOp) -> None:
    """Send every part to everybody who shall have some of it, wait, and clear what nobody sends."""
    sources, shape = parts_of(ctx, op.input), whole_shape_of(op.input)
    results = fresh_parts(ctx, op.output, "exchange", remote=True)
    semaphore = ctx.semaphores.take()
    expected = [0] * ctx.cores
    for source in sources:
        for result in results:
            count = send(ctx, source, result, shape, semaphore)
            for core in range(ctx.cores):
                expected[core] += count[core]
    few = min(expected)
    ctx.core.wait(ctx.core.const([n - few for n in expected]), sem=semaphore, imm=few)
    for result in results:
        if not any(cut.shard.overlaps for cut in result.cuts):  # the user fills what is around a window's x
            clear_padding(ctx, result, shape)
    set_parts(ctx, op.output, results)


def send(ctx: LoweringContext, source: Part, result: Part, shape: Sequence[int], semaphore: int) -> list[int]:
    """Send what each core has of ``source`` to the cores that hold ``result``; the messages that each core gets."""
    core, calc = ctx.core, Numbers(ctx.core)
    place = _base(ctx, result.view)
    if result.is_whole:
        everybody = Receiver(core.const(0), ctx.cores, place, result.view.strides, {})
        return [send_to(ctx, source, everybody, shape, semaphore) * ctx.cores] * ctx.cores
    reach = _reach(source, result, shape, ctx.cores)
    if reach is not None:
        return _send_near(ctx, source, result, reach, shape, semaphore)
    rounds = [cut.round for cut in result.cuts]
    if len({(r.first_core, r.cores) for r in rounds}) > 1:
        raise ctx.unsupported("a change to a layout whose dimensions are cut over different cores")
    cores, group = rounds[0].cores, min(r.share for r in rounds)
    with core.loop(0, cores // group) as number:
        wanted: dict[int, Run] = {}
        for cut, this in zip(result.cuts, rounds, strict=True):
            part: Number = calc.div(number, this.share // group)
            part = part if this.repeats == 1 else calc.mod(part, this.parts)
            wanted[cut.dim] = _run_of(calc, cut, part, shape[cut.dim])
        first = calc.register(calc.add(calc.mul(number, group), rounds[0].first_core))
        receiver = Receiver(first, group, place, result.view.strides, wanted)
        messages = send_to(ctx, source, receiver, shape, semaphore)
    own = range(rounds[0].first_core, rounds[0].first_core + cores)
    return [messages * ctx.cores if c in own else 0 for c in range(ctx.cores)]


def _send_near(
    ctx: LoweringContext, source: Part, result: Part, reach: int, shape: Sequence[int], semaphore: int
) -> list[int]:
    """Send to the cores that are at most ``reach`` away, round the ring of cores."""
    core, calc, this = ctx.core, Numbers(ctx.core), result.cut.round
    with core.loop(0, 2 * reach + 1) as step:
        first = core.add(step, core.const([c - reach + ctx.cores for c in range(ctx.cores)]))
        first = core.remu(first, core.const(ctx.cores))
        number = core.sub(first, core.const(this.first_core)) if this.first_core else first
        wanted = {result.cut.dim: _run_of(calc, result.cut, number, shape[result.cut.dim])}
        receiver = Receiver(first, 1, _base(ctx, result.view), result.view.strides, wanted)
        messages = send_to(ctx, source, receiver, shape, semaphore)
    return [messages * (2 * reach + 1)] * ctx.cores


def _reach(source: Part, result: Part, shape: Sequence[int], cores: int) -> int | None:
    """How far, round the ring of cores, the receivers of what a core has are at most; None if nearly everywhere.

    Every core sends as far to both sides, an empty message perhaps: so that those who send to it get a message of it,
    by which they know that it is ready.
    """
    if len(result.cuts) > 1:
        return None
    this, dim = result.cut.round, result.cut.dim
    sent = source.sent(dim, shape, cores)
    if sent is None or this.share > 1 or this.repeats > 1:
        return None
    reach = 0
    for core, (first, count) in enumerate(zip(*sent, strict=True)):
        low = max(0, (first - this.start - this.per_core) // this.distance + 1)
        high = min(this.parts - 1, (first + count - 1 - this.start) // this.distance)
        if count and low <= high:
            reach = max(reach, *(abs(this.first_core + number - core) for number in (low, high)))
    return reach if 2 * reach + 1 < min(this.parts, cores) else None


@dataclass(frozen=True)
class Run:
    """``count`` indices of a dimension (``most`` at most) from ``index * step + base`` on."""

    index: Number
    count: Number
    most: int
    step: int = 1
    base: int = 0

    def start(self, calc: Numbers, scale: int = 1) -> Number:
        """The first index, times ``scale``."""
        return calc.add(calc.mul(self.index, self.step * scale), self.base * scale)


def _run_of(calc: Numbers, cut: Cut, part: Number, extent: int) -> Run:
    """What the holders of a part have room for along the dimension that is cut; the first index may be negative."""
    this, end = cut.round, round_end(cut.shard, cut.index, extent)
    whole = Run(part, this.per_core, this.per_core, this.distance, this.start)
    if this.start + (this.parts - 1) * this.distance + this.per_core <= end:
        return whole
    return replace(whole, count=calc.most(calc.least(calc.sub(end, whole.start(calc)), this.per_core), 0))


@dataclass(frozen=True)
class Receiver:
    """Whom a message goes to: ``size`` cores from ``first`` on, which put it from address ``place`` on, ``strides``
    bytes from index to index.  Of the dimensions in ``wanted`` they want a run, of the others all.
    """

    first: SSAValue
    size: int
    place: SSAValue
    strides: Sequence[int]
    wanted: Mapping[int, Run]


def send_to(ctx: LoweringContext, source: Part, to: Receiver, shape: Sequence[int], semaphore: int) -> int:
    """Send what each core has of ``source`` of what the receivers want; the number of messages, which is known.

    A message is what lies side by side in both, of many rows along one other dimension; loops go over the rest.
    """
    core, calc, item = ctx.core, Numbers(ctx.core), source.view.itemsize
    at: Number = _base(ctx, source.view)
    place: Number = to.place
    shared = [_meet(ctx, calc, source, to, dim, shape) for dim in range(len(shape))]
    for each in shared:
        at, place = calc.add(at, each.source), calc.add(place, each.result)
    last = _run_dim(shape, shared, source.view.strides, to.strides)
    rows = _row_dim(shared[: last + 1])
    size = calc.mul(shared[last].count, source.view.strides[last]) if shape else item
    config: dict[str, SSAValue] = {}
    if rows is not None:
        config = {
            "message_rows": calc.register(shared[rows].count),
            "message_src_stride": core.const(source.view.strides[rows]),
            "message_dst_stride": core.const(to.strides[rows]),
        }
    outer = [dim for dim in range(last) if dim != rows and not shared[dim].is_one]
    known = [dim for dim in outer if isinstance(shared[dim].count, int)]
    steps = [Dim(shared[dim].most, (source.view.strides[dim], to.strides[dim])) for dim in known]
    with ExitStack() as loops:
        for dim in outer:
            if dim not in known:  # an index that the parts do not share has a message too, without content
                index: Number = loops.enter_context(core.loop(0, shared[dim].most)) if shared[dim].most > 1 else 0
                there = calc.most(calc.least(calc.sub(shared[dim].count, index), 1), 0)
                size = calc.mul(size, there)
                at = calc.add(at, calc.mul(index, source.view.strides[dim]))
                place = calc.add(place, calc.mul(index, to.strides[dim]))
        here = loops.enter_context(nest(ctx, steps, [calc.register(at), calc.register(place)]))
        _message(ctx, here[0], here[1], calc.register(size), to, config, semaphore)
    return prod(shared[dim].most for dim in outer)


def _run_dim(shape: Sequence[int], shared: Sequence[_Shared], source: Sequence[int], result: Sequence[int]) -> int:
    """The dimension from which on what is shared lies side by side in both, of these strides."""
    last = max(0, len(shape) - 1)
    while last > 0 and shared[last].count == shape[last]:
        if any(strides[last - 1] != strides[last] * shape[last] for strides in (source, result)):
            break
        last -= 1
    return last


@dataclass(frozen=True)
class _Shared:
    """What a part and the receivers' have in common along a dimension: ``count`` indices (``most`` at most), perhaps
    none, from byte ``source`` of the part on and from byte ``result`` of theirs.
    """

    count: Number
    most: int
    source: Number = 0
    result: Number = 0

    @property
    def is_one(self) -> bool:
        """Whether it is always one index."""
        return isinstance(self.count, int) and self.count == 1


def _meet(ctx: LoweringContext, calc: Numbers, source: Part, to: Receiver, dim: int, shape: Sequence[int]) -> _Shared:
    """What the parts have in common along a dimension."""
    own, pitch = source.sent(dim, shape, ctx.cores), source.view.strides[dim]
    wanted, cut = to.wanted.get(dim), source.along(dim)
    first: Number = 0
    count: Number = shape[dim]
    padding: Number = 0
    most = shape[dim]
    if own is not None and cut is not None:
        first, count = own
        padding, most = calc.one(cut.skipped(ctx.cores)), cut.round.per_core
    if wanted is None:
        return _Shared(count, most, calc.mul(padding, pitch), calc.mul(first, to.strides[dim]))
    theirs = wanted.start(calc)
    if own is None and wanted.base >= 0:
        return _Shared(wanted.count, wanted.most, calc.mul(theirs, pitch))
    low = calc.most(first, theirs)
    high = calc.least(calc.add(first, count), calc.add(theirs, wanted.count))
    skipped, placed = calc.add(calc.sub(low, first), padding), calc.sub(low, theirs)
    together = calc.most(calc.sub(high, low), 0)
    return _Shared(together, min(most, wanted.most), calc.mul(skipped, pitch), calc.mul(placed, to.strides[dim]))


def _base(ctx: LoweringContext, view: View) -> SSAValue:
    return ctx.core.address(view.buffer.value, view.offset)


def _row_dim(shared: Sequence[_Shared]) -> int | None:
    """The dimension along which a message is strided: the longest, where they are equal one in which parts differ."""
    leading = [dim for dim in range(len(shared) - 1) if not shared[dim].is_one]
    return max(leading, key=lambda dim: (shared[dim].most, not isinstance(shared[dim].count, int)), default=None)


def _message(
    ctx: LoweringContext,
    at: SSAValue,
    place: SSAValue,
    size: SSAValue,
    to: Receiver,
    config: dict[str, SSAValue],
    semaphore: int,
) -> None:
    kind = "2" if config else ""
    if to.size == 1:
        ctx.core.emit(f"nsend{kind}", place, at, size, to.first, sem=semaphore, **config)
        return
    group = {"group_base": to.first, "group_size": ctx.core.const(to.size)}
    ctx.core.emit(f"nmcast{kind}", place, at, size, sem=semaphore, **group, **config)


def lower_take(ctx: LoweringContext, op: TakeOp) -> None:
    """Copy a core's part of a whole value; of a weight that is not loaded, load that part only."""
    shape, lowered = whole_shape_of(op.input), ctx.values.get(op.input)
    results = fresh_parts(ctx, op.output, "part")
    for result in results:
        cut = result.cut
        first, count = cut.own(shape[cut.dim], ctx.cores)
        step = prod(shape[cut.dim + 1 :]) * result.view.itemsize
        if isinstance(lowered, Weight) and step % ctx.target.hbm.column_bytes == 0 and not any(cut.skipped(ctx.cores)):
            steps = Dim(prod(shape[: cut.dim]), (shape[cut.dim] * step, cut.round.per_core * step))
            _load_part(ctx, lowered, result, steps, [step * index for index in first], [step * n for n in count])
        else:
            _copy(ctx, contiguous(ctx, view_of(ctx, op.input)), result, first, count)
        clear_padding(ctx, result, shape)
    set_parts(ctx, op.output, results)


def _load_part(
    ctx: LoweringContext, weight: Weight, result: Part, steps: Dim, first: list[int], size: list[int]
) -> None:
    """Read a range of bytes of a weight, one a core, for each index of the dimensions before the one that is cut."""
    core, to = ctx.core, result.view
    source = core.add(source_of(ctx, weight), core.const(first))
    place = core.address(to.buffer.value, to.offset)
    with nest(ctx, [steps] if steps.extent > 1 else [], [source, place]) as (here, there):
        core.hrd(there, here, core.const(size))


def _copy(ctx: LoweringContext, source: View, result: Part, first: list[int], count: list[int]) -> None:
    """Copy a range of indices of the dimension that is cut, one a core."""
    core, to, dim = ctx.core, result.view, result.cut.dim
    before = result.cut.skipped(ctx.cores)
    step, outer = source.strides[dim], prod(source.shape[:dim])
    pitches = (source.shape[dim] * step, to.shape[dim] * to.strides[dim])
    at = core.address(source.buffer.value, [source.offset + index * step for index in first])
    place = core.address(to.buffer.value, [to.offset + n * to.strides[dim] for n in before])
    with nest(ctx, [Dim(outer, pitches)] if outer > 1 else [], [at, place]) as (here, there):
        core.emit(MOVE[source.itemsize], there, here, core.const([n * step // source.itemsize for n in count]))
