"""What the tile pass decides, as attributes of the operation, and the loops of a GEMM that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Operation

from pimc.ir.bank_layout import GemvLayout

_PREFIX = "pim.tile_"
_HALF, _SINGLE = 2, 4


@dataclass(frozen=True)
class GemmTiling:
    """How much of a GEMM a core works on at a time.

    A *block* of the product has ``rows`` rows and the outputs of ``block_slots`` result slots; K is cut in blocks of
    ``columns`` columns of each K-slice: whole chunks of the bank layout, or an equal part of one.  Weights come in
    transfers of ``slots`` slots and a block of K, through ``buffers`` buffers.  ``in_unit``: partial sums stay in the
    tensor unit from one block of K to the next; else they are in local memory in f32.
    """

    rows: int
    slots: int
    block_slots: int
    columns: int
    buffers: int
    in_unit: int

    @staticmethod
    def of(op: Operation) -> GemmTiling | None:
        """The tiling that ``op`` carries, or None."""
        found: dict[str, int] = {}
        for name in GemmTiling.__dataclass_fields__:
            attribute = op.attributes.get(_PREFIX + name)
            if not isinstance(attribute, IntegerAttr):
                return None
            found[name] = attribute.value.data
        return GemmTiling(**found)

    def attach(self, op: Operation) -> None:
        """Write the tiling on ``op``."""
        for each in fields(self):
            op.attributes[_PREFIX + each.name] = IntegerAttr(getattr(self, each.name), i64)


@dataclass(frozen=True)
class GemmLoops:
    """The loops of a tiled ``[rows, k] x [k, n_local]`` product, from the outside in: blocks of rows, blocks of
    outputs, blocks of K, transfers of weights; ``cut``: the input is gathered, block by block.
    """

    layout: GemvLayout
    tiling: GemmTiling
    rows: int
    cut: bool

    @property
    def row_blocks(self) -> int:
        """Blocks of rows."""
        return -(-self.rows // self.tiling.rows)

    @property
    def output_blocks(self) -> int:
        """Blocks of outputs."""
        return -(-self.layout.slots // self.tiling.block_slots)

    @property
    def k_blocks(self) -> int:
        """Blocks of K."""
        return -(-sum(self.layout.chunk_columns) // self.tiling.columns)

    @property
    def transfers(self) -> int:
        """Transfers of weights for a block of the product and of K."""
        return self.tiling.block_slots // self.tiling.slots

    @property
    def weight_transfers(self) -> int:
        """Transfers that bring all weights once."""
        return self.output_blocks * self.k_blocks * self.transfers

    @property
    def steps(self) -> int:
        """All steps; each multiplies one transfer of weights."""
        return self.row_blocks * self.weight_transfers

    @property
    def resident(self) -> bool:
        """Whether all weights stay in the buffers for the next block of rows."""
        return self.row_blocks > 1 and self.weight_transfers <= self.tiling.buffers

    @property
    def input_blocks(self) -> int:
        """Blocks of a cut input, in the order of their use."""
        return self.row_blocks if self.k_blocks == 1 else self.row_blocks * self.output_blocks * self.k_blocks

    # -- K ----

    @property
    def pieces(self) -> int:
        """Runs of K in a block: one for each K-slice, unless all of K is one block."""
        return 1 if self.k_blocks == 1 else self.layout.ksplit

    @property
    def chunks_per_block(self) -> int:
        """Chunks of the bank layout that a block of K meets."""
        if self.k_blocks == 1:
            return len(self.layout.chunk_columns)
        return max(1, self.tiling.columns // self.layout.geometry.buffer_columns)

    @property
    def piece_elements(self) -> int:
        """Elements of K in a piece (the last block's may have fewer)."""
        return self.layout.padded_k if self.k_blocks == 1 else self.tiling.columns * self.layout.geometry.lanes

    @property
    def slice_stride(self) -> int:
        """Elements of K between the K-slices of an output's weights in a transfer."""
        return self.layout.slice_elements if self.k_blocks == 1 else self.piece_elements

    # -- bytes of local memory ----

    @property
    def pitch(self) -> int:
        """From an output's weights to the next's in a transfer; and from row to row of a gathered block."""
        return self.pieces * self.piece_elements * _HALF

    @property
    def transfer_bytes(self) -> int:
        """One transfer of weights."""
        return self.tiling.slots * self.layout.outputs_per_slot * self.pitch

    @property
    def input_bytes(self) -> int:
        """One block of a cut input."""
        return min(self.tiling.rows, self.rows) * self.pitch if self.cut else 0

    @property
    def sums_pitch(self) -> int:
        """From row to row of the partial sums."""
        return self.tiling.block_slots * self.layout.outputs_per_slot * _SINGLE

    @property
    def sums_bytes(self) -> int:
        """The partial sums of a block in local memory."""
        inside = self.k_blocks == 1 or self.tiling.in_unit
        return 0 if inside else min(self.tiling.rows, self.rows) * self.sums_pitch

    @property
    def bytes(self) -> int:
        """All buffers of the GEMM."""
        gathered = min(self.input_blocks, 2) * self.input_bytes
        return self.tiling.buffers * self.transfer_bytes + gathered + self.sums_bytes


@dataclass(frozen=True)
class AttentionTiling:
    """Attention takes ``rows`` query rows at a time, and for each the keys and values in blocks of ``keys`` rows."""

    rows: int
    keys: int

    @staticmethod
    def of(op: Operation) -> AttentionTiling | None:
        """The tiling that ``op`` carries, or None."""
        rows, keys = (op.attributes.get(_PREFIX + name) for name in ("rows", "keys"))
        if not isinstance(rows, IntegerAttr) or not isinstance(keys, IntegerAttr):
            return None
        return AttentionTiling(rows.value.data, keys.value.data)

    def attach(self, op: Operation) -> None:
        """Write the tiling on ``op``."""
        op.attributes[_PREFIX + "rows"] = IntegerAttr(self.rows, i64)
        op.attributes[_PREFIX + "keys"] = IntegerAttr(self.keys, i64)
