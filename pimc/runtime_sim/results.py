"""What a run returns: outputs, time and statistics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
#: Operations that a message names.
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class DramTrace:
    """DRAM commands of all pseudo-channels, by pseudo-channel and time; parallel int64 arrays.

    Start ``time`` in femtoseconds, ``command`` indexes ``pimc.targets.DRAM_COMMANDS``, ``bank`` is the number in its
    bank group.  ``lost``: commands that did not fit the trace.
    """

    pch: Int64Array
    time: Int64Array
    command: Int64Array
    bank_group: Int64Array
    bank: Int64Array
    row: Int64Array
    column: Int64Array
    lost: int = 0

    def of_pch(self, pch: int) -> dict[str, Int64Array]:
        """The commands of one pseudo-channel, as ``checker.check_trace`` takes them."""
        mine = self.pch == pch
        return {
            "time_fs": self.time[mine],
            "cmd": self.command[mine],
            "bank_group": self.bank_group[mine],
            "bank": self.bank[mine],
            "row": self.row[mine],
            "col": self.column[mine],
        }


@dataclass(frozen=True, eq=False)
class RunStats:
    """Counts of a run.

    ``unit_busy_fs``: by unit, int64[cores].  ``instructions``: int64[cores] dispatched; ``commands``: int64[pchs]
    stream commands.  ``dram_commands``: by DRAM command, int64[pchs].  ``hbm_bytes_read``/``_written``: external
    transfers, int64[pchs].  ``mac_columns``: int64[pchs], column MACs (each in every bank).  ``noc_bytes``:
    int64[cores], delivered, by sender.  ``core_end_fs``/``pch_end_fs``: when each stream halted.  ``events``: events
    processed.
    """

    unit_busy_fs: Mapping[str, Int64Array]
    instructions: Int64Array
    commands: Int64Array
    dram_commands: Mapping[str, Int64Array]
    hbm_bytes_read: Int64Array
    hbm_bytes_written: Int64Array
    mac_columns: Int64Array
    noc_bytes: Int64Array
    core_end_fs: Int64Array
    pch_end_fs: Int64Array
    events: int


@dataclass(frozen=True)
class Overflow:
    """Results of an operation that left the range of their type though its operands were finite.

    ``instruction``: its mnemonic; ``source``: the operation of the model, where the binary has it; ``count``: elements
    """

    instruction: str
    source: str | None
    count: int

    def __str__(self) -> str:
        return f"{self.instruction}{f' of {self.source}' if self.source else ''}: {self.count:,}"


def merged(*results: Iterable[Overflow]) -> tuple[Overflow, ...]:
    """Overflows of several runs, those of the same operation added up, most first."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for overflow in chain.from_iterable(results):
        counts[overflow.instruction, overflow.source] += overflow.count
    return tuple(Overflow(instruction, source, count) for (instruction, source), count in counts.most_common())


def overflow_message(overflows: Sequence[Overflow]) -> str:
    """One sentence for people: how many results, and of which operations (the first few)."""
    shown = "; ".join(str(overflow) for overflow in overflows[:_SHOWN])
    more = f"; and {len(overflows) - _SHOWN} more operations" if len(overflows) > _SHOWN else ""
    total = sum(overflow.count for overflow in overflows)
    results = "1 result" if total == 1 else f"{total:,} results"
    return f"{results} left the range of fp16 though the operands were finite: {shown}{more}"


@dataclass(frozen=True, eq=False)
class RunResult:
    """Outputs by port name, the time from start until every stream has halted, statistics and trace.

    ``overflows``: what left the range of fp16 (of fp32, for fp32 results) though the operands were finite, most first.

    ``str`` of it is short; :meth:`summary` says more.
    """

    outputs: Mapping[str, NDArray[Any]]
    cycles: int
    time_fs: int
    stats: RunStats
    trace: DramTrace | None = None
    overflows: tuple[Overflow, ...] = ()

    def __repr__(self) -> str:
        return f"<RunResult {self.cycles:,} cycles{''.join(f', {line}' for line in self._shapes())}>"

    def summary(self) -> str:
        """What the run took and where its time went, in a few lines: cycles and time, the share of it that each kind of
        unit was busy (mean over the cores, greatest first; units work at the same time), memory traffic, outputs.
        """
        stats = self.stats
        lines = [f"{self.cycles:,} cycles, {self.time_fs / 1e9:,.2f} us simulated"]
        busy = {unit: float(times.mean()) / self.time_fs for unit, times in stats.unit_busy_fs.items() if self.time_fs}
        shares = [f"{unit} {share:.1%}" for unit, share in sorted(busy.items(), key=lambda item: -item[1]) if share]
        lines.append(f"busy: {', '.join(shares) or 'nothing'}")
        lines.append(f"instructions: {int(stats.instructions.sum()):,}; commands: {int(stats.commands.sum()):,}")
        read, written = int(stats.hbm_bytes_read.sum()), int(stats.hbm_bytes_written.sum())
        lines.append(f"HBM: {read:,} bytes read, {written:,} written, {int(stats.mac_columns.sum()):,} column MACs")
        lines.append(f"NoC: {int(stats.noc_bytes.sum()):,} bytes")
        lines += [f"overflow: {overflow}" for overflow in self.overflows]
        return "\n".join([*lines, *(f"output {line}" for line in self._shapes())])

    def _shapes(self) -> list[str]:
        return [
            f"{name}: {'x'.join(map(str, array.shape)) or 'scalar'} {array.dtype}"
            for name, array in self.outputs.items()
        ]
