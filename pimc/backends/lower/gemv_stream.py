"""The commands of a GEMV: for every block and K chunk load the global buffer and visit the rows; read results.

What repeats is a loop of the controllers, so that a stream does not grow with the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pimc.backends.lower.context import GO, LAYER_ROW, LoweringContext
from pimc.backends.lower.values import Buffer, Strip
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.instruction_ops import LocalAddressAttr

#: Zero: nothing sets register 0 of a controller.
NO_BASE = 0
#: Registers of a controller in loops: the next row, the next result register, and bytes into the input and the results.
ROW, RESULT, INPUT, OUTPUT = 2, 3, 4, 5
#: So many repetitions are written out: the control commands of a loop take time.
UNROLLED = 4


@dataclass(frozen=True)
class GemvBuffers:
    """Where a GEMV reads its input and leaves its results; semaphores: one a block of results, or one for all."""

    source: Strip
    results: Buffer
    semaphores: list[int]


def stream_gemv(ctx: LoweringContext, buffers: GemvBuffers, layout: GemvLayout) -> None:
    """Append the commands of a GEMV to the stream of all controllers."""
    ctx.stream.wait(sem=GO, count=1)
    _GemvStream(ctx, layout, buffers, LAYER_ROW if layout.row_stride else NO_BASE, layout.row_base).blocks()


@dataclass
class _Place:
    """A number that commands give: a register and an offset that is known; loops need all of it in a register."""

    register: int
    offset: int = 0


@dataclass
class _GemvStream:
    """The stream under way: what comes next is in ``row``, ``input`` and ``output``."""

    ctx: LoweringContext
    layout: GemvLayout
    buffers: GemvBuffers
    base: int
    first_row: int
    row: _Place = field(init=False)
    input: _Place = field(default_factory=lambda: _Place(NO_BASE))
    output: _Place = field(default_factory=lambda: _Place(NO_BASE))

    def __post_init__(self) -> None:
        self.row = _Place(self.base, self.first_row)

    def blocks(self) -> None:
        """All blocks of result registers; written out where each has a semaphore of its own."""
        full, rest = divmod(self.layout.slots, self.layout.geometry.result_registers)
        single = len(self.buffers.semaphores) == 1
        registers = self.layout.geometry.result_registers

        def block(slots: int, semaphore: int | None) -> None:
            self.block(slots)
            if semaphore is not None:
                self.ctx.stream.sig(sem=semaphore)

        if single:
            last = 0 if rest else 1
            self.repeat(full - last, lambda: block(registers, None), [(self.output, OUTPUT)])
            block(rest or registers, self.buffers.semaphores[0])
            return
        sizes = [registers] * full + ([rest] if rest else [])
        for slots, semaphore in zip(sizes, self.buffers.semaphores, strict=True):
            block(slots, semaphore)

    def block(self, slots: int) -> None:
        """One block: all of K, chunk by chunk; the first clears the result registers."""
        widths = self.layout.chunk_columns
        self.input = _Place(NO_BASE)
        self.chunk(slots, widths[0], clear=True)
        same = sum(width == widths[0] for width in widths[1:])
        self.repeat(same, lambda: self.chunk(slots, widths[0]), [(self.input, INPUT)])
        if widths[-1] != widths[0]:
            self.chunk(slots, widths[-1])
        self.read_results(slots)

    def chunk(self, slots: int, columns: int, *, clear: bool = False) -> None:
        """One chunk of K: the input into the global buffers, then every row of the block."""
        self.load_input(columns)
        full, rest = divmod(slots, self.layout.geometry.columns // columns)
        result = _Place(NO_BASE)
        per_row = self.layout.geometry.columns // columns
        self.repeat(full, lambda: self.visit(result, per_row, columns, clear), [(result, RESULT)])
        if rest:
            self.visit(result, rest, columns, clear)

    def visit(self, result: _Place, segments: int, columns: int, clear: bool) -> None:
        """One row: its segments, each into a result register."""
        stream = self.ctx.stream
        stream.act(base=self.row.register, row=self.row.offset)
        for segment in range(segments):
            stream.mac(
                column=segment * columns, buffer=0, count=columns, result=result.offset + segment, clear=int(clear),
                base=result.register,
            )  # fmt: skip
        stream.pre()
        self.row.offset += 1
        result.offset += segments

    def load_input(self, columns: int) -> None:
        """The next chunk of every K-slice into the global buffers."""
        layout, g = self.layout, self.layout.geometry
        slice_bytes = layout.slice_elements * 2
        start = self.buffers.source.offset + self.input.offset
        if layout.ksplit in (1, g.channels):
            pieces = [((1 << g.channels) - 1, 0, slice_bytes if layout.ksplit > 1 else 0)]
        else:
            pieces = [
                (sum(1 << q for q in range(g.channels) if q % layout.ksplit == v), v * slice_bytes, 0)
                for v in range(layout.ksplit)
            ]
        for mask, offset, stride in pieces:
            self.ctx.stream.wrgb(
                mask=mask,
                base=self.input.register,
                address=LocalAddressAttr.get(self.buffers.source.buffer.name, start + offset),
                column=0,
                count=columns,
                stride=stride,
            )
        self.input.offset += g.buffer_columns * g.lanes * 2

    def read_results(self, slots: int) -> None:
        """The result registers of a block to local memory."""
        g = self.layout.geometry
        self.ctx.stream.rdres(
            base=self.output.register,
            address=LocalAddressAttr.get(self.buffers.results.name, self.output.offset),
            result=0,
            count=slots,
        )
        self.output.offset += slots * g.channels * g.banks * 4

    def repeat(self, count: int, body: Callable[[], None], places: list[tuple[_Place, int]]) -> None:
        """Do ``body`` so many times: written out, or as a loop in which ``places`` and the row are in registers."""
        if count <= UNROLLED:
            for _ in range(count):
                body()
            return
        stream = self.ctx.stream
        moving = [*places, (self.row, ROW)]
        for place, register in moving:
            if place.register != register or place.offset:
                stream.add(rd=register, rs=place.register, imm=place.offset)
            place.register, place.offset = register, 0
        with stream.loop(count):
            body()
            for place, register in moving:
                if place.offset:
                    stream.add(rd=register, rs=register, imm=place.offset)
                place.offset = 0
