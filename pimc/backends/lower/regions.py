"""Look-ups in the memory map by what the lowering knows: a weight's name, a cache's symbol and round."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.diagnostics import InputError
from pimc.ir.bank_layout import TileGeometry
from pimc.ir.memory_map import MemoryMap
from pimc.ir.pim.attributes import RegionAttr


@dataclass(frozen=True)
class Regions:
    """The linear regions of a module, by tensor."""

    by_tensor: dict[tuple[str, str, int], RegionAttr]
    geometry: TileGeometry
    layer_row_stride: int

    @staticmethod
    def of(memory: MemoryMap, geometry: TileGeometry) -> Regions:
        """Index a memory map.  All per-layer GEMV layouts share one row stride (the layout pass packs layers)."""
        strides = {region.layout.row_stride for region in memory.gemv if region.layout.row_stride}
        if len(strides) > 1:
            raise InputError(f"per-layer weights have several row strides: {sorted(strides)}")
        found = {(r.kind.data, r.tensor.data, r.round.data): r for r in memory.linear}
        return Regions(found, geometry, next(iter(strides), 0))

    def rows(self, table: str) -> RegionAttr:
        """The region of a table whose rows are cut over the tiles."""
        return self.find("rows", table, 0)

    def replicated(self, tensor: str) -> RegionAttr:
        """The region of a vector, or of a table by rows, that every tile holds."""
        return self.find("replicated", tensor, 0)

    def cache(self, symbol: str, round_: int) -> RegionAttr:
        """The region of one head round of a cache."""
        return self.find("cache", symbol, round_)

    def find(self, kind: str, tensor: str, round_: int = 0) -> RegionAttr:
        """The region of a kind for a tensor; InputError if there is none."""
        region = self.by_tensor.get((kind, tensor, round_))
        if region is None:
            raise InputError(
                f"the memory map has no {kind} region for {tensor!r} (round {round_})",
                hint="the layout pass writes it: a module changed since then has to go through it again",
            )
        return region
