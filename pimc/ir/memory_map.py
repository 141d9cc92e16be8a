"""What lies where in a tile's memory, for the image builder and the lowering: the module attribute
``pim.memory``.

The layout pass writes it; everything behind works from it and a weight store alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir import Attribute

from pimc.diagnostics import InputError
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.pim import GemvLayoutAttr, RegionAttr, ShardAttr

ATTRIBUTE = "pim.memory"


@dataclass(frozen=True)
class GemvRegion:
    """Weights of one matrix operation in the banks.

    A tile's slice stacks the weights in order, each its shard's rounds in order (``max_local_size`` outputs
    a weight; unowned ones are zero).  ``layers`` copies (0: one, not per layer) start at rows
    ``layout.row_base + layer * layout.row_stride``; ``*`` in the names stands for the layer, from
    ``first_layer`` on.
    """

    weights: tuple[str, ...]
    shards: tuple[ShardAttr, ...]
    layers: int
    first_layer: int
    layout: GemvLayout


@dataclass(frozen=True)
class MemoryMap:
    """All regions of a tile (all tiles alike).

    Rows ``0 .. image_rows`` hold weights and come with the binary; the caches lie behind, up to ``rows``.
    """

    tiles: int
    gemv: tuple[GemvRegion, ...]
    linear: tuple[RegionAttr, ...]
    image_rows: int
    rows: int

    def attribute(self) -> DictionaryAttr:
        """As the module attribute."""
        return DictionaryAttr(
            {
                "tiles": IntegerAttr(self.tiles, i64),
                "gemv": ArrayAttr([_gemv_attribute(region) for region in self.gemv]),
                "linear": ArrayAttr(self.linear),
                "image_rows": IntegerAttr(self.image_rows, i64),
                "rows": IntegerAttr(self.rows, i64),
            }
        )

    @staticmethod
    def of(module: ModuleOp) -> MemoryMap:
        """Of a module that the layout pass has seen; InputError otherwise."""
        attribute = module.attributes.get(ATTRIBUTE)
        if not isinstance(attribute, DictionaryAttr):
            raise InputError(f"the module has no {ATTRIBUTE} attribute", hint="run the layout pass first")
        data = attribute.data
        linear = data["linear"]
        gemv = data["gemv"]
        if not isinstance(linear, ArrayAttr) or not isinstance(gemv, ArrayAttr):
            raise InputError(f"{ATTRIBUTE} is malformed")
        return MemoryMap(
            _int(data["tiles"]),
            tuple(_gemv_region(item) for item in gemv),
            tuple(item for item in linear if isinstance(item, RegionAttr)),
            _int(data["image_rows"]),
            _int(data["rows"]),
        )


def _gemv_attribute(region: GemvRegion) -> DictionaryAttr:
    return DictionaryAttr(
        {
            "weights": ArrayAttr([StringAttr(name) for name in region.weights]),
            "shards": ArrayAttr(region.shards),
            "layers": IntegerAttr(region.layers, i64),
            "first_layer": IntegerAttr(region.first_layer, i64),
            "layout": GemvLayoutAttr.of(region.layout),
        }
    )


def _gemv_region(item: Attribute) -> GemvRegion:
    if not isinstance(item, DictionaryAttr):
        raise InputError(f"{ATTRIBUTE} is malformed")
    data = item.data
    weights, shards, layout = data["weights"], data["shards"], data["layout"]
    if (
        not isinstance(weights, ArrayAttr)
        or not isinstance(shards, ArrayAttr)
        or not isinstance(layout, GemvLayoutAttr)
    ):
        raise InputError(f"{ATTRIBUTE} is malformed")
    return GemvRegion(
        tuple(name.data for name in weights if isinstance(name, StringAttr)),
        tuple(shard for shard in shards if isinstance(shard, ShardAttr)),
        _int(data["layers"]),
        _int(data["first_layer"]),
        layout.layout,
    )


def _int(attribute: Attribute) -> int:
    if not isinstance(attribute, IntegerAttr):
        raise InputError(f"{ATTRIBUTE} is malformed")
    return attribute.value.data
