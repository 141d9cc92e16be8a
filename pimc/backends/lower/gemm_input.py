"""Where a GEMM finds its input: whole in local memory, or cut over the cores and gathered block by block.

A source gives the blocks of the input in the order of their use (``GemmLoops.input_blocks``), and addresses in them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

from typing_extensions import override
from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, whole_shape_of
from pimc.backends.lower.exchange import meet, tell_everybody
from pimc.backends.lower.index import Index, Indices
from pimc.backends.lower.parts import Part, parts_of
from pimc.backends.lower.values import Buffer, Strip
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
class Held:
    """What one part of a cut input holds of it on each core: rows and features from a first one on.

    There are ``copies`` such boxes, of which ``present`` are there: the next is ``row_step`` rows further, and
    ``byte_step`` bytes behind in local memory.
    """

    at: SSAValue
    pitch: int
    first_row: list[int]
    rows: list[int]
    first_feature: list[int]
    features: list[int]
    copies: int
    present: list[int]
    row_step: int
    byte_step: int

    @staticmethod
    def of(ctx: LoweringContext, part: Part, shape: Sequence[int]) -> Held:
        """A part of a value of ``shape``; rows are its leading dimensions."""
        view, cores, lead = part.view, ctx.cores, len(shape) - 1
        features = part.along(lead)
        leading = [cut for cut in part.cuts if cut.dim < lead]
        run = leading[-1].dim if leading else 0
        inner = prod(shape[run + 1 : lead])
        starts, counts = leading[-1].own(shape[run], cores) if leading else ([0] * cores, [prod(shape[:lead])] * cores)
        first, rows = ([number * (inner if leading else 1) for number in numbers] for numbers in (starts, counts))
        step = shape[run] * inner
        copies, present = (prod(view.shape[:run]), [prod(view.shape[:run])] * cores) if leading else (1, [1] * cores)
        if len(leading) > 1:
            outer = leading[0]
            if run != outer.dim + 1 or outer.dim or len(leading) > 2:
                raise ctx.unsupported("an input whose leading dimensions are cut further apart")
            skipped, present = outer.own(shape[0], cores)
            first = [at + step * number for at, number in zip(first, skipped, strict=True)]
        sent = part.sent(part.cuts[0].dim, shape, cores)
        assert sent is not None  # it is cut
        present = [n if there else 0 for n, there in zip(present, sent[1], strict=True)]
        own = ([0] * cores, [shape[-1]] * cores) if features is None else features.own(shape[-1], cores)
        at = ctx.core.address(view.buffer.value, view.offset)
        bytes_ = view.strides[run - 1] if copies > 1 else 0
        return Held(at, view.strides[lead - 1], first, rows, *own, copies, present, step, bytes_)


@dataclass(frozen=True)
class GatheredInput(GemmInput):
    """The input is cut over the cores; each sends what it has of a block to all, one block ahead of its use.

    Two buffers take turns.  When a core has received a block it tells all cores, and sends what it has of the next
    one when all have told it: then no core still uses the other buffer, and none takes a message for another block's.
    """

    ctx: LoweringContext
    loops: GemmLoops
    source: Strip
    parts: tuple[Held, ...]
    buffer: Buffer
    arrived: int

    @staticmethod
    def of(ctx: LoweringContext, loops: GemmLoops, value: SSAValue) -> GatheredInput:
        """An input that is cut along its features, its rows, or both."""
        parts = tuple(Held.of(ctx, part, whole_shape_of(value)) for part in parts_of(ctx, value))
        size = min(loops.input_blocks, 2) * loops.input_bytes
        buffer = ctx.alloc("gemm.input", size, remote=True)
        return GatheredInput(ctx, loops, ctx.tensor(value).strips[0], parts, buffer, ctx.semaphores.take())

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
        messages = self.ctx.cores * sum(part.copies for part in self.parts) * self.loops.pieces
        first = self.source
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
                with x.loop(part.copies) as copy:
                    self._send_part(part, copy, Range(first, count), run, to)

    def _send_part(self, part: Held, copy: Index, rows: Range, k: Range, to: Index) -> None:
        """Send what a copy of ``part`` has of a run of rows and of K: a message, perhaps empty."""
        x, core = Indices(self.ctx.core), self.ctx.core
        own_row = x.add(core.const(part.first_row), x.mul(copy, part.row_step))
        row, count = self._common(own_row, part.rows, rows)
        feature, width = self._common(core.const(part.first_feature), part.features, k)
        if part.copies > 1 or 0 in part.present:
            width = core.mul(width, core.slt(core.register(copy), core.const(part.present)))
        source = x.add(x.add(part.at, x.mul(copy, part.byte_step)), x.mul(x.sub(row, own_row), part.pitch))
        source = x.add(source, x.mul(x.sub(feature, core.const(part.first_feature)), _HALF))
        place = x.add(x.add(to, x.mul(x.sub(row, rows.start), self.pitch)), x.mul(x.sub(feature, k.start), _HALF))
        core.nmcast2(
            place, source, x.mul(width, _HALF), sem=self.arrived, group_base=0, group_size=self.ctx.cores,
            message_rows=count, message_src_stride=part.pitch, message_dst_stride=self.pitch,
        )  # fmt: skip

    def _common(self, first: Index, count: list[int], wanted: Range) -> tuple[SSAValue, SSAValue]:
        """What a core's run from ``first`` on has of a wanted one: its start and length."""
        x, core = Indices(self.ctx.core), self.ctx.core
        start = core.max(first, wanted.start)
        end = core.min(x.add(first, core.const(count)), x.add(wanted.start, wanted.length))
        return start, core.max(core.sub(end, start), 0)
