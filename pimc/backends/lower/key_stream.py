"""Keys and values of an attention without a cache, block by block from the cores that have them.

Every core sends what it has of a block, in local memory or in its own DRAM, to the groups of cores that work on it, one
block ahead of its use.  Two buffers
take turns: when a core has a block it tells all cores, and sends its share of the next one when all have told it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from xdsl.ir import SSAValue

from pimc.backends.lower.attention_tensor import Matrix
from pimc.backends.lower.context import LoweringContext, whole_shape_of
from pimc.backends.lower.exchange import meet, tell_everybody
from pimc.backends.lower.index import Index, Indices
from pimc.backends.lower.parts import Cut, Part, parts_of
from pimc.backends.lower.relayout import Receiver, Run, send_to
from pimc.backends.lower.values import Buffer, Dram, Strip
from pimc.backends.lower.views import View
from pimc.ir.layout import layout_of
from pimc.ir.nn import tensor_of
from pimc.ir.pim.encoder import AttentionFullOp, AttentionGrid
from pimc.ir.pim.values import Area, areas_of

_HALF = 2


@dataclass(frozen=True)
class KeyBlock:
    """A block of a KV head's keys and values: ``count`` rows (a register) from key ``first`` on."""

    keys: Matrix
    values: Matrix
    first: Index
    count: SSAValue


@dataclass(frozen=True)
class Held:
    """What a core has of keys or values in local memory."""

    parts: tuple[Part, ...]

    def block(self, sequence: Index, first: Index, count: Index) -> tuple[Sequence[Part], Index, Index]:
        """The parts with ``count`` rows of a sequence from ``first`` on; which sequence and row of them that is."""
        return self.parts, sequence, first


@dataclass(frozen=True)
class Stored:
    """What a core has of keys or values in its own DRAM, cut by features: blocks of rows are read into ``parts``."""

    ctx: LoweringContext
    place: Dram
    areas: tuple[Area, ...]
    parts: tuple[Part, ...]

    @staticmethod
    def of(ctx: LoweringContext, value: SSAValue, place: Dram, block: int) -> Stored:
        """Buffers for a block of rows."""
        type_, layout = tensor_of(value), layout_of(value.type)
        if layout is None or list(layout.cuts) != [2]:
            raise ctx.unsupported("keys in DRAM that are not cut by features")
        areas = areas_of(type_, ctx.target.hbm.column_bytes)
        parts: list[Part] = []
        for index, area in enumerate(areas):
            pitch = area.strides[1]
            buffer = ctx.alloc("attention.stored", block * pitch)
            view = View(buffer, (1, block, area.shape[2]), (block * pitch, pitch, _HALF))
            parts.append(Part(view, (Cut(2, layout.cuts[2], index),)))
        return Stored(ctx, place, areas, tuple(parts))

    def block(self, sequence: Index, first: Index, count: Index) -> tuple[Sequence[Part], Index, Index]:
        """Read the rows; they are the first ones of the parts."""
        core, x = self.ctx.core, Indices(self.ctx.core)
        for part, area in zip(self.parts, self.areas, strict=True):
            own = x.least(sequence, area.shape[0] - 1)
            at = x.add(x.mul(own, area.strides[0]), x.mul(first, area.strides[1]))
            source = x.add(core.const(self.place.base, self.place.name), x.add(at, area.offset))
            core.hrd(core.address(part.view.buffer.value), core.register(source), x.mul(count, area.strides[1]))
        return self.parts, 0, 0


