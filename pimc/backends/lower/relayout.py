"""Changes of layout by messages: each core sends each other core what the latter shall have of what it has itself.

A value is a box of indices; a core's part of it is a range along each dimension that is cut.  What a core sends to
another is where its part meets the other's.  The text is one for all cores: a core's own ranges are constants that
differ by core, the receivers are a loop, and where nothing is to be sent an empty message keeps the counts equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, source_of, whole_shape_of
from pimc.backends.lower.parts import (
    Arithmetic,
    Number,
    Part,
    clear_padding,
    fresh_parts,
    own_indices,
    parts_of,
    round_end,
    set_parts,
)
from pimc.backends.lower.values import Weight
from pimc.backends.lower.views import MOVE, Dim, View, contiguous, nest, view_of
from pimc.ir.pim.changes import AllGatherOp, AllToAllOp, TakeOp


def lower_change(ctx: LoweringContext, op: AllToAllOp | AllGatherOp) -> None:
    """Send every part to everybody who shall have some of it, wait, and clear what nobody sends."""
    sources = parts_of(ctx, op.input)
    results = fresh_parts(ctx, op.output, "exchange", remote=True)
    semaphore = ctx.semaphores.take()
    expected = [0] * ctx.cores
    for source in sources:
        for result in results:
            count = send(ctx, source, result, whole_shape_of(op.input), semaphore)
            for core in range(ctx.cores):
                expected[core] += count[core]
    few = min(expected)
    ctx.core.wait(ctx.core.const([n - few for n in expected]), sem=semaphore, imm=few)
    for result in results:
        clear_padding(ctx, result, whole_shape_of(op.output))
    set_parts(ctx, op.output, results)


def send(ctx: LoweringContext, source: Part, result: Part, shape: Sequence[int], semaphore: int) -> list[int]:
    """Send what each core has of ``source`` to the cores that hold ``result``; the messages that each core gets."""
    core, calc = ctx.core, Arithmetic(ctx)
    if result.dim is None:
        whole = _Receiver(result, core.const(0), None, ctx.cores)
        return [_send_to(ctx, calc, source, whole, shape, semaphore) * ctx.cores] * ctx.cores
    this = result.round
    with core.loop(0, this.parts) as number:
        first = calc.register(calc.add(calc.mul(number, this.share), this.first_core))
        messages = _send_to(ctx, calc, source, _Receiver(result, first, number, this.share), shape, semaphore)
    own = range(this.first_core, this.first_core + this.cores)
    return [messages * ctx.cores if c in own else 0 for c in range(ctx.cores)]


@dataclass(frozen=True)
class _Receiver:
    """Whom a message goes to: ``size`` cores from ``first`` on, which hold part ``number`` of a round (None: all)."""

    part: Part
    first: SSAValue
    number: SSAValue | None
    size: int

    def start(self, calc: Arithmetic, scale: int) -> Number:
        """The first index that the receivers hold along the dimension that is cut, times ``scale``."""
        assert self.number is not None  # the caller's
        this = self.part.round
        return calc.add(calc.mul(self.number, this.per_core * scale), this.start * scale)

    def count(self, calc: Arithmetic, extent: int) -> Number:
        """How many indices the receivers hold along the dimension that is cut."""
        _, shard = self.part.cut
        this, end = self.part.round, round_end(shard, self.part.index, extent)
        if this.start + this.parts * this.per_core <= end:
            return this.per_core
        return calc.min(calc.sub(end, self.start(calc, 1)), this.per_core)


def _send_to(
    ctx: LoweringContext,
    calc: Arithmetic,
    source: Part,
    to: _Receiver,
    shape: Sequence[int],
    semaphore: int,
) -> int:
    """Send where the parts meet; the number of messages, which is known."""
    core, item = ctx.core, source.view.itemsize
    at: Number = _base(ctx, source.view)
    place: Number = _base(ctx, to.part.view)
    counts: list[Number] = []
    for dim, extent in enumerate(shape):
        shared = _meet(ctx, calc, source, to, dim, extent)
        counts.append(shared.count)
        at, place = calc.add(at, shared.source), calc.add(place, shared.result)
    rows = _row_dim(shape, source, to.part)
    outer = [dim for dim in range(len(shape) - 1) if dim != rows and shape[dim] > 1]
    if any(dim in (source.dim, to.part.dim) for dim in outer):
        raise ctx.unsupported("a change of layout between two cuts of leading dimensions")
    config: dict[str, SSAValue] = {}
    size = calc.register(calc.mul(counts[-1], item)) if shape else core.const(item)
    if rows is not None:
        config = {
            "message_rows": calc.register(counts[rows]),
            "message_src_stride": core.const(source.view.strides[rows]),
            "message_dst_stride": core.const(to.part.view.strides[rows]),
        }
    steps = [Dim(shape[dim], (source.view.strides[dim], to.part.view.strides[dim])) for dim in outer]
    with nest(ctx, steps, [calc.register(at), calc.register(place)]) as (here, there):
        _message(ctx, here, there, size, to, config, semaphore)
    return prod(step.extent for step in steps)


@dataclass(frozen=True)
class _Shared:
    """What a part and the receivers' have in common along a dimension: ``count`` indices, perhaps none, from byte
    ``source`` of the part on and from byte ``result`` of theirs.
    """

    count: Number
    source: Number = 0
    result: Number = 0


def _meet(ctx: LoweringContext, calc: Arithmetic, source: Part, to: _Receiver, dim: int, extent: int) -> _Shared:
    """What the parts have in common along a dimension."""
    own, pitch, their_pitch = source.sent(dim, extent, ctx.cores), source.view.strides[dim], to.part.view.strides[dim]
    cut = to.number is not None and dim == to.part.dim
    if own is None:
        return _Shared(to.count(calc, extent), to.start(calc, pitch)) if cut else _Shared(extent)
    first, count = own
    if not cut:
        return _Shared(count, result=calc.mul(first, their_pitch))
    theirs = to.start(calc, 1)
    low = calc.max(first, theirs)
    high = calc.min(calc.add(first, count), calc.add(theirs, to.count(calc, extent)))
    skipped, placed = calc.sub(low, first), calc.sub(low, theirs)
    return _Shared(calc.max(calc.sub(high, low), 0), calc.mul(skipped, pitch), calc.mul(placed, their_pitch))


def _base(ctx: LoweringContext, view: View) -> SSAValue:
    return ctx.core.address(view.buffer.value, view.offset)


def _row_dim(shape: Sequence[int], source: Part, to: Part) -> int | None:
    """The dimension along which a message is strided: one that is cut if it is not the last, else the longest."""
    cut = [dim for dim in range(len(shape) - 1) if dim in (source.dim, to.dim)]
    return max(
        cut or (dim for dim in range(len(shape) - 1) if shape[dim] > 1), key=lambda dim: shape[dim], default=None
    )


def _message(
    ctx: LoweringContext,
    at: SSAValue,
    place: SSAValue,
    size: SSAValue,
    to: _Receiver,
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
        dim, shard = result.cut
        first, count = own_indices(shard, result.index, shape[dim], ctx.cores)
        step = prod(shape[dim + 1 :]) * result.view.itemsize
        aligned = prod(shape[:dim]) == 1 and step % ctx.target.hbm.column_bytes == 0
        if isinstance(lowered, Weight) and aligned:
            _load_part(ctx, lowered, result, [step * index for index in first], [step * number for number in count])
        else:
            _copy(ctx, contiguous(ctx, view_of(ctx, op.input)), result, first, count)
        clear_padding(ctx, result, shape)
    set_parts(ctx, op.output, results)


def _load_part(ctx: LoweringContext, weight: Weight, result: Part, first: list[int], size: list[int]) -> None:
    """Read a range of bytes of a weight, one a core."""
    core, to = ctx.core, result.view
    source = core.add(source_of(ctx, weight), core.const(first))
    core.hrd(core.address(to.buffer.value, to.offset), source, core.const(size))


def _copy(ctx: LoweringContext, source: View, result: Part, first: list[int], count: list[int]) -> None:
    """Copy a range of indices of the dimension that is cut, one a core."""
    core, to, dim = ctx.core, result.view, result.dim
    assert dim is not None  # the caller's
    step, outer = source.strides[dim], prod(source.shape[:dim])
    pitches = (source.shape[dim] * step, to.shape[dim] * to.strides[dim])
    at = core.address(source.buffer.value, [source.offset + index * step for index in first])
    place = core.address(to.buffer.value, to.offset)
    with nest(ctx, [Dim(outer, pitches)] if outer > 1 else [], [at, place]) as (here, there):
        core.emit(MOVE[source.itemsize], there, here, core.const([n * step // source.itemsize for n in count]))
