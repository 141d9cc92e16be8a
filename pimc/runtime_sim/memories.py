"""The arrays behind the engine's state record: allocation, addresses, content at the start of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import TargetError
from pimc.isa.hbm import HBM_ISA
from pimc.isa.sram import SRAM_ISA
from pimc.runtime_sim import dram
from pimc.runtime_sim.engine import guard
from pimc.runtime_sim.engine.arrays import ARRAYS, Life, NativeArray, Shape
from pimc.runtime_sim.engine.records import BLOCK_SHIFT, FLIGHTS, MESSAGES, SIGNALS
from pimc.runtime_sim.engine.state import MACHINE
from pimc.runtime_sim.limits import LANE_BLOCK, check_memory, check_target
from pimc.runtime_sim.tables import instruction_tables
from pimc.targets import Target

AnyArray = NDArray[Any]
#: Commands kept of a trace.
TRACE_CAPACITY = 1 << 22
#: Events outstanding at once, at most: beyond, a run ends with an error.
EVENTS = 1 << 22


def figures(target: Target, rows: int) -> dict[str, int]:
    """The scalar fields of the machine record that the target and the program give."""
    hbm, cores, period = target.hbm, target.cores.count, target.clock.core_period_fs
    elements = target.local_bytes // 2
    first_pch = cores
    first_dma = first_pch + hbm.pch_count
    first_noc = first_dma + cores
    # an event for each core, controller, signal, transfer, and message at each receiver
    events = cores + hbm.pch_count + SIGNALS + cores * FLIGHTS * target.pchs_per_core + cores * MESSAGES * cores
    return {
        "cores": cores, "groups": cores, "pchs": hbm.pch_count, "per_tile": target.pchs_per_core,
        "local_bytes": target.local_bytes, **_array_figures(target),
        "tcu_rows": target.tcu.rows, "tcu_columns": target.tcu.columns, "period": period,
        "vcu_lanes": target.vcu.lanes,
        "special_lanes": target.vcu.special_lanes,
        "noc_columns": target.noc.columns, "noc_rate": target.noc.bytes_per_cycle,
        "noc_hop": (target.noc.hop_cycles + target.noc.router_cycles) * period,
        "noc_injection": target.noc.injection_cycles * period, "transfer_depth": target.transfer.queue_depth,
        "transfer_latency": target.latencies.index(target.latency("hbm_transfer")),
        "banks": hbm.banks, "bank_groups": hbm.bank_groups, "columns": hbm.columns, "row_bytes": hbm.row_bytes,
        "column_bytes": hbm.column_bytes, "column_lanes": hbm.column_bytes // 2, "rows": rows,
        **_bank_figures(target),
        "signal_fs": hbm.controller.signal_cycles * period, "clock_fs": hbm.clock_fs,
        "loop_depth": hbm.controller.loop_depth, "heap_capacity": min(events, EVENTS),
        "agents": first_noc + cores + 1, "host": first_noc + cores, "first_pch": first_pch,
        "first_dma": first_dma, "first_noc": first_noc, "elements": elements,
        "blocks": (elements >> BLOCK_SHIFT) + 1, "slots": 2 + target.pchs_per_core,
        "payload_bytes": 2 * target.local_bytes + 64, "dram_groups": hbm.bank_groups,
        "dram_group_banks": hbm.banks_per_group, "instructions": len(SRAM_ISA.instructions),
        "commands": len(HBM_ISA.instructions), "latencies": len(target.latencies), "core_words": 1, "pch_words": 1,
    }  # fmt: skip


def _array_figures(target: Target) -> dict[str, int]:
    """Of the SRAM-PIM unit; a machine without it runs no instruction of it, and gets the least that arrays may have."""
    unit = target.pim_unit
    if unit is None:
        return {"array_rows": 1, "lanes": LANE_BLOCK, "macro_groups": 1}
    return {"array_rows": unit.rows, "lanes": unit.lanes, "macro_groups": unit.macro_groups}


def _bank_figures(target: Target) -> dict[str, int]:
    """Of the units in the banks; likewise."""
    if target.hbm.pu is None:
        return {"result_registers": 1, "buffer_columns": 1}
    columns = target.memory("global_buffer").bytes // target.hbm.column_bytes
    return {"result_registers": target.hbm.pu.result_registers, "buffer_columns": columns}


class Memories:
    """Named arrays and the machine record that points to them; the record is valid as long as this object lives.

    Raises :class:`TargetError` for a target and a program beyond the limits (``limits``).
    """

    def __init__(self, target: Target, rows: int, *, functional: bool, checks: bool, trace: int) -> None:
        """Arrays for a target and a program of ``rows`` rows a bank; ``trace``: DRAM commands kept, 0 for no trace."""
        check_target(target)
        self.record: NDArray[np.void] = np.zeros(1, MACHINE)
        self.arrays: dict[str, AnyArray] = {}
        self._target = target
        tables = dram.build_tables(target.hbm)
        self._figures = {
            **figures(target, rows),
            "functional": int(functional),
            "checks": int(checks),
            "tracing": int(trace > 0),
            "trace_capacity": trace,
            "dram_table_words": tables.size,
            "dram_state_words": dram.state_words(tables),
            "refresh_fs": dram.refresh_interval(tables),
        }
        check_memory(self._figures)
        for name, value in self._figures.items():
            self.record[name] = value
        self._give("dram_tables", tables)
        for name, table in instruction_tables(target).items():
            self._give(name, table)
        self._allocate(Life.MACHINE)

    def figure(self, name: str) -> int:
        """A field of the machine record."""
        return int(self.record[name][0])

    def _put(self, name: str, array: AnyArray) -> None:
        self.arrays[name] = array
        self.record[f"{name}_at"] = array.ctypes.data

    def _allocate(self, life: Life) -> None:
        """New arrays of zeros, in the sizes of the table."""
        for array in ARRAYS.values():
            if array.life is life:
                self._put(array.name, self._zeros(array, array.size(self._figures)))

    def share_hbm(self, other: Memories) -> None:
        """Have the HBM of ``other``, which must be of the same sizes, instead of an own one."""
        for name in ("hbm", "column_init"):
            self._put(name, other.arrays[name])

    @staticmethod
    def _zeros(array: NativeArray, shape: Shape) -> AnyArray:
        try:
            return guard.zeros(array.name, shape, array.dtype) if guard.GUARDED else np.zeros(shape, array.dtype)
        except (MemoryError, OSError):
            raise TargetError(
                f"this computer does not give the simulator {shape} elements of {array.dtype} for {array.name}",
                hint="without data (timing only) and without checks it takes less",
            ) from None

    def _give(self, name: str, content: AnyArray) -> None:
        """An array with content from the program or the target."""
        array = ARRAYS[name]
        assert content.shape == array.size(self._figures), name
        kept = np.ascontiguousarray(content, array.dtype)
        if guard.GUARDED:
            kept = self._zeros(array, content.shape)
            kept[...] = content
        self._put(name, kept)

    def put_code(self, kind: str, code: NDArray[np.int64]) -> None:
        """Set the decoded code of the cores (``core``) or controllers (``pch``): int64[words, CODE_STRIDE].

        To be called before :meth:`reset`: what is counted by instruction has the size of the code.
        """
        self._figures[f"{kind}_words"] = len(code)
        self._give(f"{kind}_code", code)

    def reset(self) -> None:
        """Everything but code and HBM content as at the start of a run."""
        self._allocate(Life.RUN)
        self.arrays["signal_list"][:] = np.arange(SIGNALS)
        if self.figure("checks"):
            np.fill_diagonal(self.arrays["clock"][:-1], 1)  # the host's stays 0: what it wrote is before everything
        self.arrays["dram_state"][...] = dram.new_state(self._target.hbm)
        self.arrays["pchs"]["next_refresh"] = self.figure("refresh_fs")
        self.arrays["pchs"]["open_row"] = -1
        for name in (
            "time", "sequence", "heap_size", "events", "event_kind", "event_argument", "effort", "error",
            "error_address", "error_other", "trace_size",
        ):  # fmt: skip
            self.record[name] = 0
        self.record["signals_free"] = SIGNALS
        self.record["progress"] = 1
