"""Sizes that the ISA or this implementation fixes, and the records of the engine's state."""

from __future__ import annotations

import numpy as np

# -- sizes fixed by the ISA or by this implementation ---------------------------------------------------------------
MAX_OPERANDS = 8
CODE_STRIDE = 1 + MAX_OPERANDS  # op, operands
FLIGHTS = 32  # instructions in flight a core
MESSAGES = 64  # NoC messages in flight a sender
SIGNALS = 8192  # signals on their way
SEMAPHORES = 32  # semaphores of an agent
REGISTERS, CONFIGS = 32, 32  # scalar and configuration registers of a core
RANGES = 4  # memory ranges of an instruction
ADDRESSES = 3  # operands with rows of a vector instruction: dst, a, and b or s
WINDOW = 2  # DMA pieces a controller has open at once
QUEUE = 64  # requests a controller's queue can hold (the target's depth is at most that)
BLOCK_SHIFT = 5  # elements of a block of the race checker's summary, as a shift
K_BLOCK = 256  # steps of k that the tensor unit's model converts at once; no effect on results
TREE = 16  # products that an adder tree sums: the lanes of a column, and of a block of a PIM array row

# -- bounds of one instruction's work, so that every event of the engine is short -----------------------------------
ROWS_LIMIT = 1 << 18  # rows of a strided operand
BYTES_LIMIT = 1 << 27  # bytes that an operand touches, overlapping rows counted each time
MACS_LIMIT = 1 << 30  # multiply-accumulates of the tensor unit
EFFORT_LIMIT = 1 << 25  # work after which the event loop returns to Python, in about a nanosecond each
TIME_LIMIT = 1 << 60  # femtoseconds of a run (19 minutes); what one event adds stays far below 2**62
CLOCK_LIMIT = 1 << 26  # signals and messages of an agent in a run with checks (its clock in an epoch has 27 bits)

CORE = np.dtype(
    [
        (name, "i8")
        for name in (
            "pc", "state", "scheduled", "code", "length", "waiting", "needed", "outstanding", "executed", "end",
            "ejection_free", "message_next", "message_oldest", "payload_next", "dma_clock", "noc_clock",
            "dma_next", "dma_oldest", "noc_bytes", "blocked_flight", "message_free", "injection_free",
            "turns", "loads", "looks", "patience", "seen_pc", "seen_loads", "seen_progress", "idle_since",
        )
    ]
    + [
        ("regs", "i8", (REGISTERS,)),
        ("ready", "i8", (REGISTERS,)),
        ("cfg", "i8", (CONFIGS,)),
        ("seen_regs", "i8", (REGISTERS,)),
        ("seen_cfg", "i8", (CONFIGS,)),
        ("sem", "i8", (SEMAPHORES,)),
        ("unit_free", "i8", (7,)),
        ("unit_busy", "i8", (7,)),
    ]
)  # fmt: skip

FLIGHT = np.dtype(
    [(name, "i8") for name in ("active", "unit", "finish", "pc", "op", "ranges", "work", "pending", "order", "repeat")]
    + [("step", "i8", (ADDRESSES,))]
    + [(name, "i8", (RANGES,)) for name in ("space", "mode", "low", "size", "stride", "rows", "down")]
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
        ("sem", "i8", (SEMAPHORES,)),
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
