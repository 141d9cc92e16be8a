"""Every native array of the engine: its name, element type, size, and who touches it with what largest index.

This table is the one place that knows how much memory the instructions of a target can touch.  Allocation
(``memories``), the addresses in the machine record (``state``), the bound on memory (``limits``) and the guarded build
(``guard``) follow from it.  Sizes are functions of the figures of the machine record; compiled code may touch nothing
beyond them, which the checks of ``describe`` and ``commands`` see to, and which ``PIMC_GUARD=1`` proves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any, TypeAlias

import numpy as np

from pimc.runtime_sim.engine.records import (
    CODE_STRIDE,
    CORE,
    FLIGHT,
    FLIGHTS,
    K_BLOCK,
    MESSAGE,
    MESSAGES,
    PCH,
    QUEUE,
    REQUEST,
    SEMAPHORES,
    SIGNAL,
    SIGNALS,
    TRACE,
    TREE,
)

#: Figures of the machine record (``memories.figures``), by name.
Figures: TypeAlias = Mapping[str, int]
Shape: TypeAlias = tuple[int, ...]


class Life(Enum):
    """How long an array's content lasts."""

    GIVEN = "given with the program or the target, constant"
    MACHINE = "as long as the machine: nothing is read before it is written, or it stays from run to run"
    RUN = "a run: zeros at its start"


class Use(Enum):
    """In which modes an array is touched; in others it has one element."""

    ALWAYS = "always"
    DATA = "functional"
    CHECKS = "checks"


@dataclass(frozen=True)
class NativeArray:
    """An array whose address is the field ``{name}_at`` of the machine record."""

    name: str
    dtype: np.dtype[Any]
    shape: Callable[[Figures], Shape]
    touched: str
    life: Life = Life.RUN
    use: Use = Use.ALWAYS

    def size(self, figures: Figures) -> Shape:
        """Its shape for a target, a program and a mode."""
        used = self.use is Use.ALWAYS or figures[self.use.value]
        return self.shape(figures) if used else (1,)

    def bytes(self, figures: Figures) -> int:
        """How much memory it takes."""
        return prod(self.size(figures)) * self.dtype.itemsize


