"""Blocks of a GEMM: rows, outputs and K at a time, and the transfers of weights.

Among the blocks whose buffers fit, those of the least estimated time are taken: the longest of the tensor unit's work,
the weights' way from the banks (again for each block of rows) and a cut input's way over the network (again for each
block of outputs), and what nothing hides.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod

from pimc.backends.lower.choices import choice_of
from pimc.backends.lower.matrix_unit import Block, block_of, scratch_bytes
from pimc.ir import nn, pim
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.pim.ops import GemmOp
from pimc.ir.pim.tiling import GemmLoops, GemmTiling
from pimc.passes.machine import Machine

#: Buffers for transfers of weights, at most.
BUFFERS = 3
_UNITS = {"systolic": "tensor", "vector": "vector"}


def gemm_tiling(
    machine: Machine, gemm: GemmOp, layout: GemvLayout, budget: int, buffers: int
) -> tuple[GemmTiling, str]:
    """The tiling of least estimated time that fits ``budget`` bytes, or else the smallest; and why."""
    rows, kind = prod(nn.tensor_of(gemm.x).get_shape()[:-1]), choice_of(gemm, machine.target).unit
    loops, times = best_loops(machine, gemm, layout, rows, budget, buffers)
    if times is None:
        return loops.tiling, f"{_sizes(loops)}: the smallest buffers, {loops.bytes} bytes of {budget}"
    total, unit, dram, network = times
    times_text = f"{unit} cycles on the {_UNITS[kind]} unit, {dram} of DRAM, {network} of network, {total} in all"
    return loops.tiling, f"{_sizes(loops)}: {times_text}; {loops.bytes} bytes of {budget}"


def best_loops(
    machine: Machine, gemm: GemmOp, layout: GemvLayout, rows: int, budget: int, buffers: int
) -> tuple[GemmLoops, tuple[int, int, int, int] | None]:
    """The loops of least estimated time on so many rows whose buffers fit ``budget`` bytes, and the times of
    :meth:`Machine.gemm_times`; the smallest, without times, where none fit.
    """
    cut, kind = pim.layout_of(gemm.x.type) is not None, choice_of(gemm, machine.target).unit
    budget -= scratch_bytes(machine.target, kind)
    block = block_of(machine.target, kind)
    best: tuple[tuple[int, int], GemmLoops, tuple[int, int, int, int]] | None = None
    smallest: GemmLoops | None = None
    for tiling in candidates(block, layout, rows, cut, buffers):
        loops = GemmLoops(layout, tiling, rows, cut)
        if smallest is None or loops.bytes < smallest.bytes:
            smallest = loops
        if loops.bytes <= budget:
            times = machine.gemm_times(loops, kind)
            key = (times[0], loops.bytes)
            if best is None or key < best[0]:
                best = (key, loops, times)
    if best is None:
        assert smallest is not None  # there are candidates
        return smallest, None
    return best[1], best[2]


def _sizes(loops: GemmLoops) -> str:
    """Rows x outputs x K of a block."""
    t, layout = loops.tiling, loops.layout
    outputs = min(t.block_slots * layout.outputs_per_slot, layout.n_local)
    return f"{min(t.rows, loops.rows)} x {outputs} x {min(loops.pieces * loops.piece_elements, layout.k)}"


@lru_cache(maxsize=1024)
def least_bytes(block: Block, layout: GemvLayout, rows: int, cut: bool) -> int:
    """Bytes of the least buffers that a GEMM of so many rows works with."""
    return min(GemmLoops(layout, tiling, rows, cut).bytes for tiling in candidates(block, layout, rows, cut, 1))


def candidates(block: Block, layout: GemvLayout, rows: int, cut: bool, buffers: int) -> Iterator[GemmTiling]:
    """Tilings worth a look: blocks that fill the unit, and their multiples and parts."""
    total = sum(layout.chunk_columns)
    powers = [1 << i for i in range(max(rows, block.rows).bit_length())]
    heights = {rows, *(h for p in powers for h in (block.rows * p, block.rows // p) if 0 < h < rows)}
    per_unit = max(1, block.columns // layout.outputs_per_slot)
    widths = {1, layout.slots, *(min(per_unit * factor, layout.slots) for factor in (1, 2, 4))}
    for height in sorted(heights):
        for columns in _columns(layout):
            whole = columns == total
            for width in sorted(widths):
                in_unit = not cut and height <= block.rows and width * layout.outputs_per_slot <= block.columns
                spans = {1} if whole or in_unit else _spans(-(-layout.slots // width))
                for span in sorted(spans):
                    transfers = -(-layout.slots // width) * -(-total // columns)
                    for count in range(1, min(buffers, transfers) + 1):
                        yield GemmTiling(height, width, width * span, columns, count, int(in_unit and not whole))


def _columns(layout: GemvLayout) -> list[int]:
    """Columns of a K-slice in a block of K: all, whole chunks, or parts of one."""
    chunk, chunks = layout.geometry.buffer_columns, len(layout.chunk_columns)
    some = {-(-chunks // parts) * chunk for parts in range(2, chunks + 1)}
    few = {chunk >> i for i in range(4) if chunk % (1 << i) == 0}
    total = sum(layout.chunk_columns)
    return [total, *sorted((c for c in some | few if c < total), reverse=True)]


def _spans(transfers: int) -> set[int]:
    """Transfers of weights in a block of outputs: all, and equal parts of them."""
    return {-(-transfers // parts) for parts in (1, 2, 3, 4, 6, 8, transfers)}
