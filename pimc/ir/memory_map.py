"""What lies where in a tile's memory, for the image builder and the lowering: the module attribute
``pim.memory``.

The layout pass writes it; everything behind works from it and a weight store alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntegerAttr, ModuleOp, StringAttr, i64
from xdsl.ir import Attribute

from pimc.diagnostics import InputError
from pimc.ir.bank_layout import GemvLayout, TileGeometry
from pimc.ir.pim import GemvLayoutAttr, RegionAttr, ShardAttr

ATTRIBUTE = "pim.memory"
_HINT = "the layout pass writes it: take up a dump of an earlier stage, or one of the same target"


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

    Rows ``0 .. image_rows`` hold weights and come with the binary; the caches lie behind, then computed values, up to
    ``rows``.
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
        linear, gemv = data.get("linear"), data.get("gemv")
        if not isinstance(linear, ArrayAttr) or not isinstance(gemv, ArrayAttr):
            raise _malformed()
        return MemoryMap(
            _int(data.get("tiles")),
            tuple(_gemv_region(item) for item in gemv),
            tuple(item for item in linear if isinstance(item, RegionAttr)),
            _int(data.get("image_rows")),
            _int(data.get("rows")),
        )

    def check(self, geometry: TileGeometry, tiles: int, rows: int) -> None:
        """Check that all regions lie in the banks of a machine, as those of the layout pass do.

        Args:
            geometry: the machine's tiles.
            tiles: how many it has.
            rows: the rows of its banks.

        Raises:
            InputError: the map is for another machine, or a region lies outside.
        """
        if self.tiles != tiles or not 0 <= self.image_rows <= self.rows <= rows:
            raise _outside(f"the machine has {tiles} tiles of {rows} rows, the map is for {self.tiles} of {self.rows}")
        for region in self.gemv:
            layout, what = region.layout, ", ".join(region.weights)
            if layout.geometry != geometry:
                raise _outside(f"the layout of {what} is for other banks")
            if sum(shard.max_local_size for shard in region.shards) != layout.n_local:
                raise _outside(f"the layout of {what} has {layout.n_local} outputs, its shards have others")
            _check_copies(
                what, region.layers, region.first_layer, layout.row_stride,
                layout.row_base + layout.rows, self.image_rows,
            )  # fmt: skip
        space = geometry.row_elements * 2 * geometry.channels * geometry.banks
        for linear in self.linear:
            limit = (self.rows if linear.kind.data in ("cache", "value") else self.image_rows) * space
            _check_copies(
                linear.tensor.data, linear.layers.data, linear.first_layer.data, linear.layer_stride.data,
                linear.base.data + linear.size.data, limit,
            )  # fmt: skip


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
        raise _malformed()
    data = item.data
    weights, shards, layout = data.get("weights"), data.get("shards"), data.get("layout")
    if (
        not isinstance(weights, ArrayAttr)
        or not isinstance(shards, ArrayAttr)
        or not isinstance(layout, GemvLayoutAttr)
        or len(weights) != len(shards)
    ):
        raise _malformed()
    return GemvRegion(
        tuple(name.data for name in weights if isinstance(name, StringAttr)),
        tuple(shard for shard in shards if isinstance(shard, ShardAttr)),
        _int(data.get("layers")),
        _int(data.get("first_layer")),
        layout.layout,
    )


def _int(attribute: Attribute | None) -> int:
    if not isinstance(attribute, IntegerAttr):
        raise _malformed()
    return attribute.value.data


def _check_copies(what: str, layers: int, first: int, stride: int, end: int, limit: int) -> None:
    """The copies of a region, those of layers ``first`` to ``layers`` - 1, end at ``limit`` at the latest."""
    if layers and (not 0 <= first < layers or (layers > 1 and stride <= 0)):
        raise _outside(f"{what} has layers {first} to {layers - 1}, {stride} apart")
    if end + max(0, layers - 1) * stride > limit:
        raise _outside(f"{what} ends behind what the map says of all")


def _malformed() -> InputError:
    return InputError(f"{ATTRIBUTE} is malformed", hint=_HINT)


def _outside(problem: str) -> InputError:
    return InputError(f"{ATTRIBUTE} is not one of this target: {problem}", hint=_HINT)
