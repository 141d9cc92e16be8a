"""``layout``: a place in memory for every weight, table, vector and cache.

Every tile has the same map (module attribute ``pim.memory``, see :mod:`pimc.ir.memory_map`), from row 0 up:

1. linear data that is there once: embedding rows, position tables, vectors outside layers; 2. weights of
matrix operations outside layers; 3. one region a layer, all with one row stride: the layer's vectors, then
its weights; 4. the caches, by cache and head round, layer after layer.

Rows before 4 come with the binary.  Weights shared by prefill and decode are stored once.  The cut of K
over a tile's channels is the one with the least estimated time of a GEMV, or, where a GEMM reads the weights too, the
one into the fewest slices that is near it.  A tensor that does not fit is a TargetError that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from typing_extensions import override
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, IntAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute

from pimc.diagnostics import TargetError, UsageError
from pimc.ir import nn, pim
from pimc.ir.bank_layout import GemvLayout, rows_of_bytes
from pimc.ir.constants import CONSTANTS
from pimc.ir.memory_map import ATTRIBUTE, GemvRegion, MemoryMap
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.passes.machine import Machine
from pimc.passes.memory_regions import GemvGroup, LinearTensor, Tensors, collect

#: A cut of K into fewer slices is taken for a GEMM's sake if the GEMV takes at most so much longer.
NEAR_PERCENT = 2
REGION, LAYOUT_REASON = "pim.region", "pim.layout"


@dataclass(frozen=True)
class LayoutPass(Pass):
    """Place every tensor; ``ksplit`` fixes the cut of K (0: the fastest by estimate)."""

    name = "layout"
    produces = Stage.LAID_OUT
    requires = Stage.PARTITIONED
    ksplit: int = 0

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        machine = Machine(context.target)
        tensors = collect(module, machine.target.hbm.column_bytes)
        chosen = [(group, *self.choose(machine, group)) for group in tensors.gemv]
        allocator = _Allocator(machine)
        memory = allocator.place(tensors, [(group, layout) for group, layout, _ in chosen])
        module.attributes[ATTRIBUTE] = memory.attribute()
        if tensors.constants:
            module.attributes[CONSTANTS] = DictionaryAttr(tensors.constants)
        _annotate(tensors, memory, [reason for _, _, reason in chosen])
        for group, _, reason in chosen:
            for matrix in group.ops:
                context.explain(matrix, reason)

    def choose(self, machine: Machine, group: GemvGroup) -> tuple[GemvLayout, str]:
        """The layout of a group with its rows not yet placed, and why."""
        layouts = machine.bank_layouts(group.k, group.n_local)
        if self.ksplit:
            fixed = [layout for layout in layouts if layout.ksplit == self.ksplit]
            if not fixed:
                options = ", ".join(str(layout.ksplit) for layout in layouts)
                raise UsageError(f"ksplit {self.ksplit} is not possible", hint=f"one of {options}, or 0")
            return fixed[0], "ksplit given as an option"
        times = [(machine.weights_fs(layout), layout) for layout in layouts]
        _, best = min(times, key=lambda item: (item[0], item[1].rows, item[1].ksplit))
        text = ", ".join(f"{layout.ksplit}: {fs / 1e9:.3f} us" for fs, layout in times)
        if any(isinstance(op, pim.GemmOp) for op in group.ops):
            limit = min(fs for fs, _ in times) * (100 + NEAR_PERCENT) // 100
            coarse = min((layout for fs, layout in times if fs <= limit), key=lambda layout: layout.ksplit)
            if coarse.ksplit < best.ksplit:
                return coarse, f"ksplit {coarse.ksplit} is near the least time and gives the GEMM longer runs ({text})"
        return best, f"ksplit {best.ksplit} has the least estimated time ({text})"


class _Allocator:
    """Hands out rows of the tiles, in the order of the memory map."""

    def __init__(self, machine: Machine) -> None:
        self.geometry = machine.geometry
        self.capacity = machine.target.hbm.rows
        self.machine = machine
        self.column = machine.target.hbm.column_bytes
        self.row_space = rows_space(machine)
        self.linear: list[pim.RegionAttr] = []
        self.gemv: list[GemvRegion] = []

    def place(self, tensors: Tensors, layouts: list[tuple[GemvGroup, GemvLayout]]) -> MemoryMap:
        """Regions for all tensors: last those that grow with the longest sequence (tables by position, caches),
        so that the other addresses do not depend on it.
        """
        once = [t for t in tensors.linear if not t.layers.copies]
        row = self.linear_block([t for t in once if not t.by_position], 0, 0)
        for group, layout in layouts:
            if not group.layers.copies:
                row = self.matrix(group, layout, row, 0)
        row = self.layers(
            [t for t in tensors.linear if t.layers.copies],
            [(group, layout) for group, layout in layouts if group.layers.copies],
            row,
        )
        image_rows = row = self.linear_block([t for t in once if t.by_position], row, 0)
        row = self.caches(tensors.caches, row)
        return MemoryMap(self.machine.cores, tuple(self.gemv), tuple(self.linear), image_rows, row)

    def layers(self, vectors: list[LinearTensor], groups: list[tuple[GemvGroup, GemvLayout]], row: int) -> int:
        """One region a layer, all of one stride; returns the next free row."""
        size = sum(self.padded(t.rows * t.row_bytes) for t in vectors)
        stride = rows_of_bytes(size, self.geometry) + sum(layout.rows for _, layout in groups)
        layers = [t.layers for t in vectors] + [group.layers for group, _ in groups]
        copies = max((layer.copies for layer in layers), default=0)
        next_row = self.linear_block(vectors, row, stride)
        for group, layout in groups:
            next_row = self.matrix(group, layout, next_row, stride)
        end = row + copies * stride
        self.check(end, f"layer {copies - 1}" if copies else "")
        return end

    def linear_block(self, tensors: Iterable[LinearTensor], row: int, stride: int) -> int:
        """Tensors one behind the other from ``row``; returns the next free row."""
        address = row * self.row_space
        for t in tensors:
            size = self.padded(t.rows * t.row_bytes)
            self.linear.append(region_attr(t, address, size, stride * self.row_space))
            address += size
            self.check(-(-address // self.row_space), t.name)
        return -(-address // self.row_space)

    def matrix(self, group: GemvGroup, layout: GemvLayout, row: int, stride: int) -> int:
        """Rows for a group's weights; returns the next free row."""
        placed = replace(layout, row_base=row, row_stride=stride)
        layers = group.layers
        self.gemv.append(GemvRegion(group.weights, group.shards, layers.copies, layers.first, placed))
        self.check(row + layout.rows, ", ".join(group.weights))
        return row + layout.rows

    def caches(self, caches: list[LinearTensor], row: int) -> int:
        """Caches, each head round's layers one behind the other; returns the next free row."""
        address = row * self.row_space
        unit = self.geometry.row_elements * 2 * self.geometry.channels
        for t in caches:
            size = self.padded(t.rows * t.row_bytes)
            stride = -(-size // unit) * unit  # every layer starts at the first channel
            self.linear.append(region_attr(t, address, size, stride))
            address += stride * t.layers.copies
            self.check(-(-address // self.row_space), f"@{t.name}")
        return -(-address // self.row_space)

    def padded(self, size: int) -> int:
        """``size`` in whole columns."""
        return -(-size // self.column) * self.column

    def check(self, row: int, what: str) -> None:
        """TargetError if rows up to ``row`` do not exist; ``what`` is the tensor that needs them."""
        if row > self.capacity:
            raise TargetError(
                f"{what} does not fit: it needs rows up to {row} of each bank, {self.machine.target.name} has "
                f"{self.capacity}",
                hint="a smaller model, a shorter max_seq, or a target with more memory",
            )


def rows_space(machine: Machine) -> int:
    """Bytes of linear address space that one row of all banks of a tile makes."""
    g = machine.geometry
    return g.row_elements * 2 * g.channels * g.banks


def region_attr(t: LinearTensor, base: int, size: int, stride: int) -> pim.RegionAttr:
    """The attribute of a placed tensor."""
    numbers = (base, size, stride, t.layers.copies, t.layers.first, t.rows, t.row_bytes, t.round, t.cores)
    return pim.RegionAttr(StringAttr(t.kind), StringAttr(t.name), *(IntAttr(number) for number in numbers))


def _annotate(tensors: Tensors, memory: MemoryMap, reasons: list[str]) -> None:
    """Write layouts and regions on the operations that use them."""
    placed = {(region.weights, region.shards): region.layout for region in memory.gemv}
    for group, reason in zip(tensors.gemv, reasons, strict=True):
        layout = pim.GemvLayoutAttr.of(placed[group.weights, group.shards])
        for matrix in group.ops:
            matrix.properties["layout"] = layout
            matrix.attributes[LAYOUT_REASON] = StringAttr(reason)
    by_name: dict[str, list[Attribute]] = {}
    for region in memory.linear:
        by_name.setdefault(region.tensor.data, []).append(region)
    for tensor in tensors.linear:
        for param in tensor.ops:
            if isinstance(param, nn.ParamOp):
                param.attributes[REGION] = ArrayAttr(by_name[tensor.name])
    for tensor in tensors.caches:
        for op in tensor.ops:
            if isinstance(op, pim.KvAppendOp | pim.AttentionOp):
                for key, symbol in (("k", op.k), ("v", op.v)):
                    op.attributes[f"pim.{key}_regions"] = ArrayAttr(by_name[symbol.root_reference.data])
