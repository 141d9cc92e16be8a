"""Memory images hold the weights where the memory map says."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import IntAttr, StringAttr

from pimc.backends.image import build_images, deferred_images, half_bits
from pimc.diagnostics import InputError
from pimc.frontends.weights import ModelWeights
from pimc.ir.bank_layout import GemvLayout, TileGeometry, linear_place, rows_of_bytes
from pimc.ir.memory_map import GemvRegion, MemoryMap
from pimc.ir.pim import RegionAttr, ShardAttr, ShardRound
from pimc.ir.weights import InMemoryWeights
from pimc.isa.images import FileSink, image_bytes, total_bytes

GEOMETRY = TileGeometry(channels=4, banks=16, columns=32, lanes=16, buffer_columns=32, result_registers=32)
TILES = 3


def region(kind: str, name: str, **numbers: int) -> RegionAttr:
    return RegionAttr(StringAttr(kind), StringAttr(name), *(IntAttr(numbers.get(key, 0)) for key in RegionAttr.INTS))


def halves(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float16)


@pytest.mark.parametrize("ksplit", [1, 2, 4])
def test_gemv_regions(ksplit: int) -> None:
    rng = np.random.default_rng(ksplit)
    shards = (
        ShardAttr.of([ShardRound(0, 0, 3, 20), ShardRound(60, 1, 2, 3)]),
        ShardAttr.of([ShardRound(0, 0, 3, 7)]),
    )
    layout = GemvLayout(GEOMETRY, k=600, n_local=sum(s.max_local_size for s in shards), ksplit=ksplit, row_base=5)
    layout = GemvLayout(GEOMETRY, 600, layout.n_local, ksplit, 5, layout.rows + 2)
    weights = {f"l.{i}.{n}": halves(rng, size, 600) for i in range(3) for n, size in (("a", 64), ("b", 20))}
    gemv = GemvRegion(("l.*.a", "l.*.b"), shards, 3, 1, layout)
    rows = 5 + 3 * layout.row_stride
    images = build_images(MemoryMap(TILES, (gemv,), (), rows, rows), InMemoryWeights(weights), GEOMETRY)
    assert sorted(images) == list(range(TILES * 4))
    for layer in range(3):
        start = 5 + layer * layout.row_stride
        for tile in range(TILES):
            cells = np.stack([images[tile * 4 + q][start : start + layout.rows] for q in range(4)])
            found = layout.unpack(cells).view(np.float16)
            expected = np.zeros((layout.n_local, 600), np.float16)
            first = 0
            for name, shard in zip("ab", shards, strict=True):
                weight = weights[f"l.{layer}.{name}"]
                for piece in shard.pieces(tile, len(weight)):
                    at = first + piece.local
                    expected[at : at + piece.stop - piece.start] = weight[piece.start : piece.stop]
                first += shard.max_local_size
            np.testing.assert_array_equal(found, expected if layer else np.zeros_like(expected))  # first_layer is 1


@pytest.mark.parametrize("base", [0, 32, 1024 * 63 + 64])
def test_linear_regions(base: int) -> None:
    rng = np.random.default_rng(base)
    table = halves(rng, 70, 24)
    vector = halves(rng, 5000)
    linear = (
        region("rows", "table", base=base, size=24 * 64, rows=24, row_bytes=64),
        region("replicated", "vector", base=base + 4096, size=10016, rows=1, row_bytes=10000),
        region("cache", "kv", base=1 << 20, size=64, rows=1, row_bytes=64),
    )
    rows = rows_of_bytes(base + 4096 + 10016, GEOMETRY)
    weights = InMemoryWeights({"table": table.astype(np.float32), "vector": vector})
    images = build_images(MemoryMap(TILES, (), linear, rows, rows), weights, GEOMETRY)

    def element(tile: int, address: int) -> np.float16:
        channel, row, bank, byte = linear_place(address, GEOMETRY)
        return images[tile * 4 + channel][row, bank].view(np.float16)[byte // 2]

    for tile in range(TILES):
        for local in (0, 1, 21, 23):
            number = tile * 24 + local
            for column in (0, 7, 23):
                expected = table[number, column] if number < 70 else 0
                assert element(tile, base + local * 64 + column * 2) == expected
        for index in (0, 1, 511, 512, 4999):
            assert element(tile, base + 4096 + 2 * index) == vector[index]


def test_overflow_names_the_tensor() -> None:
    values = np.zeros((3, 4), np.float32)
    values[1, 2] = 65520
    with pytest.raises(InputError, match=r"'w' does not fit fp16: element \[1, 2\] is 65520.0 \(1 such"):
        half_bits(values, "w")
    values[1, 2] = 65519
    assert half_bits(values, "w").view(np.float16)[1, 2] == 65504


def test_wrong_shape() -> None:
    layout = GemvLayout(GEOMETRY, 32, 4, 4)
    gemv = GemvRegion(("w",), (ShardAttr.of([ShardRound(0, 0, 3, 4)]),), 0, 0, layout)
    weights = InMemoryWeights({"w": np.zeros((12, 16), np.float16)})
    with pytest.raises(InputError, match=r"'w' has shape \(12, 16\), the memory map expects \[N, 32\]"):
        build_images(MemoryMap(TILES, (gemv,), (), 1, 1), weights, GEOMETRY)


def test_no_weights() -> None:
    assert build_images(MemoryMap(TILES, (), (), 0, 4), InMemoryWeights({}), GEOMETRY) == {}


def seeded(seed: int, n: int, k: int) -> np.ndarray:
    return halves(np.random.default_rng(seed), n, k)


def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """The images of forty layers go into a file in the memory that a few weights take."""
    layers, n, k = 40, 240, 512
    shard = ShardAttr.of([ShardRound(0, 0, TILES, n // TILES)])
    rows = GemvLayout(GEOMETRY, k, n // TILES, 1).rows
    layout = GemvLayout(GEOMETRY, k, n // TILES, 1, 0, rows)
    rows = layers * layout.rows
    gemv = GemvRegion(("layers.*.w",), (shard,), layers, 0, layout)
    weights = ModelWeights({})
    for layer in range(layers):
        weights.add_deferred(f"layers.{layer}.w", (n, k), partial(seeded, layer, n, k))
    images = deferred_images(MemoryMap(TILES, (gemv,), (), rows, rows), weights, GEOMETRY)
    size = total_bytes(images)
    offsets = {channel: channel * image_bytes(images.shapes[channel]) for channel in images}
    with (tmp_path / "images").open("x+b") as file:
        tracemalloc.start()
        images.fill(FileSink(file, offsets, images.shapes))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < size / 4
    written = (tmp_path / "images").read_bytes()
    assert len(written) == size
    for channel, image in build_images(MemoryMap(TILES, (gemv,), (), rows, rows), weights, GEOMETRY).items():
        assert written[offsets[channel] : offsets[channel] + image.nbytes] == image.tobytes()
