"""Caches that count as filled: the columns of memory that the first positions of a sequence take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError
from pimc.isa.program import CacheRegion
from pimc.targets import Target

#: Slots looked at in one step.
_STEP = 1 << 14


def check_positions(caches: Sequence[CacheRegion], positions: int) -> None:
    """InputError unless the caches hold ``positions`` positions."""
    if not caches:
        raise InputError(
            "the program has no caches that it could be assumed to have filled",
            hint="they belong to a language model, and to its binary from this version of pimc on",
        )
    held = min(cache.positions for cache in caches)
    if not 0 <= positions <= held:
        raise InputError(f"{positions} positions of the caches cannot be assumed filled; they hold 0 to {held}")


def mark_filled(written: NDArray[np.uint32], caches: Sequence[CacheRegion], positions: int, target: Target) -> None:
    """Set the bits of ``written``, uint32[pseudo-channels, rows, banks] with a bit a column, of the slots of the first
    ``positions`` positions in all layers of all tiles.
    """
    column_bytes = target.hbm.column_bytes
    for cache in caches:
        for rank in range(cache.cores):
            tiles = np.arange(rank, target.cores.count, cache.cores)
            slots = len(range(rank, positions, cache.cores))
            for first, last in _spans(cache, slots):
                columns = np.arange(first // column_bytes, -(-last // column_bytes))
                _mark(written, tiles, columns, target)


def _spans(cache: CacheRegion, slots: int) -> Iterator[tuple[int, int]]:
    """First and last byte of runs of slots, layer by layer."""
    for layer in range(cache.layers):
        start = cache.base + layer * cache.layer_stride
        for slot in range(0, slots, _STEP):
            yield start + slot * cache.slot_bytes, start + min(slot + _STEP, slots) * cache.slot_bytes


def _mark(written: NDArray[np.uint32], tiles: NDArray[np.int64], columns: NDArray[np.int64], target: Target) -> None:
    """Set the bits of columns of the linear memory of some tiles: rows' worth of them go round the channels of a tile,
    then the banks, then to the next row.
    """
    unit, column = np.divmod(columns, target.hbm.columns)
    unit, channel = np.divmod(unit, target.pchs_per_core)
    row, bank = np.divmod(unit, target.hbm.banks)
    bits = np.left_shift(np.uint32(1), column.astype(np.uint32))
    for tile in tiles:
        np.bitwise_or.at(written, (tile * target.pchs_per_core + channel, row, bank), bits)
