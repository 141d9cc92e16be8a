"""What the tile pass decides, as attributes of the operation it is about."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Operation

_SLOTS = "pim.tile_slots"
_BUFFERS = "pim.tile_buffers"
_ROWS = "pim.tile_rows"
_KEYS = "pim.tile_keys"


@dataclass(frozen=True)
class GemmTiling:
    """Weights of ``slots`` result slots a tile, in ``buffers`` buffers (2: a transfer hides under a GEMM)."""

    slots: int
    buffers: int

    @staticmethod
    def of(op: Operation) -> GemmTiling | None:
        """The tiling that ``op`` carries, or None."""
        slots, buffers = op.attributes.get(_SLOTS), op.attributes.get(_BUFFERS)
        if not isinstance(slots, IntegerAttr) or not isinstance(buffers, IntegerAttr):
            return None
        return GemmTiling(slots.value.data, buffers.value.data)

    def attach(self, op: Operation) -> None:
        """Write the tiling on ``op``."""
        op.attributes[_SLOTS] = IntegerAttr(self.slots, i64)
        op.attributes[_BUFFERS] = IntegerAttr(self.buffers, i64)


@dataclass(frozen=True)
class AttentionTiling:
    """Attention takes ``rows`` query rows at a time, and for each the keys and values in blocks of ``keys`` rows."""

    rows: int
    keys: int

    @staticmethod
    def of(op: Operation) -> AttentionTiling | None:
        """The tiling that ``op`` carries, or None."""
        rows, keys = op.attributes.get(_ROWS), op.attributes.get(_KEYS)
        if not isinstance(rows, IntegerAttr) or not isinstance(keys, IntegerAttr):
            return None
        return AttentionTiling(rows.value.data, keys.value.data)

    def attach(self, op: Operation) -> None:
        """Write the tiling on ``op``."""
        op.attributes[_ROWS] = IntegerAttr(self.rows, i64)
        op.attributes[_KEYS] = IntegerAttr(self.keys, i64)