@dataclass(frozen=True)
class KeyStream:
    """The blocks of ``block`` rows of all heads and sequences that a core works on, in order."""

    ctx: LoweringContext
    grid: AttentionGrid
    shape: tuple[int, ...]
    dim: int
    block: int
    sources: tuple[Held | Stored, ...]
    buffer: Buffer
    arrived: int
    first: Strip

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionFullOp, block: int) -> KeyStream:
        """Buffers for the keys and values of an attention."""
        grid, shape, dim = AttentionGrid.of(op), whole_shape_of(op.k), op.head_dim.value.data
        steps = grid.sequences * grid.heads * -(-shape[1] // block)
        buffer = ctx.alloc("attention.keys", min(steps, 2) * 2 * block * dim * _HALF, remote=True)
        sources: list[Held | Stored] = []
        for value in (op.k, op.v):
            place = ctx.values.get(value)
            stored = isinstance(place, Dram)
            sources.append(
                Stored.of(ctx, value, place, block) if isinstance(place, Dram) else Held(tuple(parts_of(ctx, value)))
            )
        first = ctx.tensor(op.q if stored else op.k).strips[0]
        return KeyStream(ctx, grid, shape, dim, block, tuple(sources), buffer, ctx.semaphores.take(), first)

    @property
    def blocks(self) -> int:
        """Blocks of a head."""
        return -(-self.shape[1] // self.block)

    @property
    def steps(self) -> int:
        """All blocks."""
        return self.grid.sequences * self.grid.heads * self.blocks

    def begin(self) -> None:
        """Send the first block; cores meet before, so that the buffers share memory with what was done up to here."""
        meet(self.ctx, tell_everybody(self.ctx, self.first))
        self._send(0)

    @contextmanager
    def each(self, item: Index, done: Strip) -> Iterator[KeyBlock]:
        """A loop over the blocks of a sequence's head, the ``item``-th of the core; in its body the block is here.

        ``done`` is what the work on a block writes last.
        """
        ctx, core, x = self.ctx, self.ctx.core, Indices(self.ctx.core)
        with x.loop(self.blocks) as number:
            step = x.add(x.mul(item, self.blocks), number)
            core.wait(core.const(self._expected()), sem=self.arrived)
            if self.steps > 1:
                meet(ctx, tell_everybody(ctx, done))
                following = x.add(step, 1)
                with core.if_(following, "lt", self.steps):
                    self._send(following)
            start = x.mul(number, self.block)
            count = core.register(x.left(self.shape[1], start, self.block))
            at, pitch = core.register(self._place(step)), self.dim * _HALF
            values = core.add(at, self.block * pitch)
            yield KeyBlock(Matrix(at, pitch), Matrix(values, pitch), start, count)

    def end(self, done: Strip) -> None:
        """Cores meet behind the last block, so that what begins then may share memory with the buffers."""
        meet(self.ctx, tell_everybody(self.ctx, done))

    def _place(self, step: Index) -> Index:
        x = Indices(self.ctx.core)
        half = 2 * self.block * self.dim * _HALF
        return x.add(self.ctx.core.address(self.buffer.value), x.mul(x.mod(step, 2), half))

    def _group(self) -> int:
        """Cores that work on the same heads and sequences: all where there is one block altogether."""
        return self.ctx.cores if self.grid.cores == 1 else self.grid.row_groups

    def _expected(self) -> list[int]:
        """Messages of a block that each core gets."""
        messages = self.ctx.cores * sum(len(source.parts) for source in self.sources)
        busy = self._group() * self.grid.heads_at_once
        return [messages if core < busy else 0 for core in range(self.ctx.cores)]

    def _send(self, step: Index) -> None:
        """Send what this core has of a block of every group to the group."""
        ctx, core, grid, x = self.ctx, self.ctx.core, self.grid, Indices(self.ctx.core)
        sequence, head, block = x.split(step, (grid.sequences, grid.heads, self.blocks))
        keys = x.mul(block, self.block)
        count = x.left(self.shape[1], keys, self.block)
        with x.loop(grid.sequence_groups) as group:
            sequences = x.add(x.mul(group, grid.sequences), sequence)
            blocks = [source.block(sequences, keys, count) for source in self.sources]
            present = self._run(sequences, 1, grid.sequences * grid.sequence_groups, self.shape[0])
            with x.loop(grid.head_groups) as second:
                features = x.mul(x.add(x.mul(second, grid.heads), head), self.dim)
                wanted = self._run(features, self.dim, grid.heads * grid.head_groups * self.dim, self.shape[2])
                to = core.register(x.mul(x.add(x.mul(group, grid.head_groups), second), self._group()))
                for index, (parts, own, first) in enumerate(blocks):
                    place = core.register(x.add(self._place(step), index * self.block * self.dim * _HALF))
                    runs = {
                        0: replace(present, index=own),
                        1: Run(first, count, min(self.block, self.shape[1])),
                        2: wanted,
                    }
                    receiver = Receiver(to, self._group(), place, (0, self.dim * _HALF, _HALF), runs)
                    for part in parts:
                        send_to(ctx, part, receiver, self.shape, self.arrived)

    def _run(self, start: Index, size: int, end: int, extent: int) -> Run:
        """``size`` indices of a dimension; fewer behind its end, where groups go up to ``end``."""
        x = Indices(self.ctx.core)
        return Run(start, size if end <= extent else x.left(extent, start, size), size)
