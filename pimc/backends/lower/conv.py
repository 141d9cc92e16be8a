"""Convolutions on the tensor unit, without a copy of each window's elements.

The unit holds a block of results: some output channels by up to as many places as it has columns.  For each place in
the window it adds one product: the weights of that place ``[outputs, channels]`` by the elements under it ``[channels,
places]``.  Those lie side by side in memory once x is *arranged*: padded, and for steps above 1 cut into phases
(elements ``p, p + step, ...``).  Places count through the rows of the arranged x without a gap, so that a block is full
however short rows are; the few between a row's last place and the next row's first are computed and left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, shape_of
from pimc.backends.lower.values import Tensor
from pimc.backends.lower.views import (
    View,
    address_of,
    contiguous,
    copy_at,
    copy_view,
    filled,
    fresh,
    set_view,
    tensor_of_view,
    view_of,
)
from pimc.ir import nn
from pimc.ir.nn.conv import Window
from pimc.ir.pim.conv import ConvOp

_HALF = 2
#: Weights up to this part of the activation memory stay there; larger ones are read in blocks of output channels.
WEIGHT_SHARE = 4


@dataclass(frozen=True)
class _Shape:
    """A core's part of a convolution: ``groups`` groups of ``inputs`` channels with ``outputs`` outputs each.

    ``rows[d]`` are the arranged x's sizes, ``phases[d]`` how many phases the window meets.
    """

    window: Window
    places: tuple[int, ...]
    counts: tuple[int, ...]
    groups: int
    inputs: int
    outputs: int

    @property
    def rank(self) -> int:
        """Dimensions of the window."""
        return len(self.places)

    @property
    def depth(self) -> int:
        """Elements of an output channel's weights."""
        return prod(self.places) * self.inputs

    @property
    def phases(self) -> tuple[int, ...]:
        """Phases of x that places of the window lie in."""
        reach = self._last_places
        return tuple(min(stride, last + 1) for stride, last in zip(self.window.strides, reach, strict=True))

    @property
    def rows(self) -> tuple[int, ...]:
        """Elements of a phase: one a place of the window's first element, and those that the window reaches beyond."""
        return tuple(
            count + last // stride
            for count, last, stride in zip(self.counts, self._last_places, self.window.strides, strict=True)
        )

    @property
    def _last_places(self) -> tuple[int, ...]:
        return tuple(d * (places - 1) for d, places in zip(self.window.dilations, self.places, strict=True))

    @property
    def run(self) -> int:
        """Elements from the first place to the last, those between rows too."""
        return sum((count - 1) * step for count, step in zip(self.counts, self.row_steps, strict=True)) + 1

    @property
    def row_steps(self) -> tuple[int, ...]:
        """Elements from a row of the arranged x to the next, in each dimension."""
        return tuple(prod(self.rows[dim + 1 :]) for dim in range(self.rank))

    @property
    def is_dense(self) -> bool:
        """Whether there is nothing between rows."""
        return self.rows[1:] == self.counts[1:]


