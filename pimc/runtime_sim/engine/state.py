"""The engine's state: one record that every function takes, and views of the arrays behind it.

The record (:data:`MACHINE`) holds figures of the target and the addresses of the big arrays, so that a call passes one
pointer; the Python side (``machine.py``) allocates the arrays and keeps them alive.  Times are femtoseconds.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pimc.runtime_sim.engine.intrinsics import make_view
from pimc.runtime_sim.engine.jit import inline

#: A numba record (one element of an array of MACHINE, CORE, ...); mypy cannot see its fields.
Record: TypeAlias = Any
Int32Array: TypeAlias = NDArray[np.int32]
FloatArray: TypeAlias = NDArray[np.float32]

# -- sizes fixed by the ISA or by this implementation ---------------------------------------------------------------
UNITS = ("scu", "vcu", "tcu", "pim", "trans", "xfer", "noc")
SCU, VCU, TCU, PIM, TRANS, XFER, NOC = range(7)
MAX_OPERANDS = 8
CODE_STRIDE = 1 + MAX_OPERANDS  # op, operands
FLIGHTS = 32  # instructions in flight a core
MESSAGES = 64  # NoC messages in flight a sender
SIGNALS = 8192  # signals on their way
RANGES = 4  # memory ranges of an instruction
WINDOW = 2  # DMA pieces a controller has open at once
QUEUE = 64  # requests a controller's queue can hold (the target's depth is at most that)
BLOCK_SHIFT = 5  # elements of a block of the race checker's summary, as a shift

# -- memory spaces of ranges ----------------------------------------------------------------------------------------
LOCAL, ARRAY, HBM, ACCUMULATOR = range(4)
READ, WRITE, ACCUMULATE = range(3)

# -- states of agents -----------------------------------------------------------------------------------------------
RUNNING, WAIT_SEMAPHORE, WAIT_TRANSFER, WAIT_MESSAGE, HALTED = range(5)

# -- kinds of events ------------------------------------------------------------------------------------------------
EVENT_CORE, EVENT_PCH, EVENT_HEAD, EVENT_TAIL, EVENT_SIGNAL, EVENT_TRANSFER = range(6)

# -- signals --------------------------------------------------------------------------------------------------------
SIGNAL_TO_GROUP, SIGNAL_TO_CORE, SIGNAL_REGISTER = range(3)

#: Time of something whose end is not known yet.
PENDING = 2**62

# -- epochs of the race checker: clock << 36 | pc << 12 | agent; 0 is "never" ----------------------------------------
PC_SHIFT = 12
CLOCK_SHIFT = 36
AGENT_MASK = 0xFFF
PC_MASK = 0xFFFFFF

_FIELDS = (
    # target
    "cores", "groups", "pchs", "per_tile", "local_bytes", "array_rows", "lanes", "tcu_rows", "tcu_columns",
    "period", "vcu_lanes", "special_lanes", "macro_groups",
    "noc_columns", "noc_rate", "noc_hop", "noc_injection", "transfer_depth",
    "banks", "bank_groups", "columns", "row_bytes", "column_bytes", "column_lanes", "rows", "result_registers",
    "queue_depth", "signal_fs", "transfer_latency", "clock_fs", "refresh_fs", "buffer_columns", "loop_depth",
    # mode
    "functional", "checks", "tracing",
    # event queue
    "time", "sequence", "heap_size", "heap_capacity", "events",
    # signals
    "signals_free",
    # race checker
    "agents", "host", "first_pch", "first_dma", "first_noc",
    # error
    "error", "error_agent", "error_pc", "error_address", "error_other", "error_a", "error_b", "error_stream",
    # trace
    "trace_size", "trace_capacity",
    # arrays
    "heap_at", "cores_at", "pchs_at", "flights_at", "staging_at", "messages_at", "signals_at", "signal_list_at",
    "queue_at", "core_code_at", "pch_code_at", "op_class_at", "op_unit_at", "op_latency_at", "op_wide_at",
    "op_registers_at", "latency_rate_at", "latency_pipeline_at",
    "local_at", "array_at", "array_init_at", "pim_acc_at", "pim_acc_init_at", "tcu_acc_at", "tcu_acc_init_at",
    "hbm_at", "column_init_at", "buffer_at", "buffer_init_at", "results_at", "results_init_at",
    "scratch_a_at", "scratch_b_at", "scratch_c_at", "payload_at", "payload_bytes",
    "clock_at", "flight_clock_at", "message_clock_at", "signal_clock_at", "core_sem_clock_at", "pch_sem_clock_at",
    "local_write_at", "local_read_at", "local_flags_at", "elements", "blocks", "slots",
    "row_write_at", "row_stream_at", "row_dma_at",
    "dram_groups", "dram_group_banks", "dram_tables_at", "dram_table_words", "dram_state_at", "dram_state_words",
    "trace_at",
    "command_class_at", "op_units_at",
)  # fmt: skip
MACHINE = np.dtype([(name, "i8") for name in _FIELDS])

CORE = np.dtype(
    [
        (name, "i8")
        for name in (
            "pc", "state", "scheduled", "code", "length", "waiting", "needed", "outstanding", "executed", "end",
            "ejection_free", "message_next", "message_oldest", "payload_next", "dma_clock", "noc_clock",
            "dma_next", "dma_oldest", "noc_bytes", "blocked_flight", "message_free", "injection_free",
        )
    ]
    + [
        ("regs", "i8", (32,)),
        ("ready", "i8", (32,)),
        ("cfg", "i8", (16,)),
        ("sem", "i8", (32,)),
        ("unit_free", "i8", (7,)),
        ("unit_busy", "i8", (7,)),
    ]
)  # fmt: skip

FLIGHT = np.dtype(
    [(name, "i8") for name in ("active", "unit", "finish", "pc", "op", "ranges", "work", "pending", "order")]
    + [(name, "i8", (RANGES,)) for name in ("space", "mode", "low", "size", "stride", "rows")]
    + [("value", "i8", (MAX_OPERANDS,)), ("data_end", "i8")]
)

PCH = np.dtype(
    [
        (name, "i8")
        for name in (
            "pc", "state", "scheduled", "code", "length", "now", "next_refresh", "open_row", "done", "last_row_command",
            "turn", "quota", "queue_head", "queue_size", "window", "depth", "executed", "waiting", "needed", "end",
            "bytes_read", "bytes_written", "mac_columns", "stale_until", "clock_row_checked",
        )
    ]
    + [
        ("regs", "i8", (32,)),
        ("reg_write", "i8", (32,)),
        ("reg_read", "i8", (32,)),
        ("sem", "i8", (32,)),
        ("loop_start", "i8", (64,)),
        ("loop_left", "i8", (64,)),
        ("commands", "i8", (16,)),
    ]
    + [
        (f"w_{name}", "i8", (WINDOW,))
        for name in ("active", "bank", "row", "column", "left", "low", "high", "local", "write", "core",
                     "flight", "last")
    ]
)  # fmt: skip

REQUEST = np.dtype(
    [(name, "i8") for name in ("write", "low", "high", "local", "core", "flight", "cursor", "left", "block")]
)
MESSAGE = np.dtype(
    [
        (name, "i8")
        for name in ("active", "sender", "pc", "size", "rows", "dst", "stride", "sem", "payload", "left", "clock")
    ]
)
SIGNAL = np.dtype([(name, "i8") for name in ("kind", "where", "index", "value", "agent", "pc")])
TRACE = np.dtype([(name, "i8") for name in ("time", "pch", "command", "bank", "row", "column")])

view_i64 = make_view(np.int64)
view_i32 = make_view(np.int32)
view_u32 = make_view(np.uint32)
view_u16 = make_view(np.uint16)
view_u8 = make_view(np.uint8)
view_f32 = make_view(np.float32)
_view_core = make_view(CORE)
_view_pch = make_view(PCH)
_view_flight = make_view(FLIGHT)
_view_request = make_view(REQUEST)
_view_message = make_view(MESSAGE)
_view_signal = make_view(SIGNAL)
_view_trace = make_view(TRACE)

CORE_BYTES = CORE.itemsize
PCH_BYTES = PCH.itemsize
FLIGHT_BYTES = FLIGHT.itemsize
REQUEST_BYTES = REQUEST.itemsize
MESSAGE_BYTES = MESSAGE.itemsize
SIGNAL_BYTES = SIGNAL.itemsize
TRACE_BYTES = TRACE.itemsize


@inline
def core_of(m: Record, c: int) -> Record:
    """Record of core ``c``."""
    return _view_core(m.cores_at + c * CORE_BYTES, 1)[0]


@inline
def pch_of(m: Record, p: int) -> Record:
    """Record of pseudo-channel controller ``p``."""
    return _view_pch(m.pchs_at + p * PCH_BYTES, 1)[0]


@inline
def flight_of(m: Record, c: int, slot: int) -> Record:
    """Record of slot ``slot`` of core ``c``'s instructions in flight."""
    return _view_flight(m.flights_at + (c * FLIGHTS + slot) * FLIGHT_BYTES, 1)[0]


@inline
def staging_of(m: Record) -> Record:
    """Record that holds the instruction under consideration."""
    return _view_flight(m.staging_at, 1)[0]


@inline
def request_of(m: Record, p: int, index: int) -> Record:
    """Entry ``index`` (modulo the ring) of the request queue of controller ``p``."""
    return _view_request(m.queue_at + (p * QUEUE + index % QUEUE) * REQUEST_BYTES, 1)[0]


@inline
def message_of(m: Record, slot: int) -> Record:
    """Record of a NoC message: slot = sender * MESSAGES + number % MESSAGES."""
    return _view_message(m.messages_at + slot * MESSAGE_BYTES, 1)[0]


@inline
def signal_of(m: Record, slot: int) -> Record:
    """Record of a signal on its way."""
    return _view_signal(m.signals_at + slot * SIGNAL_BYTES, 1)[0]


@inline
def trace_of(m: Record, index: int) -> Record:
    """Record of the DRAM command trace."""
    return _view_trace(m.trace_at + index * TRACE_BYTES, 1)[0]


@inline
def clock_place(address: int, m: Record, row: int) -> int:
    """Machine address of vector clock ``row`` (int32[agents]) of a table of vector clocks."""
    return address + row * m.agents * 4
