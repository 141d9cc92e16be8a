"""The arrays behind the engine's state record: sizes, allocation, addresses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import TargetError
from pimc.runtime_sim import dram
from pimc.runtime_sim.engine.state import (
    BLOCK_SHIFT,
    CORE,
    FLIGHT,
    FLIGHTS,
    MACHINE,
    MESSAGE,
    MESSAGES,
    PCH,
    QUEUE,
    REQUEST,
    SIGNAL,
    SIGNALS,
    TRACE,
)
from pimc.runtime_sim.tables import instruction_tables
from pimc.targets import Target

AnyArray = NDArray[Any]
#: Commands kept of a trace.
TRACE_CAPACITY = 1 << 22
_HEAP = 1 << 17


def check_target(target: Target) -> None:
    """Raise :class:`TargetError` for a target beyond the engine's fixed sizes."""
    limits = (
        ("cores.count", target.cores.count, 1024),
        ("hbm.pch_count", target.hbm.pch_count, 2048),
        ("hbm columns a row", target.hbm.columns, 32),
        ("transfer.queue_depth", target.transfer.queue_depth, min(QUEUE, FLIGHTS)),
        ("hbm banks", target.hbm.banks, 64),
    )
    for name, value, limit in limits:
        if value > limit:
            raise TargetError(f"{name} is {value}, the simulator takes up to {limit}")
    if target.hbm.column_bytes != 32 or target.pim_unit.lanes % 16:
        raise TargetError("the simulator takes columns of 32 bytes and PIM rows of a multiple of 16 lanes")
    if 3 * target.cores.count + target.hbm.pch_count + 1 > 4095:
        raise TargetError("too many cores and pseudo-channels for the race checker")


def figures(target: Target, rows: int) -> dict[str, int]:
    """The scalar fields of the machine record that the target and the program give."""
    hbm, cores, period = target.hbm, target.cores.count, target.clock.core_period_fs
    elements = target.local_bytes // 2
    names = [latency.name for latency in target.latencies]
    first_pch = cores
    first_dma = first_pch + hbm.pch_count
    first_noc = first_dma + cores
    return {
        "cores": cores, "groups": cores, "pchs": hbm.pch_count, "per_tile": target.pchs_per_core,
        "local_bytes": target.local_bytes, "array_rows": target.pim_unit.rows, "lanes": target.pim_unit.lanes,
        "tcu_rows": target.tcu.rows, "tcu_columns": target.tcu.columns, "period": period,
        "vcu_lanes": target.vcu.lanes,
        "special_lanes": target.vcu.special_lanes, "macro_groups": target.pim_unit.macro_groups,
        "noc_columns": target.noc.columns, "noc_rate": target.noc.bytes_per_cycle,
        "noc_hop": (target.noc.hop_cycles + target.noc.router_cycles) * period,
        "noc_injection": target.noc.injection_cycles * period, "transfer_depth": target.transfer.queue_depth,
        "transfer_latency": names.index("hbm_transfer"),
        "banks": hbm.banks, "bank_groups": hbm.bank_groups, "columns": hbm.columns, "row_bytes": hbm.row_bytes,
        "column_bytes": hbm.column_bytes, "column_lanes": hbm.column_bytes // 2, "rows": rows,
        "result_registers": hbm.pu.result_registers, "queue_depth": hbm.controller.queue_depth,
        "signal_fs": hbm.controller.signal_cycles * period, "clock_fs": hbm.clock_fs,
        "buffer_columns": target.memory("global_buffer").bytes // hbm.column_bytes,
        "loop_depth": hbm.controller.loop_depth, "heap_capacity": _HEAP,
        "agents": first_noc + cores + 1, "host": first_noc + cores, "first_pch": first_pch,
        "first_dma": first_dma, "first_noc": first_noc, "elements": elements,
        "blocks": (elements >> BLOCK_SHIFT) + 1, "slots": 2 + target.pchs_per_core,
        "payload_bytes": 2 * target.local_bytes + 64,
    }  # fmt: skip