def lower_conv(ctx: LoweringContext, op: ConvOp) -> None:
    """A convolution over stored weights: this core's output channels of the whole x."""
    x, weight, all_groups, mine = view_of(ctx, op.x), shape_of(op.weight), op.groups.value.data, op.outputs_per_core
    group = weight[0] // all_groups
    shape = _Shape(op.window, weight[2:], op.counts, max(1, mine // group), weight[1], min(mine, group))
    first = [min(core * mine, weight[0] - 1) for core in range(ctx.cores)]
    part = _Part(ctx, shape, _Stored.of(ctx, op, shape), [at // group for at in first], all_groups)
    if op.bias is not None:
        part.biased(view_of(ctx, op.bias), [core * mine if core * mine < weight[0] else 0 for core in range(ctx.cores)])
    result = fresh(ctx, "conv", (x.shape[0], mine, *shape.counts))
    part.compute(x, result)
    ctx.set(op.output, Tensor((tensor_of_view(result.reshape((x.shape[0], prod(result.shape[1:])))).whole,)))


def lower_computed_conv(ctx: LoweringContext, op: nn.ConvOp) -> None:
    """A convolution with computed weights: all of it on every core."""
    x, weight, groups = view_of(ctx, op.x), view_of(ctx, op.weight), op.groups.value.data
    result = fresh(ctx, "conv", shape_of(op.result))
    if result.elements:
        outputs, inputs, *places = weight.shape
        shape = _Shape(nn.window_of(op), tuple(places), result.shape[2:], groups, inputs, outputs // groups)
        matrix = contiguous(ctx, weight.permute((0, *range(2, weight.rank), 1)))
        part = _Part(ctx, shape, _Held(matrix, shape.depth * _HALF), [0] * ctx.cores, groups)
        if op.bias is not None:
            part.biased(view_of(ctx, op.bias), [0] * ctx.cores)
        part.compute(x, result)
    set_view(ctx, op.result, result)


# -- weights ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Held:
    """Weights in local memory: output channels, ``pitch`` bytes apart."""

    matrix: View
    pitch: int
    block: int = 0

    def rows(self, ctx: LoweringContext, first: SSAValue) -> SSAValue:
        """The address of the weights from output channel ``first`` on."""
        return ctx.core.add(address_of(ctx, self.matrix), ctx.core.mul(first, ctx.core.const(self.pitch)))


@dataclass(frozen=True)
class _Stored:
    """Weights in the tile's channels, ``block`` output channels of which are in local memory at once."""

    source: SSAValue
    buffer: View
    pitch: int
    block: int

    @staticmethod
    def of(ctx: LoweringContext, op: ConvOp, shape: _Shape) -> _Stored | _Held:
        """Those of an operation; where all of a core's fit, they are read here."""
        core, weight = ctx.core, ctx.weight(op.weight)
        region = ctx.memory.find("kernels", weight.name)
        pitch, count = region.row_bytes.data, region.rows.data
        budget = ctx.target.memory("activation").bytes // WEIGHT_SHARE
        block = min(shape.outputs, ctx.target.tcu.rows, max(1, budget // pitch))
        block = count if count * pitch <= budget else block
        source = core.const(region.region.base)
        if region.region.layer_stride:
            if weight.layer is None:
                raise ctx.unsupported(f"{weight.name} is per layer but has no layer")
            source = core.add(source, core.mul(ctx.scalar(weight.layer), core.const(region.region.layer_stride)))
        buffer = fresh(ctx, "conv.weights", (block, pitch // _HALF))
        if block < count:
            return _Stored(source, buffer, pitch, block)
        core.hrd(address_of(ctx, buffer), source, core.const(count * pitch))
        return _Held(buffer, pitch)

    def rows(self, ctx: LoweringContext, first: SSAValue) -> SSAValue:
        """Read the weights from output channel ``first`` on; their address."""
        core, to = ctx.core, address_of(ctx, self.buffer)
        core.hrd(
            to, core.add(self.source, core.mul(first, core.const(self.pitch))), core.const(self.block * self.pitch)
        )
        return to


# -- one core's part --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arranged:
    """x as the tensor unit reads it: an address, and bytes from a channel, phase or group to the next."""

    at: SSAValue
    channel: int
    phases: tuple[int, ...]
    group: int


@dataclass
class _Part:
    """What one core computes; ``first_group`` is the group of channels that each core begins with."""

    ctx: LoweringContext
    shape: _Shape
    weights: _Stored | _Held
    first_group: Sequence[int]
    all_groups: int
    bias: tuple[View, SSAValue, View] | None = None

    def biased(self, bias: View, first: Sequence[int]) -> None:
        """The sums begin with the bias of output channels from ``first[core]`` on: itself times ones."""
        ctx, s = self.ctx, self.shape
        needed = max(first) + s.groups * s.outputs
        whole = contiguous(ctx, bias)
        if needed > whole.elements:
            whole = filled(ctx, (needed,), 0.0)
            copy_view(ctx, bias, whole.slice(0, 0, bias.elements))
        ones = filled(ctx, (min(s.run, ctx.target.tcu.columns),), 1.0)
        at = ctx.core.address(whole.buffer.value, [whole.offset + _HALF * start for start in first])
        self.bias = (whole, at, ones)

    def compute(self, x: View, result: View) -> None:
        """``result[n]`` of ``x[n]``, for every n."""
        core, s = self.ctx.core, self.shape
        with self._each(x.shape[0]) as number:
            at, to = address_of(self.ctx, x), address_of(self.ctx, result)
            if number is not None:
                at = core.add(at, core.mul(number, core.const(x.strides[0])))
                to = core.add(to, core.mul(number, core.const(result.strides[0])))
            arranged = self._arrange(x.index(0, 0) if x.shape[0] else x, at)
            if s.is_dense:
                self._products(arranged, to, result.strides[1])
            else:
                flat = fresh(self.ctx, "conv.rows", (s.groups * s.outputs, s.run))
                self._products(arranged, address_of(self.ctx, flat), flat.strides[0])
                strides = (flat.strides[0], *(_HALF * step for step in s.row_steps))
                between = replace(flat, shape=result.shape[1:], strides=strides)
                copy_at(self.ctx, between, result.index(0, 0), address_of(self.ctx, flat), to)

    @contextmanager
    def _each(self, count: int) -> Iterator[SSAValue | None]:
        with self.ctx.each_row(count) as number:
            yield number

    # -- x ------------------------------------------------------------------------------------------------------------

    def _arrange(self, x: View, at: SSAValue) -> _Arranged:
        """x ``[C, sizes...]``, this core's channels of it: in place if that is how the unit reads it, else a copy."""
        ctx, core, s = self.ctx, self.ctx.core, self.shape
        held = self._held_groups
        offsets = [first * s.inputs * x.strides[0] for first in held]
        at = core.add(at, core.const(offsets)) if any(offsets) else at
        mine = replace(
            x, shape=(s.groups, s.inputs, *x.shape[1:]), strides=(s.inputs * x.strides[0], *x.strides)
        )  # fmt: skip
        sizes = zip(s.rows, s.window.strides, s.phases, x.shape[1:], strict=True)
        if any(s.window.low) or any((rows - 1) * step + phases > size for rows, step, phases, size in sizes):
            copy = self._padded(mine, at)
        else:
            split = self._phases(mine)
            dense = tuple(_HALF * step for step in s.row_steps)
            if prod(s.phases) == 1 and split.strides[-s.rank :] == dense:
                return _Arranged(at, split.strides[1 + s.rank], (0,) * s.rank, split.strides[0])
            copy = fresh(ctx, "conv.phases", split.shape)
            copy_at(ctx, split, copy, at, address_of(ctx, copy))
        return _Arranged(address_of(ctx, copy), copy.strides[1 + s.rank], copy.strides[1 : 1 + s.rank], copy.strides[0])

    def _phases(self, x: View) -> View:
        """x ``[groups, channels, sizes...]`` as ``[groups, phases..., channels, rows...]``."""
        s = self.shape
        steps = x.strides[2:]
        rows = tuple(step * stride for step, stride in zip(steps, s.window.strides, strict=True))
        return replace(
            x,
            shape=(s.groups, *s.phases, s.inputs, *s.rows),
            strides=(x.strides[0], *steps, x.strides[1], *rows),
        )

    def _padded(self, x: View, at: SSAValue) -> View:
        """The phases of x ``[groups, channels, sizes...]`` between zeros, as much as the windows meet."""
        ctx, s = self.ctx, self.shape
        whole = filled(ctx, (s.groups, *s.phases, s.inputs, *s.rows), 0.0)
        for place in product(*map(range, s.phases)):
            source, to = x, whole
            for phase in place:
                to = to.index(1, phase)
            for dim, (phase, stride, low) in enumerate(zip(place, s.window.strides, s.window.low, strict=True)):
                first = max(0, -(-(low - phase) // stride))
                stop = min(s.rows[dim], -(-(x.shape[2 + dim] + low - phase) // stride))
                count = max(0, stop - first)
                source = source.slice(2 + dim, first * stride + phase - low, count, stride)
                to = to.slice(2 + dim, first, count)
            if source.elements:
                core = ctx.core
                from_ = core.add(at, core.const(source.offset - x.offset)) if source.offset != x.offset else at
                copy_at(ctx, source, to, from_, address_of(ctx, to))
        return whole

    @property
    def _held_groups(self) -> list[int]:
        """The first group of x that each core reads: the last cores may have fewer groups of their own."""
        return [min(first, self.all_groups - self.shape.groups) for first in self.first_group]

    # -- products -----------------------------------------------------------------------------------------------------

    def _products(self, x: _Arranged, to: SSAValue, pitch: int) -> None:
        """All output channels, ``pitch`` bytes apart from ``to`` on, in blocks of the unit's size."""
        ctx, core, s = self.ctx, self.ctx.core, self.shape
        size = min(self.weights.block or s.outputs, s.outputs, ctx.target.tcu.rows)
        columns = min(s.run, ctx.target.tcu.columns)
        with self._each(s.groups) as group, self._starts(s.outputs, size) as start:
            channel = start
            if group is not None:
                channel = core.add(start, core.mul(group, core.const(s.outputs)))
            weights = self.weights.rows(ctx, channel)
            source = self._group_of(x, group)
            row = core.add(to, core.mul(channel, core.const(pitch)))
            with self._starts(s.run, columns) as place:
                offset = core.slli(place, imm=1)
                block = (core.const(size), core.const(columns))
                self._clear(channel, block)
                self._window(weights, core.add(source, offset), x, block)
                core.twb(core.add(row, offset), rows=block[0], cols=block[1], stride_c=core.const(pitch))

    @contextmanager
    def _starts(self, count: int, size: int) -> Iterator[SSAValue]:
        """The starts of blocks of ``size``; the last one ends with ``count``, and repeats some of the one before."""
        core = self.ctx.core
        if count == size:
            yield core.const(0)
            return
        with core.loop(core.const(0), core.const(count), size) as start:
            yield core.min(start, core.const(count - size)) if count % size else start

    def _group_of(self, x: _Arranged, group: SSAValue | None) -> SSAValue:
        """The address of a group's channels."""
        core = self.ctx.core
        if group is None:
            return x.at
        shifts = [first - held for first, held in zip(self.first_group, self._held_groups, strict=True)]
        if any(shifts):  # a core with fewer groups repeats its last one
            group = core.min(core.add(group, core.const(shifts)), core.const(self.shape.groups - 1))
        return core.add(x.at, core.mul(group, core.const(x.group)))

    def _clear(self, channel: SSAValue, block: tuple[SSAValue, SSAValue]) -> None:
        """Begin the sums with the bias, or with zeros (a product of depth 0)."""
        core = self.ctx.core
        step = core.const(_HALF)
        if self.bias is None:
            zero = core.const(0)
            core.tmmc_kn(zero, zero, rows=block[0], cols=block[1], depth=zero, stride_a=step, stride_b=step)
            return
        _, at, ones = self.bias
        core.tmmc_kn(
            core.add(at, core.slli(channel, imm=1)), address_of(self.ctx, ones),
            rows=block[0], cols=block[1], depth=core.const(1), stride_a=step, stride_b=step,
        )  # fmt: skip

    def _window(self, weights: SSAValue, x: SSAValue, arranged: _Arranged, block: tuple[SSAValue, SSAValue]) -> None:
        """Add the products of all places in the window."""
        core, s = self.ctx.core, self.shape
        config = {
            "rows": block[0], "cols": block[1], "depth": core.const(s.inputs),
            "stride_a": core.const(self.weights.pitch), "stride_b": core.const(arranged.channel),
        }  # fmt: skip
        with self._places(0, weights, x, arranged) as (left, right):
            core.tmm_kn(left, right, **config)

    @contextmanager
    def _places(
        self, dim: int, weights: SSAValue, x: SSAValue, arranged: _Arranged
    ) -> Iterator[tuple[SSAValue, SSAValue]]:
        """Loops over the window from dimension ``dim`` on, giving the addresses of weights and elements."""
        core, s = self.ctx.core, self.shape
        if dim == s.rank:
            yield weights, x
            return
        places, stride, dilation = s.places[dim], s.window.strides[dim], s.window.dilations[dim]
        if places == 1:
            with self._places(dim + 1, weights, x, arranged) as inner:
                yield inner
            return
        own = core.const(_HALF * prod(s.places[dim + 1 :]) * s.inputs)
        with core.loop_carrying(0, places, [weights, x]) as loop:
            left, right = loop.carried
            row, phase = _HALF * s.row_steps[dim], arranged.phases[dim]
            step = dilation * row if stride == 1 else dilation * phase
            here = right
            if stride > 1 and dilation * (places - 1) >= stride:  # several phases, and more than one row of one
                at, divisor = core.mul(loop.counter, core.const(dilation)), core.const(stride)
                here = core.add(right, core.mul(core.remu(at, divisor), core.const(phase)))
                here = core.add(here, core.mul(core.divu(at, divisor), core.const(row)))
                step = 0
            with self._places(dim + 1, left, here, arranged) as inner:
                yield inner
            loop.next = [core.add(left, own), core.add(right, core.const(step)) if step else right]
