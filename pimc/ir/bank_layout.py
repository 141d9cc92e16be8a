"""Where a weight's elements lie in the banks of a tile, and where linear data lies in its channels.

One place knows the arithmetic: the layout pass chooses these records, the image builder packs weights by them, the
lowering issues commands by them, and the interpreter unpacks by them to show a layout error.

A *tile* is one SRAM-PIM core with its pseudo-channels (HPIM: four of sixteen banks).  A GEMV with ``n_local`` outputs
in a tile and an input of ``k`` elements is cut as follows (section VI.A of the HPIM paper maps head-wise and then
row-wise onto banks; the cut of K over the channels of a tile is ours, and keeps small matrices from wasting rows):

* pseudo-channel ``q`` holds K-slice ``q % ksplit`` for output group ``q // ksplit``;
* local output ``n`` is in slot ``n // (banks * groups)``, group ``(n // banks) % groups``, bank ``n % banks``;
* a K-slice is cut in chunks of at most one global buffer; the segments (slot x chunk) are packed into rows, several to
  a row where they are short; slots are grouped in blocks of at most ``result_registers``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pimc.targets.target import Target

HalfBits = npt.NDArray[np.uint16]
#: No size of a layout is greater; a figure of IR may be anything.
_LARGEST = 1 << 31


@dataclass(frozen=True)
class TileGeometry:
    """The figures of a tile that a layout depends on; taken from the target, carried by the layout.

    ``lanes`` fp16 elements make a column, ``columns`` columns a row, ``buffer_columns`` columns a global buffer.
    """

    channels: int
    banks: int
    columns: int
    lanes: int
    buffer_columns: int
    result_registers: int

    def __post_init__(self) -> None:
        numbers = (self.channels, self.banks, self.columns, self.lanes, self.buffer_columns, self.result_registers)
        if not all(0 < number <= _LARGEST for number in numbers):
            raise ValueError(f"the figures of a tile are from 1 to {_LARGEST}")

    @staticmethod
    def of(target: Target) -> TileGeometry:
        """The tiles of a target; where the banks have no units, weights are cut by rows of the DRAM alone."""
        hbm = target.hbm
        buffer = hbm.row_bytes if hbm.pu is None else target.memory("global_buffer").bytes
        return TileGeometry(
            channels=target.pchs_per_core,
            banks=hbm.banks,
            columns=hbm.columns,
            lanes=hbm.column_bytes // 2,
            buffer_columns=buffer // hbm.column_bytes,
            result_registers=hbm.columns if hbm.pu is None else hbm.pu.result_registers,
        )

    @property
    def row_elements(self) -> int:
        """fp16 elements in one row of one bank."""
        return self.columns * self.lanes


@dataclass(frozen=True)
class Segment:
    """A run of columns in a row: the weights of one slot for one K chunk, in every bank at once."""

    slot: int
    column: int
    columns: int


@dataclass(frozen=True)
class RowVisit:
    """One row of every bank: its segments, their block and K chunk, and its offset from the layout's base."""

    block: int
    chunk: int
    row: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class GemvLayout:
    """Placement of a tile's slice of a ``[n_local, k]`` weight (all tiles alike) in its banks.

    ``row_base`` is the first DRAM row, ``row_stride`` the rows from one layer's copy to the next (0: not per layer).
    """

    geometry: TileGeometry
    k: int
    n_local: int
    ksplit: int
    row_base: int = 0
    row_stride: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.k <= _LARGEST and 0 < self.n_local <= _LARGEST):
            raise ValueError(f"a GEMV layout needs k and n_local above 0, not {self.k} and {self.n_local}")
        if min(self.row_base, self.row_stride) < 0:
            raise ValueError("the rows of a GEMV layout are not negative")
        if self.ksplit <= 0 or self.geometry.channels % self.ksplit:
            raise ValueError(f"ksplit {self.ksplit} does not divide the {self.geometry.channels} channels of a tile")

    @property
    def groups(self) -> int:
        """Output groups: sets of channels that hold different outputs."""
        return self.geometry.channels // self.ksplit

    @property
    def slice_elements(self) -> int:
        """Elements of K in one K-slice, a multiple of the lanes."""
        step = self.ksplit * self.geometry.lanes
        return -(-self.k // step) * self.geometry.lanes

    @property
    def padded_k(self) -> int:
        """Elements of the input as the global buffers are written: ``ksplit`` whole slices, zeros behind ``k``."""
        return self.ksplit * self.slice_elements

    @property
    def outputs_per_slot(self) -> int:
        """Outputs that one result register of all banks and channels holds."""
        return self.geometry.banks * self.groups

    @property
    def slots(self) -> int:
        """Result registers a bank needs for all its outputs."""
        return -(-self.n_local // self.outputs_per_slot)

    @property
    def chunk_columns(self) -> tuple[int, ...]:
        """Columns of each K chunk of a slice."""
        left = self.slice_elements // self.geometry.lanes
        chunks: list[int] = []
        while left > 0:
            chunks.append(min(left, self.geometry.buffer_columns))
            left -= chunks[-1]
        return tuple(chunks)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Slots in each block of result registers."""
        full, rest = divmod(self.slots, self.geometry.result_registers)
        return (self.geometry.result_registers,) * full + ((rest,) if rest else ())

    def visits(self) -> Iterator[RowVisit]:
        """Every row in storage order: by block, then K chunk, then row."""
        row = 0
        for block, slots in enumerate(self.blocks):
            first = block * self.geometry.result_registers
            for chunk, columns in enumerate(self.chunk_columns):
                per_row = self.geometry.columns // columns
                for start in range(0, slots, per_row):
                    members = range(start, min(start + per_row, slots))
                    segments = tuple(Segment(first + s, (s - start) * columns, columns) for s in members)
                    yield RowVisit(block, chunk, row, segments)
                    row += 1

    @property
    def rows(self) -> int:
        """DRAM rows of every bank that one copy takes."""
        total = 0
        for slots in self.blocks:
            total += sum(-(-slots // (self.geometry.columns // columns)) for columns in self.chunk_columns)
        return total

    @property
    def mac_columns(self) -> int:
        """Column MACs each bank performs for one GEMV."""
        return self.slots * sum(self.chunk_columns)

    def place(self, n: int) -> tuple[int, int, int]:
        """(slot, group, bank) of local output ``n``."""
        banks = self.geometry.banks
        return n // self.outputs_per_slot, n // banks % self.groups, n % banks

    def pack(self, weight: HalfBits) -> HalfBits:
        """Rows of every channel for a tile's slice of a weight.

        ``weight`` is ``[n <= n_local, k]`` fp16 bits; returns ``[channels, rows, banks, row_elements]``, zeros where
        nothing is stored.
        """
        g = self.geometry
        n, k = weight.shape
        if n > self.n_local or k != self.k:
            raise ValueError(f"weight {weight.shape} does not fit a layout of [{self.n_local}, {self.k}]")
        padded = np.zeros((self.slots * self.outputs_per_slot, self.padded_k), np.uint16)
        padded[:n, :k] = weight
        # [slot, group, bank, slice, element]
        cut = padded.reshape(self.slots, self.groups, g.banks, self.ksplit, self.slice_elements)
        rows = np.zeros((self.groups, self.ksplit, self.rows, g.banks, g.row_elements), np.uint16)
        for visit in self.visits():
            start = visit.chunk * g.buffer_columns * g.lanes
            for segment in visit.segments:
                size = segment.columns * g.lanes
                at = segment.column * g.lanes
                piece = cut[segment.slot, :, :, :, start : start + size]  # [group, bank, slice, element]
                rows[:, :, visit.row, :, at : at + size] = piece.transpose(0, 2, 1, 3)
        return rows.reshape(g.channels, self.rows, g.banks, g.row_elements)

    def unpack(self, rows: HalfBits) -> HalfBits:
        """The inverse of :meth:`pack`: ``[n_local, k]`` fp16 bits from ``[channels, rows, banks, row_elements]``."""
        g = self.geometry
        cells = rows.reshape(self.groups, self.ksplit, self.rows, g.banks, g.row_elements)
        cut = np.zeros((self.slots, self.groups, g.banks, self.ksplit, self.slice_elements), np.uint16)
        for visit in self.visits():
            start = visit.chunk * g.buffer_columns * g.lanes
            for segment in visit.segments:
                size = segment.columns * g.lanes
                at = segment.column * g.lanes
                piece = cells[:, :, visit.row, :, at : at + size]  # [group, slice, bank, element]
                cut[segment.slot, :, :, :, start : start + size] = piece.transpose(0, 2, 1, 3)
        return cut.reshape(self.slots * self.outputs_per_slot, self.padded_k)[: self.n_local, : self.k]


@dataclass(frozen=True)
class LinearRegion:
    """A run of bytes in the linear address space of a tile's channels (see :func:`linear_place`).

    ``base`` is the byte address, ``size`` the bytes of one copy, ``layer_stride`` the bytes from one layer's copy to
    the next (0: not per layer).  Bases and strides are multiples of the column size.
    """

    base: int
    size: int
    layer_stride: int = 0

    def address(self, layer: int = 0) -> int:
        """Byte address of a layer's copy."""
        return self.base + layer * self.layer_stride


def linear_place(address: int, geometry: TileGeometry) -> tuple[int, int, int, int]:
    """(channel, row, bank, byte in the row) of a linear byte address of a tile.

    Consecutive rows' worth of bytes go round the channels, then the banks, then to the next row, so that a long
    transfer uses every channel and spreads its activations over banks.
    """
    row_bytes = geometry.row_elements * 2
    unit, byte = divmod(address, row_bytes)
    unit, channel = divmod(unit, geometry.channels)
    row, bank = divmod(unit, geometry.banks)
    return channel, row, bank, byte


def rows_of_bytes(size: int, geometry: TileGeometry) -> int:
    """Rows (of every bank and channel) that ``size`` linear bytes take."""
    per_row = geometry.row_elements * 2 * geometry.channels * geometry.banks
    return -(-size // per_row)