def _dtype(kind: type[np.generic] | np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(kind)


_I64, _I32, _U32, _U16, _U8, _F32 = (
    _dtype(kind) for kind in (np.int64, np.int32, np.uint32, np.uint16, np.uint8, np.float32)
)


def _elements(f: Figures) -> int:
    """Elements of the longest vector: fp16 of a whole local memory (describe: every range lies inside it)."""
    return f["local_bytes"] // 2


def _bank_rows(f: Figures) -> int:
    return f["pchs"] * f["rows"] * f["banks"]


def _constant(name: str, words: str, touched: str) -> NativeArray:
    return NativeArray(name, _I64, lambda f: (f[words],), touched, Life.GIVEN)


def _clock(name: str, rows: Callable[[Figures], int], touched: str) -> NativeArray:
    return NativeArray(name, _I32, lambda f: (rows(f), f["agents"]), f"vector clocks: {touched}", use=Use.CHECKS)


_TABLES = (
    *(
        _constant(name, "instructions", "any core, by instruction number")
        for name in ("op_class", "op_unit", "op_latency", "op_wide", "op_registers", "op_units", "op_rows")
    ),
    *(_constant(name, "latencies", "any unit, by latency model") for name in ("latency_rate", "latency_pipeline")),
    _constant("command_class", "commands", "any controller, by command number"),
    _constant("dram_tables", "dram_table_words", "dram.py, by the places in its header"),
    NativeArray(
        "core_code", _I64, lambda f: (f["core_words"], CODE_STRIDE), "a core: code + pc, pc < length", Life.GIVEN
    ),
    NativeArray(
        "pch_code", _I64, lambda f: (f["pch_words"], CODE_STRIDE), "a controller: code + pc, pc < length", Life.GIVEN
    ),
)

_AGENTS = (
    NativeArray("cores", CORE, lambda f: (f["cores"],), "core c"),
    NativeArray("pchs", PCH, lambda f: (f["pchs"],), "controller p"),
    NativeArray("flights", FLIGHT, lambda f: (f["cores"] * FLIGHTS,), "core c, slot < FLIGHTS"),
    NativeArray("staging", FLIGHT, lambda _: (1,), "the instruction under consideration"),
    NativeArray("messages", MESSAGE, lambda f: (f["cores"] * MESSAGES,), "sender c, message number % MESSAGES"),
    NativeArray("signals", SIGNAL, lambda _: (SIGNALS,), "signal slots that signal_list hands out"),
    NativeArray("signal_list", _I64, lambda _: (SIGNALS,), "signals_free < SIGNALS"),
    NativeArray("queue", REQUEST, lambda f: (f["pchs"] * QUEUE,), "controller p, entry % QUEUE"),
    NativeArray(
        "heap",
        _I64,
        lambda f: (3 * f["heap_capacity"],),
        "three words an event, heap_size < heap_capacity",
        Life.MACHINE,
    ),
    NativeArray("trace", TRACE, lambda f: (max(f["trace_capacity"], 1),), "trace_size < trace_capacity", Life.MACHINE),
    NativeArray(
        "dram_state", _I64, lambda f: (f["pchs"], f["dram_state_words"]), "dram.py, controller p, places of its tables"
    ),
)

_DATA = (
    NativeArray(
        "hbm", _U16, lambda f: (f["pchs"], f["rows"], f["banks"], f["row_bytes"] // 2),
        "transfers, rd, wr, mac: row < rows, bank < banks, column + count <= columns", Life.MACHINE, Use.DATA,
    ),
    NativeArray("column_init", _U32, lambda f: (_bank_rows(f),), "as hbm, a bit a column", Life.MACHINE),
    NativeArray("local", _U8, lambda f: (f["cores"], f["local_bytes"]), "every range of describe and local_range"),
    NativeArray(
        "payload", _U8, lambda f: (f["cores"], f["payload_bytes"]),
        "messages: noc.room keeps them below payload_bytes; the longest is local_bytes (describe_message)",
        Life.MACHINE,
    ),
    NativeArray(
        "array", _U16, lambda f: (f["cores"], f["array_rows"], f["lanes"]),
        "pimld: row + n <= array_rows, lane + depth <= lanes; pimmv: whole blocks of TREE lanes below depth <= lanes",
        use=Use.DATA,
    ),
    NativeArray("pim_acc", _F32, lambda f: (f["cores"], f["array_rows"]), "pimmv: n <= array_rows", use=Use.DATA),
    NativeArray(
        "tcu_acc", _F32, lambda f: (f["cores"], f["tcu_rows"] * f["tcu_columns"]),
        "tmm, twb, tld: rows <= tcu_rows, cols <= tcu_columns", use=Use.DATA,
    ),
    NativeArray(
        "buffer", _F32, lambda f: (f["pchs"], f["buffer_columns"] * f["column_lanes"]),
        "wrgb, mac: column + count <= buffer_columns", use=Use.DATA,
    ),
    NativeArray(
        "results", _F32, lambda f: (f["pchs"], f["banks"], f["result_registers"]),
        "mac, rdres: result + count <= result_registers", use=Use.DATA,
    ),
    NativeArray(
        "scratch_a", _F32, lambda f: (max(_elements(f), f["lanes"], K_BLOCK),),
        "vectors: n elements; trans: rows * cols halves; pimmv: the input, lanes; tmm: K_BLOCK elements of a row of A",
        Life.MACHINE, Use.DATA,
    ),
    NativeArray(
        "scratch_b", _F32, lambda f: (max(_elements(f), K_BLOCK * f["tcu_columns"], f["vcu_lanes"], TREE // 2),),
        "vectors: n elements; tmm: K_BLOCK rows of B of tcu_columns; reductions: vcu_lanes partial sums; pimmv: TREE "
        "halves of a last block", Life.MACHINE, Use.DATA,
    ),
    NativeArray("overflows", _I64, lambda f: (f["core_words"],), "as core_code: code + pc", use=Use.DATA),
    NativeArray("scratch_c", _F32, lambda f: (_elements(f),), "results of vectors: n elements", Life.MACHINE,
                Use.DATA),
)  # fmt: skip

_INITIALISED = (
    NativeArray("buffer_init", _U8, lambda f: (f["pchs"], f["buffer_columns"]), "as buffer, a byte a column"),
    NativeArray("results_init", _U8, lambda f: (f["pchs"], f["result_registers"]), "as results, for all banks"),
    NativeArray(
        "array_init", _U8, lambda f: (f["cores"], f["array_rows"], f["lanes"]), "as array", use=Use.CHECKS
    ),
    NativeArray("pim_acc_init", _U8, lambda f: (f["cores"], f["array_rows"]), "as pim_acc", use=Use.CHECKS),
    NativeArray(
        "tcu_acc_init", _U8, lambda f: (f["cores"], f["tcu_rows"] * f["tcu_columns"]), "as tcu_acc", use=Use.CHECKS
    ),
)  # fmt: skip

_RACES = (
    NativeArray(
        "local_write", _I64, lambda f: (f["cores"], f["elements"]), "as local, an epoch an fp16", use=Use.CHECKS
    ),
    NativeArray(
        "local_read", _I64, lambda f: (f["cores"], f["slots"], f["elements"]),
        "as local_write, for each kind of reader (slot < slots)", use=Use.CHECKS,
    ),
    NativeArray(
        "local_flags", _U32, lambda f: (f["cores"], f["blocks"]), "blocks of elements of local_write", use=Use.CHECKS
    ),
    *(
        NativeArray(name, _I64, lambda f: (_bank_rows(f),), "as hbm, an epoch a row of a bank", use=Use.CHECKS)
        for name in ("row_write", "row_stream", "row_dma")
    ),
    _clock("clock", lambda f: f["agents"], "agents"),
    _clock("flight_clock", lambda f: f["cores"] * FLIGHTS, "instructions in flight, as flights"),
    _clock("message_clock", lambda f: f["cores"] * MESSAGES, "as messages"),
    _clock("signal_clock", lambda _: SIGNALS, "as signals"),
    _clock("core_sem_clock", lambda f: f["cores"] * SEMAPHORES, "semaphores of core c"),
    _clock("pch_sem_clock", lambda f: f["pchs"] * SEMAPHORES, "semaphores of controller p"),
)  # fmt: skip

#: Every native array, by name.
ARRAYS: Mapping[str, NativeArray] = {
    array.name: array for array in (*_TABLES, *_AGENTS, *_DATA, *_INITIALISED, *_RACES)
}
