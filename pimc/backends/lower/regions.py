"""Look-ups in the memory map by what the lowering knows: a weight's name, a cache's symbol and round."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.diagnostics import InternalError
from pimc.ir.bank_layout import TileGeometry
from pimc.ir.memory_map import MemoryMap
from pimc.ir.pim.attributes import RegionAttr


@dataclass(frozen=True)
class Regions:
    """The linear regions of a module, by tensor."""

    by_tensor: dict[tuple[str, int], RegionAttr]
    geometry: TileGeometry
    layer_row_stride: int

    @staticmethod
    def of(memory: MemoryMap, geometry: TileGeometry) -> Regions:
        """Index a memory map.  All per-layer GEMV layouts share one row stride (the layout pass packs layers)."""
        strides = {region.layout.row_stride for region in memory.gemv if region.layout.row_stride}
        if len(strides) > 1:
            raise InternalError(f"per-layer weights have several row strides: {sorted(strides)}")
        found = {(region.tensor.data, region.round.data): region for region in memory.linear}
        return Regions(found, geometry, next(iter(strides), 0))

    def region(self, tensor: str) -> RegionAttr:
        """The region of a weight or table."""
        return self._find(tensor, 0)

    def cache(self, symbol: str, round_: int) -> RegionAttr:
        """The region of one head round of a cache."""
        return self._find(symbol, round_)

    def replicated(self, tensor: str) -> RegionAttr | None:
        """The region of a tensor that every tile holds whole; None if it has none."""
        region = self.by_tensor.get((tensor, 0))
        return region if region is not None and region.kind.data == "replicated" else None

    def _find(self, tensor: str, round_: int) -> RegionAttr:
        region = self.by_tensor.get((tensor, round_))
        if region is None:
            raise InternalError(f"the memory map has no region for {tensor!r} (round {round_})")
        return region
