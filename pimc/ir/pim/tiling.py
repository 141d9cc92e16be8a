"""What the tile pass decides, as attributes of the operation it is about."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerAttr, i64
from xdsl.ir import Operation

_SLOTS = "pim.tile_slots"
_BUFFERS = "pim.tile_buffers"


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
