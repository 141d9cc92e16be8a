"""The engine's state: one record that every function takes, and views of the arrays behind it.

The record (:data:`MACHINE`) holds figures of the target and the addresses of the big arrays, so that a call passes one
pointer; the Python side (``memories.py``) allocates the arrays and keeps them alive.  Times are femtoseconds.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pimc.runtime_sim.engine.arrays import ARRAYS
from pimc.runtime_sim.engine.intrinsics import make_view
from pimc.runtime_sim.engine.jit import inline
from pimc.runtime_sim.engine.records import (
    CORE,
    FLIGHT,
    FLIGHTS,
    MESSAGE,
    PCH,
    QUEUE,
    REQUEST,
    SIGNAL,
    TRACE,
)

#: A numba record (one element of an array of MACHINE, CORE, ...); mypy cannot see its fields.
Record: TypeAlias = Any
Int32Array: TypeAlias = NDArray[np.int32]
FloatArray: TypeAlias = NDArray[np.float32]

UNITS = ("scu", "vcu", "tcu", "pim", "trans", "xfer", "noc")
SCU, VCU, TCU, PIM, TRANS, XFER, NOC = range(7)

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
    "signal_fs", "transfer_latency", "clock_fs", "refresh_fs", "buffer_columns", "loop_depth",
    # mode
    "functional", "checks", "tracing",
    # event queue
    "time", "sequence", "heap_size", "heap_capacity", "events", "event_kind", "event_argument", "effort", "progress",
    # signals
    "signals_free",
    # race checker
    "agents", "host", "first_pch", "first_dma", "first_noc",
    # error
    "error", "error_agent", "error_pc", "error_address", "error_other", "error_a", "error_b", "error_stream",
    # trace
    "trace_size", "trace_capacity",
    # sizes of arrays
    "instructions", "commands", "latencies", "core_words", "pch_words", "payload_bytes", "elements", "blocks", "slots",
    "dram_groups", "dram_group_banks", "dram_table_words", "dram_state_words",
)  # fmt: skip
#: The machine record: figures, and the address of every native array.
MACHINE = np.dtype([(name, "i8") for name in (*_FIELDS, *(f"{name}_at" for name in ARRAYS))])

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
