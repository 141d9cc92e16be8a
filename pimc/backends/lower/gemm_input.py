"""Where a GEMM finds its input: whole in local memory, or cut over the cores and gathered block by block.

A source gives the blocks of the input in the order of their use (``GemmLoops.input_blocks``), and addresses in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from typing_extensions import override
from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.exchange import meet, tell_everybody
from pimc.backends.lower.index import Index, Indices
from pimc.backends.lower.parts import cut_of, own_indices
from pimc.backends.lower.values import Buffer, Strip
from pimc.ir.layout import shard_of
from pimc.ir.pim.tiling import GemmLoops

_HALF = 2


@dataclass(frozen=True)
class Range:
    """A run of K: its first element and its length."""

    start: Index
    length: Index


def piece_of(x: Indices, loops: GemmLoops, k: Index, piece: Index) -> Range:
    """The elements of a piece of a block of K; none behind the end."""
    if loops.k_blocks == 1:
        return Range(0, loops.layout.k)
    done = x.mul(k, loops.piece_elements)
    start = x.add(x.mul(piece, loops.layout.slice_elements), done)
    length = x.least(
        x.left(loops.layout.slice_elements, done, loops.piece_elements),
        x.left(loops.layout.k, start, loops.piece_elements),
    )
    return Range(start, length)


class GemmInput(ABC):
    """The input of a GEMM, row-major in blocks."""

    @property
    @abstractmethod
    def pitch(self) -> int:
        """Bytes from row to row of a block."""

    @property
    @abstractmethod
    def steps_per_block(self) -> int:
        """Steps of the GEMM that use a block."""

    @abstractmethod
    @contextmanager
    def each_block(self, result: Strip) -> Iterator[Index]:
        """A loop over the blocks; in its body the block is in local memory.  ``result`` is what the GEMM writes."""

    @abstractmethod
    def address(self, block: Index, row: tuple[Index, Index], piece: Index, k: Range) -> Index:
        """Where a piece of a row is, ``k`` of the input; ``row``: the block's first row, and the row in the block."""


@dataclass(frozen=True)
class WholeInput(GemmInput):
    """All of the input is in local memory."""

    ctx: LoweringContext
    loops: GemmLoops
    strip: Strip

    @property
    @override
    def pitch(self) -> int:
        return self.strip.pitch

    @property
    @override
    def steps_per_block(self) -> int:
        return self.loops.steps

    @override
    @contextmanager
    def each_block(self, result: Strip) -> Iterator[Index]:
        yield 0

    @override
    def address(self, block: Index, row: tuple[Index, Index], piece: Index, k: Range) -> Index:
        x = Indices(self.ctx.core)
        start = x.add(self.ctx.address(self.strip), x.mul(x.add(*row), self.pitch))
        return x.add(start, x.mul(k.start, _HALF))


@dataclass(frozen=True)
class Part:
    """What one strip of a cut input holds of it, on each core: rows and features from a first one on."""

    strip: Strip
    first_row: list[int]
    rows: list[int]
    first_feature: list[int]
    features: list[int]


