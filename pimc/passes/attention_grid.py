"""Which cores work on what of an attention without a cache: the blocks of sequences, heads and rows of least time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pimc.ir import nn
from pimc.ir.pim.encoder import AttentionGrid
from pimc.passes.machine import Machine


@dataclass(frozen=True)
class AttentionSizes:
    """Sizes of an attention: sequences, query rows, keys, KV heads, query heads a KV head, features of a head."""

    sequences: int
    rows: int
    keys: int
    heads: int
    share: int
    dim: int

    @staticmethod
    def of(op: nn.AttentionFullOp) -> AttentionSizes:
        """Of an operation."""
        sequences, rows, _ = nn.tensor_of(op.q).get_shape()
        heads, kv_heads, dim = (a.value.data for a in (op.heads, op.kv_heads, op.head_dim))
        return AttentionSizes(sequences, rows, nn.tensor_of(op.k).get_shape()[1], kv_heads, heads // kv_heads, dim)


def best_grid(machine: Machine, sizes: AttentionSizes) -> AttentionGrid:
    """The grid of least estimated time; where it is equal, of the fewest and largest groups."""
    return min(_grids(machine.cores, sizes), key=lambda grid: (_time(machine, sizes, grid), grid.numbers))


def _grids(cores: int, sizes: AttentionSizes) -> Iterator[AttentionGrid]:
    """All grids: blocks of equal size, as few as the size needs."""
    for sequence_groups, sequences in _blocks(sizes.sequences, cores):
        for head_groups, heads in _blocks(sizes.heads, cores // sequence_groups):
            for row_groups, rows in _blocks(sizes.rows, cores // sequence_groups // head_groups):
                yield AttentionGrid(sequence_groups, head_groups, row_groups, sequences, heads, rows)


def _blocks(extent: int, most: int) -> Iterator[tuple[int, int]]:
    """(number, size) of equal blocks of ``extent`` indices, ``most`` blocks at most; the last may be smaller."""
    for size in {-(-extent // count) for count in range(1, min(extent, most) + 1)}:
        yield -(-extent // size), size


def _time(machine: Machine, sizes: AttentionSizes, grid: AttentionGrid) -> int:
    """Estimated time of a core's heads: their keys and values, and the work on its query rows."""
    each = machine.attention_rows_fs(grid.rows * sizes.share, sizes.keys, sizes.dim)
    keys = machine.network_fs(4 * sizes.keys * sizes.dim, 2 * grid.heads_at_once)
    return grid.sequences * grid.heads * (each + keys)