class Memories:
    """Named arrays and the machine record that points to them; the record is valid as long as this object lives."""

    def __init__(self, target: Target, rows: int, *, functional: bool, checks: bool, trace: int) -> None:
        """Arrays for a target and a program of ``rows`` rows a bank; ``trace``: DRAM commands kept, 0 for no trace."""
        check_target(target)
        self.record: NDArray[np.void] = np.zeros(1, MACHINE)
        self.arrays: dict[str, AnyArray] = {}
        self._target, self._checks, self._functional = target, checks, functional
        for name, value in figures(target, rows).items():
            self.record[name] = value
        self.record["functional"], self.record["checks"] = functional, checks
        self.record["tracing"], self.record["trace_capacity"] = trace > 0, trace
        for name, table in instruction_tables(target).items():
            self._put(name, table)
        self._dram_tables()
        m = self.figure
        banks = m("pchs") * rows * m("banks")
        self._zeros("hbm", (m("pchs"), rows, m("banks"), m("row_bytes") // 2) if functional else (1,), np.uint16)
        self._zeros("column_init", (banks,), np.uint32)
        self._zeros("trace", (max(trace, 1),), TRACE)
        self._zeros("heap", (3 * _HEAP,), np.int64)
        scratch = max(m("local_bytes") // 2 + 1024, 256 * m("tcu_columns"))
        for name in ("scratch_a", "scratch_b", "scratch_c"):
            self._zeros(name, (scratch,), np.float32)

    def figure(self, name: str) -> int:
        """A field of the machine record."""
        return int(self.record[name][0])

    def _put(self, name: str, array: AnyArray) -> None:
        array = np.ascontiguousarray(array)
        self.arrays[name] = array
        self.record[f"{name}_at"] = array.ctypes.data

    def _zeros(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:  # noqa: ANN401
        self._put(name, np.zeros(shape, dtype))

    def share_hbm(self, other: Memories) -> None:
        """Have the HBM of ``other``, which must be of the same sizes, instead of an own one."""
        for name in ("hbm", "column_init"):
            self._put(name, other.arrays[name])

    def put_code(self, name: str, code: NDArray[np.int64]) -> None:
        """Set the decoded code of the cores (``core_code``) or controllers (``pch_code``)."""
        self._put(name, code)

    def _dram_tables(self) -> None:
        tables = dram.build_tables(self._target.hbm)
        self._put("dram_tables", tables)
        self.record["dram_table_words"] = tables.size
        self.record["dram_groups"] = self._target.hbm.bank_groups
        self.record["dram_group_banks"] = self._target.hbm.banks_per_group
        self.record["refresh_fs"] = dram.refresh_interval(tables)

    def reset(self) -> None:
        """Everything but code and HBM content as at the start of a run."""
        m = self.figure
        cores, pchs, agents = m("cores"), m("pchs"), m("agents")
        self._zeros("cores", (cores,), CORE)
        self._zeros("pchs", (pchs,), PCH)
        self._zeros("flights", (cores * FLIGHTS,), FLIGHT)
        self._zeros("staging", (1,), FLIGHT)
        self._zeros("messages", (cores * MESSAGES,), MESSAGE)
        self._zeros("signals", (SIGNALS,), SIGNAL)
        self._put("signal_list", np.arange(SIGNALS, dtype=np.int64))
        self._zeros("queue", (pchs * QUEUE,), REQUEST)
        self._zeros("local", (cores, m("local_bytes")), np.uint8)
        self._zeros("payload", (cores, m("payload_bytes")), np.uint8)
        self._zeros("array", (cores, m("array_rows"), m("lanes")), np.uint16)
        self._zeros("pim_acc", (cores, m("array_rows")), np.float32)
        self._zeros("tcu_acc", (cores, m("tcu_rows") * m("tcu_columns")), np.float32)
        self._zeros("buffer", (pchs, m("buffer_columns") * m("column_lanes")), np.float32)
        self._zeros("results", (pchs, m("banks"), m("result_registers")), np.float32)
        self._zeros("buffer_init", (pchs, m("buffer_columns")), np.uint8)
        self._zeros("results_init", (pchs, m("result_registers")), np.uint8)
        checked = int(self._checks)
        self._zeros("array_init", (checked * cores * m("array_rows") * m("lanes") + 1,), np.uint8)
        self._zeros("pim_acc_init", (cores, m("array_rows")), np.uint8)
        self._zeros("tcu_acc_init", (cores, m("tcu_rows") * m("tcu_columns")), np.uint8)
        self._zeros("local_write", (checked * cores * m("elements") + 1,), np.int64)
        self._zeros("local_read", (checked * cores * m("slots") * m("elements") + 1,), np.int64)
        self._zeros("local_flags", (checked * cores * m("blocks") + 1,), np.uint8)
        banks = pchs * m("rows") * m("banks")
        for name in ("row_write", "row_stream", "row_dma"):
            self._zeros(name, (checked * banks + 1,), np.int64)
        self._zeros("flight_clock", (cores * FLIGHTS if checked else 1, agents), np.int32)
        self._zeros("message_clock", (cores * MESSAGES if checked else 1, agents), np.int32)
        self._zeros("signal_clock", (SIGNALS if checked else 1, agents), np.int32)
        self._zeros("core_sem_clock", (cores * 32 if checked else 1, agents), np.int32)
        self._zeros("pch_sem_clock", (pchs * 32 if checked else 1, agents), np.int32)
        clock = np.zeros((agents, agents), np.int32)
        np.fill_diagonal(clock[:-1], 1)  # the host's clock stays 0: what it wrote is before everything
        self._put("clock", clock)
        self._dram_state()
        for name in ("time", "sequence", "heap_size", "events", "error", "error_address", "error_other", "trace_size"):
            self.record[name] = 0
        self.record["signals_free"] = SIGNALS

    def _dram_state(self) -> None:
        state = dram.new_state(self._target.hbm)
        self._put("dram_state", state)
        self.record["dram_state_words"] = state.shape[1]
        self.arrays["pchs"]["next_refresh"] = self.figure("refresh_fs")
        self.arrays["pchs"]["open_row"] = -1