@dataclass(frozen=True)
class GatheredInput(GemmInput):
    """The input is cut over the cores; each sends what it has of a block to all, one block ahead of its use.

    Two buffers take turns.  When a core has received a block it tells all cores, and sends what it has of the next
    one when all have told it: then no core still uses the other buffer, and none takes a message for another block's.
    """

    ctx: LoweringContext
    loops: GemmLoops
    parts: tuple[Part, ...]
    buffer: Buffer
    arrived: int

    @staticmethod
    def of(ctx: LoweringContext, loops: GemmLoops, value: SSAValue) -> GatheredInput:
        """An input that is cut along its features, or along its rows."""
        (_, shard), rows = cut_of(ctx, value), [loops.rows] * ctx.cores
        by_features = shard_of(value.type) is not None
        extent = loops.layout.k if by_features else loops.rows
        parts: list[Part] = []
        for index, strip in enumerate(ctx.tensor(value).strips):
            first, count = own_indices(shard, index, extent, ctx.cores)
            every = [loops.layout.k] * ctx.cores
            nothing = [0] * ctx.cores
            parts.append(
                Part(strip, nothing, rows, first, count) if by_features else Part(strip, first, count, nothing, every)
            )
        size = min(loops.input_blocks, 2) * loops.input_bytes
        buffer = ctx.alloc("gemm.input", size, remote=True)
        return GatheredInput(ctx, loops, tuple(parts), buffer, ctx.semaphores.take())

    @property
    @override
    def pitch(self) -> int:
        return self.loops.pitch

    @property
    @override
    def steps_per_block(self) -> int:
        return self.loops.steps // self.loops.input_blocks

    @override
    @contextmanager
    def each_block(self, result: Strip) -> Iterator[Index]:
        """Cores meet before the first block and behind the last, so that the buffers share memory with what is done
        then and begins then.
        """
        x, core, blocks = Indices(self.ctx.core), self.ctx.core, self.loops.input_blocks
        messages = self.ctx.cores * len(self.parts) * self.loops.pieces
        first = self.parts[0].strip
        meet(self.ctx, tell_everybody(self.ctx, first))
        self._send(0)
        with x.loop(blocks) as block:
            core.wait(core.const(0), sem=self.arrived, imm=messages)
            if blocks > 1:
                meet(self.ctx, tell_everybody(self.ctx, first))
                self._send(x.add(block, 1))
            yield block
        if blocks > 1:  # what the last block has sent is empty
            core.wait(core.const(0), sem=self.arrived, imm=messages)
        meet(self.ctx, tell_everybody(self.ctx, result))

    @override
    def address(self, block: Index, row: tuple[Index, Index], piece: Index, k: Range) -> Index:
        x = Indices(self.ctx.core)
        start = x.add(self._buffer(block), x.mul(row[1], self.pitch))
        return x.add(start, x.mul(piece, self.loops.piece_elements * _HALF))

    def _buffer(self, block: Index) -> Index:
        x, core = Indices(self.ctx.core), self.ctx.core
        return x.add(core.address(self.buffer.value), x.mul(x.mod(block, 2), self.loops.input_bytes))

    def _send(self, block: Index) -> None:
        """Send what this core has of a block to all cores; behind the last block there is nothing."""
        x, loops = Indices(self.ctx.core), self.loops
        row_block: Index = block
        k: Index = 0
        if loops.k_blocks > 1:
            row_block, _, k = x.split(block, (loops.row_blocks, loops.output_blocks, loops.k_blocks))
        first = x.mul(row_block, loops.tiling.rows)
        count = x.left(loops.rows, first, loops.tiling.rows)
        with x.loop(loops.pieces) as piece:
            run = piece_of(x, loops, k, piece)
            to = x.add(self._buffer(block), x.mul(piece, loops.piece_elements * _HALF))
            for part in self.parts:
                self._send_part(part, Range(first, count), run, to)

    def _send_part(self, part: Part, rows: Range, k: Range, to: Index) -> None:
        """Send what ``part`` has of a run of rows and of K: a message, perhaps empty."""
        x, core = Indices(self.ctx.core), self.ctx.core
        row, count = self._common(part.first_row, part.rows, rows)
        feature, width = self._common(part.first_feature, part.features, k)
        strip, pitch = part.strip, part.strip.pitch
        source = x.add(self.ctx.address(strip), x.mul(x.sub(row, core.const(part.first_row)), pitch))
        source = x.add(source, x.mul(x.sub(feature, core.const(part.first_feature)), _HALF))
        place = x.add(x.add(to, x.mul(x.sub(row, rows.start), self.pitch)), x.mul(x.sub(feature, k.start), _HALF))
        core.nmcast2(
            place, source, x.mul(width, _HALF), sem=self.arrived, group_base=0, group_size=self.ctx.cores,
            message_rows=count, message_src_stride=pitch, message_dst_stride=self.pitch,
        )  # fmt: skip

    def _common(self, first: list[int], count: list[int], wanted: Range) -> tuple[SSAValue, SSAValue]:
        """What a core's run from ``first`` on has of a wanted one: its start and length."""
        x, core = Indices(self.ctx.core), self.ctx.core
        start = core.max(core.const(first), wanted.start)
        end = core.min(
            core.const([a + b for a, b in zip(first, count, strict=True)]), x.add(wanted.start, wanted.length)
        )
        return start, core.max(core.sub(end, start), 0)
