"""Convolutions as matrix products, without a copy of each window's elements.

The unit holds a block of results: some output channels by up to as many places as it has columns.  For each place in
the window it adds one product: the weights of that place ``[outputs, channels]`` by the elements under it ``[channels,
positions]``, a run of each channel of the arranged x (:mod:`pimc.backends.lower.sliding`).  So a block is full however
short rows are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, shape_of, whole_shape_of
from pimc.backends.lower.matrix_unit import Left, Right
from pimc.backends.lower.parts import Cut, Part, clear_padding, parts_of, set_parts
from pimc.backends.lower.sliding import BLOCK_SHARE, LEAST_SHARE, Arranged, Sliding
from pimc.backends.lower.views import (
    View,
    address_of,
    contiguous,
    copy_at,
    copy_view,
    filled,
    fresh,
    set_view,
    view_of,
)
from pimc.ir import nn
from pimc.ir.pim.conv import CHANNELS, ROWS, ConvOp

_HALF = 2
#: The activation memory that weights, and what is beside them, may take.
USED_PERCENT = 90


@dataclass(frozen=True)
class _Shape(Sliding):
    """A core's part of a convolution: a window over its groups of channels, with ``outputs`` outputs each."""

    outputs: int = 1

    @property
    def depth(self) -> int:
        """Elements of an output channel's weights."""
        return prod(self.places) * self.channels

    def of_rows(self, rows: int) -> _Shape:
        """So many rows of results."""
        return replace(self, counts=(rows, *self.counts[1:]))

    @property
    def arranged(self) -> int:
        """Bytes of what is arranged."""
        return _HALF * self.groups * self.channels * prod(self.phases) * prod(self.rows)

    def row_block(self, ctx: LoweringContext) -> int:
        """Rows of results at once: all, or as many as keep what is arranged within its share of the memory."""
        budget = ctx.target.memory("activation").bytes // BLOCK_SHARE
        most = next((rows for rows in range(self.counts[0], 1, -1) if self.of_rows(rows).arranged <= budget), 1)
        return -(-self.counts[0] // -(-self.counts[0] // most))

    def block(self, ctx: LoweringContext) -> int:
        """Output channels of a block: as many as the unit has rows, and as fit where runs are copied to results."""
        if self.is_dense:
            return min(self.outputs, ctx.matrix.rows)
        fit = ctx.target.memory("activation").bytes // BLOCK_SHARE // (self.run * _HALF)
        return min(self.outputs, ctx.matrix.rows, max(1, fit))


def lower_conv(ctx: LoweringContext, op: ConvOp) -> None:
    """A convolution over stored weights: this core's part of the result."""
    x, weight, all_groups, mine = parts_of(ctx, op.x)[0], shape_of(op.weight), op.groups.value.data, op.outputs_per_core
    dim, shard = op.cut
    clear_padding(ctx, x, whole_shape_of(op.x))  # the rows around x that are a window's
    counts = op.counts if dim != ROWS else (shard.max_local_size, *op.counts[1:])
    window = op.window if dim != ROWS else op.window.without_padding(0)
    group = weight[0] // all_groups
    shape = _Shape(window, weight[2:], counts, max(1, mine // group), weight[1], outputs=min(mine, group))
    first = [min(core * mine, weight[0] - 1) if dim == CHANNELS else 0 for core in range(ctx.cores)]
    outputs = prod(whole_shape_of(op.output)) if dim == CHANNELS else x.view.shape[0] * mine * prod(counts)
    beside = _HALF * (x.view.elements + outputs) + shape.of_rows(shape.row_block(ctx)).arranged
    part = _Part(ctx, shape, _Stored.of(ctx, op, shape, beside), [at // group for at in first], all_groups)
    if op.bias is not None:
        starts = [core * mine if dim == CHANNELS and core * mine < weight[0] else 0 for core in range(ctx.cores)]
        part.biased(view_of(ctx, op.bias), starts)
    result = fresh(ctx, "conv", (x.view.shape[0], mine, *shape.counts))
    part.compute(x.view, result)
    set_parts(ctx, op.output, [Part(result, (Cut(dim, shard),))])


def lower_computed_conv(ctx: LoweringContext, op: nn.ConvOp) -> None:
    """A convolution with computed weights: all of it on every core."""
    x, weight, groups = view_of(ctx, op.x), view_of(ctx, op.weight), op.groups.value.data
    result = fresh(ctx, "conv", shape_of(op.result))
    if result.elements:
        outputs, inputs, *places = weight.shape
        shape = _Shape(nn.window_of(op), tuple(places), result.shape[2:], groups, inputs, outputs=outputs // groups)
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
    def of(ctx: LoweringContext, op: ConvOp, shape: _Shape, beside: int) -> _Stored | _Held:
        """Those of an operation; where all of a core's fit, they are read here.

        ``beside``: bytes of what is in the activation memory at the same time.
        """
        core, weight = ctx.core, ctx.weight(op.weight)
        region = ctx.memory.find(op.region, weight.name)
        pitch, count = region.row_bytes.data, region.rows.data
        memory = ctx.target.memory("activation").bytes
        budget = min(memory // BLOCK_SHARE, max(memory * USED_PERCENT // 100 - beside, memory // LEAST_SHARE))
        block = count if count * pitch <= budget else min(shape.block(ctx), max(1, budget // pitch))
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
        ones = filled(ctx, (min(s.run, ctx.matrix.columns),), 1.0)
        at = ctx.core.address(whole.buffer.value, [whole.offset + _HALF * start for start in first])
        self.bias = (whole, at, ones)

    def compute(self, x: View, result: View) -> None:
        """``result[n]`` of ``x[n]``, for every n."""
        core = self.ctx.core
        with self.ctx.each_row(x.shape[0]) as number:
            at, to = address_of(self.ctx, x), address_of(self.ctx, result)
            if number is not None:
                at = core.add(at, core.mul(number, core.const(x.strides[0])))
                to = core.add(to, core.mul(number, core.const(result.strides[0])))
            self._image(x.index(0, 0), result.index(0, 0), at, to)

    def _image(self, x: View, result: View, at: SSAValue, to: SSAValue) -> None:
        """One image, in blocks of rows if what is beside it takes too much memory."""
        core, block = self.ctx.core, self.shape.row_block(self.ctx)
        if block == self.shape.counts[0]:
            self._products(self._arrange(x, at), result, to)
            return
        part = replace(self, shape=self.shape.of_rows(block))
        own = replace(result, shape=(result.shape[0], block, *result.shape[2:]))
        with self.ctx.row_blocks(self.shape.counts[0], block) as first:
            assert first is not None  # there are several blocks
            rows = core.add(to, core.mul(first, result.strides[1]))
            part._products(part._arrange(x, at, first), own, rows)

    def _arrange(self, x: View, at: SSAValue, row: SSAValue | None = None) -> Arranged:
        """This core's channels of x ``[C, sizes...]``; ``row``: under positions from that row on only."""
        core, s = self.ctx.core, self.shape
        offsets = [first * s.channels * x.strides[0] for first in self._held_groups]
        at = core.add(at, core.const(offsets)) if any(offsets) else at
        shape, strides = (s.groups, s.channels, *x.shape[1:]), (s.channels * x.strides[0], *x.strides)
        x, around = replace(x, shape=shape, strides=strides), self.ctx.f32(0.0)
        return s.arrange(self.ctx, x, at, around) if row is None else s.arrange_rows(self.ctx, x, at, around, row)

    @property
    def _held_groups(self) -> list[int]:
        """The first group of x that each core reads: the last cores may have fewer groups of their own."""
        return [min(first, self.all_groups - self.shape.groups) for first in self.first_group]

    # -- products -----------------------------------------------------------------------------------------------------

    def _products(self, x: Arranged, result: View, to: SSAValue) -> None:
        """All output channels of a result ``[outputs, ...]`` at ``to``, in blocks."""
        ctx, core, s = self.ctx, self.ctx.core, self.shape
        size = min(self.weights.block or s.outputs, s.block(ctx))
        columns = min(s.run, ctx.matrix.columns)
        flat = None if s.is_dense else fresh(ctx, "conv.rows", (size, s.run))
        pitch = result.strides[0] if flat is None else flat.strides[0]
        with self.ctx.each_row(s.groups) as group, self._starts(s.outputs, size) as start:
            channel = start
            if group is not None:
                channel = core.add(start, core.mul(group, core.const(s.outputs)))
            weights = self.weights.rows(ctx, channel)
            source = self._group_of(x, group)
            rows = core.add(to, core.mul(channel, core.const(result.strides[0])))
            runs = rows if flat is None else address_of(ctx, flat)
            with self._starts(s.run, columns) as place:
                offset = core.slli(place, imm=1)
                block = (core.const(size), core.const(columns))
                self._clear(channel, block)
                self._window(weights, core.add(source, offset), x, block)
                ctx.matrix.round(core.add(runs, offset), *block, core.const(pitch))
            if flat is not None:
                kept = replace(result, shape=(size, *result.shape[1:]))
                copy_at(ctx, s.between_rows(flat, kept.shape), kept, runs, rows)

    @contextmanager
    def _starts(self, count: int, size: int) -> Iterator[SSAValue]:
        """The starts of blocks of ``size``; the last one ends with ``count``, and repeats some of the one before."""
        core = self.ctx.core
        if count == size:
            yield core.const(0)
            return
        with core.loop(core.const(0), core.const(count), size) as start:
            yield core.min(start, core.const(count - size)) if count % size else start

    def _group_of(self, x: Arranged, group: SSAValue | None) -> SSAValue:
        """The address of a group's channels."""
        core = self.ctx.core
        if group is None:
            return x.at
        shifts = [first - held for first, held in zip(self.first_group, self._held_groups, strict=True)]
        if any(shifts):  # a core with fewer groups repeats its last one
            group = core.min(core.add(group, core.const(shifts)), core.const(self.shape.groups - 1))
        return core.add(x.at, core.mul(group, core.const(x.group)))

    def _clear(self, channel: SSAValue, block: tuple[SSAValue, SSAValue]) -> None:
        """Begin the sums with the bias, or with zeros."""
        core = self.ctx.core
        step = core.const(_HALF)
        if self.bias is None:
            self.ctx.matrix.clear(*block)
            return
        _, at, ones = self.bias
        left = Left(core.add(at, core.slli(channel, imm=1)), step)
        right = Right(address_of(self.ctx, ones), step, by_column=False)
        self.ctx.matrix.multiply(left, right, *block, core.const(1), clear=True)

    def _window(self, weights: SSAValue, x: SSAValue, arranged: Arranged, block: tuple[SSAValue, SSAValue]) -> None:
        """Add the products of all places in the window."""
        core, s = self.ctx.core, self.shape
        depth, pitch, step = (core.const(size) for size in (s.channels, self.weights.pitch, arranged.channel))
        with s.each_place(self.ctx, arranged, x, weights, _HALF * s.channels) as (right, left):
            assert left is not None  # the weights lie beside
            self.ctx.matrix.multiply(Left(left, pitch), Right(right, step, by_column=False), *block, depth)
