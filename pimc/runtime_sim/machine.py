"""A loaded machine: a program on a target, whose HBM lives as long as the object."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import InputError, TargetError, UninitialisedReadError, UsageError
from pimc.isa.program import LoadedProgram, Port
from pimc.isa.sram import SRAM_ISA
from pimc.runtime_sim.caches import check_positions, mark_filled
from pimc.runtime_sim.engine.records import CODE_STRIDE
from pimc.runtime_sim.engine.state import AGENT_MASK, EVENT_CORE, EVENT_PCH, HALTED, UNITS
from pimc.runtime_sim.event_loop import simulate
from pimc.runtime_sim.failure import Explainer
from pimc.runtime_sim.memories import TRACE_CAPACITY, Memories
from pimc.runtime_sim.results import DramTrace, Overflow, RunResult, RunStats, merged
from pimc.runtime_sim.run_limits import UNLIMITED, RunLimits
from pimc.targets import DRAM_COMMANDS, Target

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"f16": np.dtype("<f2"), "f32": np.dtype("<f4"), "i32": np.dtype("<i4")}
)


class Machine:
    """A program loaded on a simulated target, for one thread at a time (``pool`` has machines for several).

    ``functional``: move and compute data; without it, scalars, control, messages and all times stay exact but
    vectors, matrices and HBM content are not computed.  ``checks``: uninitialised reads and races (addresses are
    always checked).
    ``trace``: keep the DRAM commands of each run (True, or how many at most).
    """

    def __init__(
        self,
        program: LoadedProgram,
        target: Target,
        *,
        functional: bool = True,
        checks: bool = True,
        trace: bool | int = False,
    ) -> None:
        """Load the program's images.

        Raises TargetError where it does not fit the target, InputError where it has no weights and is to compute.
        """
        if functional:
            program.require_images()
        self._program, self._target = program, target
        if program.rows > target.hbm.rows:
            raise TargetError(f"the program needs {program.rows} rows a bank, the target has {target.hbm.rows}")
        kept = int(trace) if trace is not True else TRACE_CAPACITY
        self._memories = Memories(target, program.rows, functional=functional, checks=checks, trace=kept)
        self._functional, self._checks, self._kept = functional, checks, kept
        self._running = threading.Lock()
        self._codes: dict[str, tuple[dict[str, int], NDArray[np.int64]]] = {}
        self._load_images(functional)

    def sibling(self) -> Machine:
        """A machine in the same mode that shares this one's HBM; for programs that do not write it."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._memories = Memories(
            self._target, self._program.rows, functional=self._functional, checks=self._checks, trace=self._kept
        )
        copy._memories.share_hbm(self._memories)
        copy._running = threading.Lock()
        return copy

    @property
    def program(self) -> LoadedProgram:
        """The program that is loaded."""
        return self._program

    @property
    def target(self) -> Target:
        """The target that is simulated."""
        return self._target

    def _load_images(self, functional: bool) -> None:
        m = self._memories.figure
        ready = self.written_columns()
        columns = np.uint32((1 << m("columns")) - 1)
        absent = self._program.absent_images
        if absent is not None:
            # Nothing has contents here, the caches neither.
            ready[: absent.channels, : absent.rows] = columns
            for cache in self._program.caches:
                mark_filled(ready, (cache,), cache.positions, self._target)
        for p, image in self._program.images.items():
            expected = (m("banks"), m("row_bytes") // 2)
            if p >= m("pchs") or image.shape[1:] != expected or image.shape[0] > m("rows"):
                raise TargetError(
                    f"the image of pseudo-channel {p} has the shape {image.shape}, not [rows, {expected}]"
                )
            ready[p, : image.shape[0]] = columns
            if functional:
                self._memories.arrays["hbm"][p, : image.shape[0]] = image

    def assume_cache(self, positions: int) -> None:
        """Let the cache slots of the first ``positions`` positions count as written.

        What nothing has written is zeros.  Raises InputError where the program has no caches, or smaller ones.
        """
        check_positions(self._program.caches, positions)
        mark_filled(self.written_columns(), self._program.caches, positions, self._target)

    def written_columns(self) -> NDArray[np.uint32]:
        """Which columns hold something: uint32[pseudo-channels, rows, banks] with a bit a column (a view)."""
        m = self._memories.figure
        view: NDArray[np.uint32] = self._memories.arrays["column_init"].reshape(m("pchs"), m("rows"), m("banks"))
        return view

    def hbm_row(self, pch: int, row: int) -> NDArray[np.uint16]:
        """fp16 bits of a row in all banks, uint16[banks, elements] (a view; for tests and debugging)."""
        view: NDArray[np.uint16] = self._memories.arrays["hbm"][pch, row]
        return view

    def local_memory(self, core: int) -> NDArray[np.uint8]:
        """A core's local memory as the last run left it, uint8[bytes] (a view; for tests and debugging)."""
        view: NDArray[np.uint8] = self._memories.arrays["local"][core]
        return view

    def written(self, core: int) -> NDArray[np.bool_]:
        """Which fp16 of a core's local memory the last run's program has written, bool[elements]; needs checks."""
        epochs = self._memories.arrays["local_write"][core]
        written: NDArray[np.bool_] = (epochs != 0) & (epochs & AGENT_MASK != self._memories.figure("host"))
        return written

    def run(
        self, entry: str, inputs: Mapping[str, NDArray[Any]] | None = None, limits: RunLimits = UNLIMITED
    ) -> RunResult:
        """Run an entry with the host's inputs.

        Raises InputError for an unknown entry or a wrong input, UsageError where another thread runs this machine, and
        subclasses of SimError for what a program must not do (see docs/simulator.md) or where a limit is reached.
        """
        if entry not in self._program.entries:
            raise InputError(f"the program has no entry {entry!r}", hint=f"it has {', '.join(self._program.entries)}")
        if not self._running.acquire(blocking=False):
            raise UsageError("this machine runs already", hint="each thread needs a machine of its own")
        try:
            starts = self._put_code(entry)
            self._memories.reset()
            self._start_streams(entry, starts)
            self._write_inputs(entry, dict(inputs or {}))
            simulate(self._memories, limits, self._target.clock.core_period_fs, self._explainer(entry))
            return self._result(entry)
        finally:
            self._running.release()

    def _explainer(self, entry: str) -> Explainer:
        return Explainer(self._program, entry, self._memories)

    def _code(self, entry: str, kind: str) -> tuple[dict[str, int], NDArray[np.int64]]:
        """Start of each tensor's code in the concatenated code of an entry's cores or controllers, and that code."""
        key = f"{entry}/{kind}"
        if key not in self._codes:
            streams = self._program.entries[entry]
            names = sorted(set((streams.cores if kind == "core" else streams.groups).values()))
            starts: dict[str, int] = {}
            parts: list[NDArray[np.int64]] = []
            total = 0
            for name in names:
                decoded = self._program.decoded[name]
                starts[name] = total
                total += len(decoded.op)
                parts.append(np.column_stack([decoded.op.astype(np.int64), decoded.operands]))
            code = np.concatenate(parts) if parts else np.zeros((1, CODE_STRIDE), np.int64)
            self._codes[key] = (starts, code)
        return self._codes[key]

    def _put_code(self, entry: str) -> dict[str, int]:
        """Give the engine the code of an entry; returns where each tensor's begins."""
        starts: dict[str, int] = {}
        for kind in ("core", "hbm"):
            first, code = self._code(entry, kind)
            self._memories.put_code("core" if kind == "core" else "pch", code)
            starts |= first
        return starts

    def _start_streams(self, entry: str, starts: Mapping[str, int]) -> None:
        memories, streams = self._memories, self._program.entries[entry]
        heap, events = memories.arrays["heap"].reshape(-1, 3), []
        cores, pchs, per_tile = memories.arrays["cores"], memories.arrays["pchs"], memories.figure("per_tile")
        for kind, records, names in (("core", cores, streams.cores), ("pch", pchs, streams.groups)):
            for number in range(len(records)):
                name = names.get(number if kind == "core" else number // per_tile)
                if name is None:
                    records["state"][number] = HALTED
                    continue
                records["code"][number] = starts[name]
                records["length"][number] = len(self._program.decoded[name].op)
                records["scheduled"][number] = 1
                events.append((EVENT_CORE if kind == "core" else EVENT_PCH, number))
        for order, (event, number) in enumerate(events):
            heap[order] = (0, order << 8 | event, number)
        memories.record["heap_size"] = memories.record["sequence"] = len(events)

    def _write_inputs(self, entry: str, inputs: dict[str, NDArray[Any]]) -> None:
        local = self._memories.arrays["local"]
        host = self._memories.figure("host")
        for port in self._program.entries[entry].inputs:
            if port.name not in inputs:
                raise InputError(f"input {port.name!r} is missing", where=entry)
            flat = self._as_port(port, inputs.pop(port.name), entry)
            size = flat.dtype.itemsize
            for piece in port.pieces:
                data = flat[piece.offset : piece.offset + piece.count].view(np.uint8)
                local[piece.core, piece.address : piece.address + len(data)] = data
                if self._checks:
                    first = piece.address // 2
                    self._memories.arrays["local_write"][piece.core, first : first + piece.count * size // 2] = host
        if inputs:
            raise InputError(f"unknown input {sorted(inputs)[0]!r}", where=entry)

    @staticmethod
    def _as_port(port: Port, value: NDArray[Any], entry: str) -> NDArray[Any]:
        array = np.asarray(value)
        if array.shape != port.shape:
            raise InputError(f"input {port.name!r} has the shape {array.shape}, not {port.shape}", where=entry)
        return np.ascontiguousarray(array, DTYPES[port.dtype]).reshape(-1)

    def _read_output(self, port: Port, entry: str) -> NDArray[Any]:
        dtype = DTYPES[port.dtype]
        flat = np.zeros(port.elements, dtype)
        for piece in port.pieces:
            end = piece.address + piece.count * dtype.itemsize
            if self._checks:
                written = self._memories.arrays["local_write"][piece.core, piece.address // 2 : end // 2]
                if not written.all():
                    at = piece.address + 2 * int(np.argmin(written != 0))
                    raise UninitialisedReadError(
                        f"output {port.name!r}: nothing has written local memory of core {piece.core} at byte {at}",
                        where=entry,
                    )
            data = self._memories.arrays["local"][piece.core, piece.address : end]
            flat[piece.offset : piece.offset + piece.count] = data.view(dtype)
        return flat.reshape(port.shape)

    def _result(self, entry: str) -> RunResult:
        cores, pchs = self._memories.arrays["cores"], self._memories.arrays["pchs"]
        time = max(int(cores["end"].max()), int(pchs["end"].max()))
        stats = RunStats(
            unit_busy_fs={name: cores["unit_busy"][:, i].copy() for i, name in enumerate(UNITS)},
            instructions=cores["executed"].copy(),
            commands=pchs["executed"].copy(),
            dram_commands={name: pchs["commands"][:, i].copy() for i, name in enumerate(DRAM_COMMANDS)},
            hbm_bytes_read=pchs["bytes_read"].copy(),
            hbm_bytes_written=pchs["bytes_written"].copy(),
            mac_columns=pchs["mac_columns"].copy(),
            noc_bytes=cores["noc_bytes"].copy(),
            core_end_fs=cores["end"].copy(),
            pch_end_fs=pchs["end"].copy(),
            events=self._memories.figure("events"),
        )
        outputs = {port.name: self._read_output(port, entry) for port in self._program.entries[entry].outputs}
        cycles = -(-time // self._target.clock.core_period_fs)
        return RunResult(outputs, cycles, time, stats, self._trace(), self._overflows(entry))

    def _overflows(self, entry: str) -> tuple[Overflow, ...]:
        """What the instructions of the cores counted, by mnemonic and source operation, most first."""
        counts = self._memories.arrays["overflows"]
        if not counts.any():
            return ()
        found: list[Overflow] = []
        for tensor, first in self._code(entry, "core")[0].items():
            ops = self._program.decoded[tensor].op
            locations = self._program.locations.get(tensor)
            for pc in np.flatnonzero(counts[first : first + len(ops)]).tolist():
                mnemonic = SRAM_ISA.instructions[ops[pc]].mnemonic
                found.append(Overflow(mnemonic, locations.at(pc) if locations else None, int(counts[first + pc])))
        return merged(found)

    def _trace(self) -> DramTrace | None:
        capacity, size = self._memories.figure("trace_capacity"), self._memories.figure("trace_size")
        if not capacity:
            return None
        kept = self._memories.arrays["trace"][: min(size, capacity)]
        order = np.lexsort((kept["time"], kept["pch"]))
        columns = {name: kept[name][order] for name in ("pch", "time", "command", "row", "column")}
        group, bank = np.divmod(kept["bank"][order], self._target.hbm.banks_per_group)
        return DramTrace(**columns, bank_group=group, bank=bank, lost=max(0, size - capacity))
