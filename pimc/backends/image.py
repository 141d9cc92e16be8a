"""Memory images: the weights of a model as the first rows of every bank, by the module's memory map.

Weights are read one at a time, converted to fp16 once, cut by tile and written where the map says; nothing else of
the size of the model is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError
from pimc.ir.bank_layout import HalfBits, TileGeometry
from pimc.ir.memory_map import GemvRegion, MemoryMap
from pimc.ir.pim.attributes import RegionAttr
from pimc.ir.weights import FamilyName, WeightArray, WeightStore

#: Images of the pseudo-channels, by their number: fp16 bits [rows, banks, row elements].
Images = dict[int, HalfBits]


def half_bits(values: WeightArray, name: str) -> HalfBits:
    """The bits of ``values`` as fp16, rounded to nearest even, of the same shape.

    Raises :class:`InputError` naming the tensor where a value overflows fp16, or is no finite number.
    """
    if values.dtype == np.float16:
        halves = np.ascontiguousarray(values)
    else:
        with np.errstate(over="ignore", under="ignore"):
            halves = values.astype(np.float16)
    finite = np.isfinite(halves)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise InputError(
            f"weight {name!r} does not fit fp16: element {list(first)} is {float(values[first])!r} "
            f"({int((~finite).sum())} such elements)",
            hint="fp16 reaches up to 65504; scale the weights, or use a checkpoint made for fp16",
        )
    return halves.view(np.uint16)


def saturated_bits(values: WeightArray) -> HalfBits:
    """The bits of ``values`` as fp16: finite values saturate, infinities and NaN stay.

    For tensors that are operands of any operator, as constants are: a mask's -3e38 is as good as -65504.
    """
    limit = float(np.finfo(np.float16).max)
    clipped = np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
    return np.ascontiguousarray(clipped.astype(np.float16)).view(np.uint16)


def build_images(
    memory: MemoryMap,
    weights: WeightStore,
    geometry: TileGeometry,
    constants: Mapping[str, HalfBits] = MappingProxyType({}),
) -> Images:
    """The image of every pseudo-channel that has weights; empty without weights.

    ``constants``: the words of stored constants, by name.

    Raises :class:`InputError` for a weight that is missing, has another shape than the map says, or overflows
    fp16.
    """
    if memory.image_rows == 0:
        return {}
    tiles = [
        np.zeros((geometry.channels, memory.image_rows, geometry.banks, geometry.row_elements), np.uint16)
        for _ in range(memory.tiles)
    ]
    for gemv in memory.gemv:
        _write_gemv(tiles, gemv, weights)
    for linear in memory.linear:
        name = linear.tensor.data
        if name in constants:
            _write_words(tiles, linear, constants[name], geometry)
        elif linear.kind.data != "cache":
            _write_linear(tiles, linear, weights, geometry)
    return {
        tile * geometry.channels + channel: image[channel]
        for tile, image in enumerate(tiles)
        for channel in range(geometry.channels)
    }


def _copies(layers: int, first: int) -> Iterator[int | None]:
    """The layer of each stored copy; None for a tensor that is there once."""
    if layers:
        yield from range(first, layers)
    else:
        yield None


def _read(weights: WeightStore, family: str, layer: int | None) -> tuple[str, HalfBits]:
    name = _member(family, layer)
    return name, half_bits(weights[name], name)


def _member(family: str, layer: int | None) -> str:
    return family if layer is None else FamilyName(family).member(layer)


def _write_gemv(tiles: list[HalfBits], region: GemvRegion, weights: WeightStore) -> None:
    """Weights of a matrix operation, stacked by tile and packed in rows by the layout."""
    layout = region.layout
    for layer in _copies(region.layers, region.first_layer):
        row = layout.row_base + (layer or 0) * layout.row_stride
        stacks = np.zeros((len(tiles), layout.n_local, layout.k), np.uint16)
        first = 0
        for family, shard in zip(region.weights, region.shards, strict=True):
            name, bits = _read(weights, family, layer)
            if bits.ndim != 2 or bits.shape[1] != layout.k:
                raise InputError(f"weight {name!r} has shape {bits.shape}, the memory map expects [N, {layout.k}]")
            for tile in range(len(tiles)):
                for piece in shard.pieces(tile, bits.shape[0]):
                    at = first + piece.local
                    if piece.start < 0 or piece.stop - piece.start > layout.n_local - at:
                        raise InputError(f"weight {name!r} of shape {bits.shape} does not fit its place in the map")
                    stacks[tile, at : at + piece.stop - piece.start] = bits[piece.start : piece.stop]
            first += shard.max_local_size
        for tile, image in enumerate(tiles):
            image[:, row : row + layout.rows] = layout.pack(stacks[tile])


def _write_linear(tiles: list[HalfBits], region: RegionAttr, weights: WeightStore, geometry: TileGeometry) -> None:
    """A vector or table in the linear address space of every tile, whole or cut by rows."""
    rows, pitch = region.rows.data, region.row_bytes.data // 2
    for layer in _copies(region.layers.data, region.first_layer.data):
        if region.kind.data == "flat":
            name = _member(region.tensor.data, layer)
            _write_words(tiles, region, saturated_bits(weights[name]).reshape(-1), geometry, layer or 0)
            continue
        name, bits = _read(weights, region.tensor.data, layer)
        if region.kind.data == "kernels":
            table = np.moveaxis(bits, 1, -1).reshape(len(bits), -1)
        else:
            table = bits.reshape(-1, bits.shape[-1]) if bits.ndim else bits.reshape(1, 1)
        cut = region.kind.data in ("rows", "kernels")
        if table.shape[1] > pitch or len(table) > rows * (len(tiles) if cut else 1):
            raise InputError(f"weight {name!r} has shape {bits.shape}, which does not fit its region {region}")
        padded = np.zeros((rows * (len(tiles) if cut else 1), pitch), np.uint16)
        padded[: len(table), : table.shape[1]] = table
        start = region.region.address(layer or 0) // 2
        for tile, image in enumerate(tiles):
            mine = padded[tile * rows : (tile + 1) * rows] if cut else padded
            _write_flat(image, mine.reshape(-1), start, geometry)


def _write_words(
    tiles: list[HalfBits], region: RegionAttr, words: HalfBits, geometry: TileGeometry, layer: int = 0
) -> None:
    """All words of a tensor, without gaps, in every tile."""
    if 2 * len(words) != region.row_bytes.data:
        raise InputError(f"{region.tensor.data!r} has {2 * len(words)} bytes, its region {region} holds others")
    for image in tiles:
        _write_flat(image, words, region.region.address(layer) // 2, geometry)


def _write_flat(image: HalfBits, values: HalfBits, start: int, geometry: TileGeometry) -> None:
    """Write fp16 elements at linear element ``start`` of a tile (see ``linear_place``).

    Consecutive rows' worth go round the channels, then the banks, then to the next row: element order [row, bank,
    channel, element] of an image [channel, row, bank, element].
    """
    row = geometry.row_elements
    first, last = start // row, -(-(start + len(values)) // row)
    units = np.arange(first, last)
    channel, bank, dram_row = (
        units % geometry.channels,
        units // geometry.channels % geometry.banks,
        units // (geometry.channels * geometry.banks),
    )
    lead = start - first * row
    full: NDArray[np.uint16] = image[channel, dram_row, bank]
    full.reshape(-1)[lead : lead + len(values)] = values
    image[channel, dram_row, bank] = full
