"""What passes ask of a target: its figures in the form a pass computes with, and estimated times.

The estimates compare choices inside the compiler; they are no measurement (the simulator runs programs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute

from pimc.backends.lower.matrix_unit import block_of
from pimc.ir import nn
from pimc.ir.bank_layout import GemvLayout, TileGeometry
from pimc.ir.layout import LayoutAttr, layout_of
from pimc.ir.pim.tiling import GemmLoops
from pimc.targets import Target, load_target

#: What a round of attention takes whatever its slots, and each of its query heads: instructions, and the exchange of
#: the group.  Measured by attention of one token at position 0 with one round and with two: with SmolLM2's heads (three
#: query heads a KV head) they differ by 662 cycles, with GPT-2's (one) by 393.
ROUND_CYCLES, QUERY_HEAD_CYCLES = 258, 135
#: What a message of an exchange takes its sender: address, size and receiver in registers, and the port.
MESSAGE_CYCLES = 12
#: Cores that a core sends to where a cut along a dimension becomes another cut along it.
NEIGHBOURS = 3
#: The part of a core's activation memory that a value of several rows may take whole.
WHOLE_SHARE = 16
#: Passes over the elements of a residual and a norm.
NORM_STEPS = 4
#: Of a GEMM: instructions around a block of the tensor unit that its work does not hide; the DRAM's rest between two
#: transfers of weights (twice with two buffers); a meeting of all cores; and instructions of a transfer of weights: for
#: itself, for each slot and chunk, for each bank, for each read.
UNIT_CYCLES, GAP_CYCLES, EXCHANGE_CYCLES = 40, 100, 300
STEP_CYCLES, SEGMENT_CYCLES, BANK_CYCLES, READ_CYCLES = 60, 35, 4, 2
#: Of a product on the vector unit: instructions of a row and of a piece of K.
VECTOR_ROW_CYCLES, VECTOR_PIECE_CYCLES = 14, 100


@dataclass(frozen=True)
class Machine:
    """A target as the passes see it."""

    target: Target

    @staticmethod
    def load(name: str, overrides: Sequence[str] = ()) -> Machine:
        """By target name or file, with single figures replaced (``key.key=value``)."""
        return Machine(load_target(name, tuple(overrides)))

    @property
    def cores(self) -> int:
        """Tiles of the machine."""
        return self.target.cores.count

    @property
    def channels(self) -> int:
        """Pseudo-channels of the machine."""
        return self.target.hbm.pch_count

    @property
    def geometry(self) -> TileGeometry:
        """The figures of a tile's banks."""
        return TileGeometry.of(self.target)

    def domain(self, unit_kind: str) -> str | None:
        """The first domain whose unit is of a kind (``bank_pim``, ``systolic`` ...); None if there is
        none.
        """
        for domain in self.target.domains:
            if self.target.unit(domain.unit).kind == unit_kind:
                return domain.name
        return None

    def unit_kind(self, domain: str) -> str:
        """The kind of the unit of ``domain``; TargetError if the target has no such domain."""
        return self.target.unit(self.target.domain(domain).unit).kind

    # -- estimated times, femtoseconds ----

    def gemv_fs(self, layout: GemvLayout) -> int:
        """A GEMV in the banks of a tile: buffer writes, rows (activate, MAC columns, precharge),
        results, sum.
        """
        hbm = self.target.hbm
        clocks = hbm.clocks
        spread = clocks("nRRDS") * (hbm.bank_groups - 1)
        total = 0
        for visit in layout.visits():
            columns = sum(segment.columns for segment in visit.segments)
            opened = max(clocks("nRCDRD") + columns * clocks("nMAC") + clocks("nRTP"), clocks("nRAS"))
            total += spread + opened + clocks("nRP")
        total += sum(layout.chunk_columns) * len(layout.blocks) * clocks("nGBW")
        bursts = -(-layout.geometry.banks * 4 // hbm.column_bytes)
        total += layout.slots * bursts * clocks("nRES") + clocks("nCL")
        reduce = self.target.latency("vector")
        elements = layout.slots * layout.geometry.banks * layout.geometry.channels
        cycles = reduce.busy_cycles(elements) + reduce.pipeline
        return total * hbm.clock_fs + cycles * self.target.clock.core_period_fs

    def weights_fs(self, layout: GemvLayout) -> int:
        """What weights in a layout take once: a GEMV in the banks, or, where these have no units, their way to the
        core.
        """
        if self.target.hbm.pu is not None:
            return self.gemv_fs(layout)
        together = layout.ksplit in (1, layout.geometry.channels)
        reads = layout.slots * len(layout.chunk_columns) * layout.geometry.banks * (1 if together else layout.groups)
        return self.bank_reads_fs(reads, layout.chunk_columns[0])

    def bank_layouts(self, k: int, n_local: int) -> list[GemvLayout]:
        """The layouts of a tile's slice to choose from: one for each cut of K that divides the tile's channels."""
        geometry = self.geometry
        splits = [s for s in range(1, geometry.channels + 1) if geometry.channels % s == 0]
        return [GemvLayout(geometry, k, n_local, split) for split in splits]

    def best_gemv_fs(self, k: int, n_local: int) -> int:
        """Estimated time of a GEMV with its best layout."""
        return min(self.gemv_fs(layout) for layout in self.bank_layouts(k, n_local))

    def stream_fs(self, local_bytes: int) -> int:
        """Reading ``local_bytes`` of a tile's own channels into its core."""
        hbm = self.target.hbm
        bursts = -(-local_bytes // (hbm.column_bytes * self.target.pchs_per_core))
        return bursts * hbm.fs("nBL")

    def vector_fs(self, elements: int) -> int:
        """One operation on each of so many elements, on the vector unit of a core."""
        latency = self.target.latency("vector")
        return (latency.busy_cycles(elements) + latency.pipeline) * self.target.clock.core_period_fs

    def network_fs(self, size: int, messages: int) -> int:
        """``size`` bytes into a core's network port, in messages that a core sends one after the other."""
        cycles = messages * MESSAGE_CYCLES + -(-size // self.target.noc.bytes_per_cycle)
        return cycles * self.target.clock.core_period_fs

    def change_fs(self, type_: TensorType[Attribute], layout: LayoutAttr | None) -> int:
        """Another layout for a value: 0 where it has it already."""
        have, size = layout_of(type_), nn.tensor_bytes(type_)
        if have == layout:
            return 0
        if layout is None:
            return self.network_fs(size, 1)
        part = size
        for dim, shard in layout.cuts.items():
            part = -(-part * shard.max_local_size // max(1, type_.get_shape()[dim]))
        if have is None:
            return self.vector_fs(part // 2)
        if list(have.cuts) == list(layout.cuts):
            return self.network_fs(part, NEIGHBOURS)
        return self.network_fs(part, sum(r.parts for shard in layout.shards for r in shard.shard_rounds))

    def rows_pay(self, rows: int, features: int) -> bool:
        """Whether work row by row (a residual and a norm) on results that are cut by features is faster where the rows
        are cut over the cores than where every core has all of them, or whole ones take too much memory.
        """
        if 2 * rows * features > self.target.memory("activation").bytes // WHOLE_SHARE and rows > 1:
            return True
        part = -(-rows // self.cores)
        whole = self.network_fs(2 * rows * features, 1) + NORM_STEPS * self.vector_fs(rows * features)
        cut = self.network_fs(2 * part * features, self.cores) + NORM_STEPS * self.vector_fs(part * features)
        return cut < whole

    def bank_reads_fs(self, reads: int, columns: int) -> int:
        """Reads of ``columns`` columns of a row, one behind the other: two at a time, so that an activation hides in
        part under another's columns.
        """
        hbm = self.target.hbm
        return reads * (hbm.clocks("nRCDRD") // 2 + columns * hbm.clocks("nBL")) * hbm.clock_fs

    def gemm_times(self, loops: GemmLoops, kind: str = "systolic") -> tuple[int, int, int, int]:
        """Cycles of a tiled GEMM on a kind of unit: all together; of the unit, the DRAM, and the network alone."""
        target, layout, tiling = self.target, loops.layout, loops.tiling
        block = block_of(target, kind)
        width = tiling.slots * layout.outputs_per_slot
        rows, cols = min(tiling.rows, block.rows, loops.rows), min(width, block.columns)
        store = target.latency("vector" if kind == "vector" else "tcu_writeback")
        leave = store.busy_cycles(rows * cols) + store.pipeline
        parts = 1 if tiling.in_unit else loops.k_blocks
        if kind == "vector":
            product = self.product_fs(kind, rows, cols, layout.k) // target.clock.core_period_fs
        else:
            product = layout.k + parts * target.tcu.fill_cycles
        sums = product + (2 * parts - 1) * leave + loops.k_blocks * UNIT_CYCLES
        deep = -(-loops.rows // tiling.rows) * -(-min(tiling.rows, loops.rows) // block.rows)
        unit = deep * loops.output_blocks * loops.transfers * -(-width // block.columns) * sums
        first = self._transfer_cycles(loops, tiling.slots)
        once = loops.k_blocks * self._transfer_cycles(loops, layout.slots)
        dram = once if loops.resident else once * loops.row_blocks
        network = 0
        if loops.cut:
            again = 1 if loops.k_blocks == 1 else loops.output_blocks
            rate = target.latency("noc_message")
            network = rate.busy_cycles(again * loops.rows * layout.k * 2)
        if loops.resident or tiling.buffers == 1:
            return unit + dram + network, unit, dram, network
        gaps = loops.steps * (STEP_CYCLES + GAP_CYCLES * (4 - min(tiling.buffers, 3)) + 2 * leave * (parts > 1))
        exchange = loops.input_blocks * EXCHANGE_CYCLES if loops.cut else 0
        last = unit // loops.steps
        return max(first + unit, dram + gaps + last, network + last) + exchange, unit, dram, network

    def _transfer_cycles(self, loops: GemmLoops, slots: int) -> int:
        """The weights of so many slots for a block of K: what the banks take, or the core's instructions."""
        layout, banks = loops.layout, loops.layout.geometry.banks
        segments = slots * loops.chunks_per_block
        columns = min(loops.tiling.columns, layout.chunk_columns[0])
        reads = 1 if layout.ksplit in (1, layout.geometry.channels) else layout.groups
        issue = segments * (SEGMENT_CYCLES + banks * (BANK_CYCLES + reads * READ_CYCLES))
        return max(self.bank_reads_fs(segments * banks, columns) // self.target.clock.core_period_fs, issue)

    def gemm_fs(self, m: int, n: int, k: int, kind: str = "systolic") -> int:
        """``[m, k] x [k, n]`` cut over the cores by n: the longer of weight stream and products."""
        local = -(-n // self.cores)
        return max(self.product_fs(kind, m, local, k), self.stream_fs(local * k * 2))

    def product_fs(self, kind: str, rows: int, columns: int, depth: int) -> int:
        """A matrix product on the tensor or the vector unit of a core, its operands in local memory."""
        if kind == "vector":  # in pieces of K: operands to f32, for each row products with all columns, and their sums
            block = block_of(self.target, kind)
            wide, sums = self.target.latency("vector"), self.target.latency("vector_reduce")
            piece, across = min(depth, block.columns), min(columns, block.columns)
            row = across * (wide.busy_cycles(piece) + sums.busy_cycles(piece)) + 2 * wide.pipeline + sums.pipeline
            cycles = rows * (row + VECTOR_ROW_CYCLES) + (rows + across) * wide.busy_cycles(piece)
            pieces = -(-rows // block.rows) * VECTOR_PIECE_CYCLES + cycles
            times = -(-columns // block.columns) * -(-depth // block.columns)
            return times * pieces * self.target.clock.core_period_fs
        tcu = self.target.tcu
        steps = -(-rows // tcu.rows) * -(-columns // tcu.columns) * depth
        return (steps + tcu.fill_cycles) * self.target.clock.core_period_fs

    def pim_attention_fs(self, m: int, heads: int, head_dim: int, context: int) -> int:
        """Both products of attention on the SRAM-PIM units, the cache loaded once."""
        latency = self.target.latency("pim_gemv")
        rows = -(-2 * m * heads * context * head_dim // (self.cores * self.target.array.lanes))
        cycles = latency.busy_cycles(rows) + latency.pipeline
        return cycles * self.target.clock.core_period_fs

    def attention_round_fs(self, slots: int, share: int, head_dim: int, kind: str) -> int:
        """One round of cached attention of one token on a kind of unit: a core reads ``slots`` keys and values, and
        attends to them with ``share`` query heads.
        """
        work = {"vector_special": share * slots}
        tcu = self.target.tcu
        if kind == "sram_pim":
            work |= {"transpose": slots * head_dim, "pim_load": 4 * slots * head_dim}
            work |= {"pim_gemv": share * (slots + head_dim)}
        elif kind == "systolic":
            work |= {"tcu": -(-slots // tcu.columns) * head_dim + -(-head_dim // tcu.columns) * slots}
        else:
            work |= {"vector": 2 * (2 * share + 1) * slots * head_dim}
        cycles = ROUND_CYCLES + QUERY_HEAD_CYCLES * share
        cycles += sum(self.target.latency(name).busy_cycles(amount) for name, amount in work.items())
        return cycles * self.target.clock.core_period_fs + self.stream_fs(4 * slots * head_dim)

    def attention_rows_fs(self, rows: int, keys: int, head_dim: int) -> int:
        """Attention of ``rows`` queries of one head on the tensor unit, with softmax in blocks that fill it."""
        tcu, blocks = self.target.tcu, -(-rows // self.target.tcu.rows)
        unit = -(-keys // tcu.columns) * (head_dim + tcu.fill_cycles)
        unit += -(-head_dim // tcu.columns) * (keys + tcu.fill_cycles)
        work = {"vector_special": keys, "vector": 2 * keys + 3 * head_dim, "vector_reduce": 2 * keys}
        height = min(rows, tcu.rows)
        cycles = unit + sum(self.target.latency(name).busy_cycles(height * each) for name, each in work.items())
        return blocks * cycles * self.target.clock.core_period_fs

    def attention_fs(self, kind: str, m: int, heads: int, head_dim: int, context: int) -> int:
        """Both products of attention on a kind of unit, heads cut over the cores."""
        if kind == "sram_pim":
            return self.pim_attention_fs(m, heads, head_dim, context)
        products = self.product_fs(kind, m, context, head_dim) + self.product_fs(kind, m, head_dim, context)
        return -(-heads // self.cores) * products
