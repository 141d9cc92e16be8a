"""Memory images: the weights of a model as the first rows of every bank, by the module's memory map.

Weights are read one at a time, converted to fp16, cut by tile and written where the map says; nothing of the size of
the model is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np

from pimc.diagnostics import InputError
from pimc.ir.bank_layout import HalfBits, TileGeometry
from pimc.ir.memory_map import GemvRegion, MemoryMap
from pimc.ir.pim.attributes import RegionAttr
from pimc.ir.weights import FamilyName, WeightArray, WeightStore, all_finite
from pimc.isa.images import DeferredImages, ImageSink

#: Images of the pseudo-channels, by their number: fp16 bits [rows, banks, row elements].
Images = dict[int, HalfBits]


def half_bits(values: WeightArray, name: str) -> HalfBits:
    """The bits of ``values`` as fp16, rounded to nearest even, of the same shape.

    Raises :class:`InputError` naming the tensor where a value overflows fp16, or is no finite number.
    """
    with np.errstate(over="ignore", under="ignore"):
        halves = np.ascontiguousarray(values, np.float16)
    if not all_finite(halves):
        finite = np.isfinite(halves)
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
    return dict(deferred_images(memory, weights, geometry, constants))


def deferred_images(
    memory: MemoryMap,
    weights: WeightStore,
    geometry: TileGeometry,
    constants: Mapping[str, HalfBits] = MappingProxyType({}),
) -> DeferredImages:
    """The images of :func:`build_images`, which raise its errors when they are made."""
    shape = (memory.image_rows, geometry.banks, geometry.row_elements)
    count = memory.tiles * geometry.channels if memory.image_rows else 0

    def fill(sink: ImageSink) -> None:
        for gemv in memory.gemv:
            _write_gemv(sink, gemv, weights, memory.tiles)
        for linear in memory.linear:
            name = linear.tensor.data
            if name in constants:
                _write_words(sink, linear, constants[name], geometry, memory.tiles)
            elif linear.kind.data not in ("cache", "value"):
                _write_linear(sink, linear, weights, geometry, memory.tiles)

    return DeferredImages(dict.fromkeys(range(count), shape), fill)


def _copies(layers: int, first: int) -> Iterator[int | None]:
    """The layer of each stored copy; None for a tensor that is there once."""
    if layers:
        yield from range(first, layers)
    else:
        yield None


def _member(family: str, layer: int | None) -> str:
    return family if layer is None else FamilyName(family).member(layer)


def _converted(values: WeightArray, start: int, stop: int, name: str) -> HalfBits:
    """Rows of a weight as the bits of fp16; what does not fit is an error about the whole weight."""
    try:
        return half_bits(values[start:stop], name)
    except InputError:
        half_bits(values, name)
        raise


def _write_gemv(sink: ImageSink, region: GemvRegion, weights: WeightStore, tiles: int) -> None:
    """Weights of a matrix operation, stacked by tile and packed in rows by the layout."""
    layout, channels = region.layout, region.layout.geometry.channels
    for layer in _copies(region.layers, region.first_layer):
        row = layout.row_base + (layer or 0) * layout.row_stride
        names = [_member(family, layer) for family in region.weights]
        stored = [weights[name] for name in names]
        for name, values in zip(names, stored, strict=True):
            if values.ndim != 2 or values.shape[1] != layout.k:
                raise InputError(f"weight {name!r} has shape {values.shape}, the memory map expects [N, {layout.k}]")
        for tile in range(tiles):
            stack = np.zeros((layout.n_local, layout.k), np.uint16)
            first = 0
            for name, values, shard in zip(names, stored, region.shards, strict=True):
                for piece in shard.pieces(tile, values.shape[0]):
                    at, size = first + piece.local, piece.stop - piece.start
                    if piece.start < 0 or size > layout.n_local - at:
                        raise InputError(f"weight {name!r} of shape {values.shape} does not fit its place in the map")
                    stack[at : at + size] = _converted(values, piece.start, piece.stop, name)
                first += shard.max_local_size
            for channel, rows in enumerate(layout.pack(stack)):
                sink.write(tile * channels + channel, row, rows)


def _write_linear(
    sink: ImageSink, region: RegionAttr, weights: WeightStore, geometry: TileGeometry, tiles: int
) -> None:
    """A vector or table in the linear address space of every tile, whole or cut by rows."""
    rows, pitch = region.rows.data, region.row_bytes.data // 2
    for layer in _copies(region.layers.data, region.first_layer.data):
        name = _member(region.tensor.data, layer)
        values = weights[name]
        if region.kind.data == "flat":
            _write_words(sink, region, saturated_bits(values).reshape(-1), geometry, tiles, layer or 0)
            continue
        if region.kind.data in ("kernels", "all_kernels"):
            table = np.moveaxis(values, 1, -1).reshape(len(values), -1)
        else:
            table = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
        cut = region.kind.data in ("rows", "kernels")
        if table.shape[1] > pitch or len(table) > rows * (tiles if cut else 1):
            raise InputError(f"weight {name!r} has shape {values.shape}, which does not fit its region {region}")
        mine = np.zeros((rows, pitch), np.uint16)
        for tile in range(tiles):
            if cut or tile == 0:
                bits = _converted(table, tile * rows, (tile + 1) * rows, name)
                mine[: len(bits), : table.shape[1]] = bits
                mine[len(bits) :] = 0
            _write_flat(sink, tile, mine.reshape(-1), region.region.address(layer or 0) // 2, geometry)


def _write_words(
    sink: ImageSink, region: RegionAttr, words: HalfBits, geometry: TileGeometry, tiles: int, layer: int = 0
) -> None:
    """All words of a tensor, without gaps, in every tile."""
    if 2 * len(words) != region.row_bytes.data:
        raise InputError(f"{region.tensor.data!r} has {2 * len(words)} bytes, its region {region} holds others")
    for tile in range(tiles):
        _write_flat(sink, tile, words, region.region.address(layer) // 2, geometry)


def _write_flat(sink: ImageSink, tile: int, values: HalfBits, start: int, geometry: TileGeometry) -> None:
    """Write fp16 elements at linear element ``start`` of a tile (see ``linear_place``).

    Consecutive rows' worth go round the channels, then the banks, then to the next row: the element order of a block
    [row, bank, channel, element].  The first and the last row may hold other tensors as well.
    """
    if not len(values):
        return
    per_row = geometry.banks * geometry.channels * geometry.row_elements
    first, last = start // per_row, (start + len(values) - 1) // per_row
    channels = range(tile * geometry.channels, (tile + 1) * geometry.channels)
    block = np.zeros((last + 1 - first, geometry.banks, geometry.channels, geometry.row_elements), np.uint16)
    for row in {first, last}:
        for index, channel in enumerate(channels):
            block[row - first, :, index] = sink.read(channel, row)
    lead = start - first * per_row
    block.reshape(-1)[lead : lead + len(values)] = values
    for index, channel in enumerate(channels):
        sink.write(channel, first, block[:, :, index])
