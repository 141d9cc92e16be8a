"""Whether two sequences of a core's effects differ only in the order of instructions that do not touch each other.

Waits, signals, messages and halt keep their places; between two of them, the same instructions must stand, and every
two that have changed places must share no memory (unless both only read it).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from equivalence.memory import Accessor, Index, span
from equivalence.schedule import Machine
from equivalence.streams import Effect
from equivalence.terms import CONSTANTS, Terms
from equivalence.units import Core, execute
from pimc.isa.sram import SRAM_ISA

#: Effects that other agents notice.
FIXED = ("wait", "sigh", "hset", "halt", "nsend", "nsend2", "nmcast", "nmcast2")
#: Units with a memory of their own, and the transfers with HBM: two instructions on one of these never change places.
_OWN_MEMORY = ("pim", "tcu", "xfer")


@dataclass
class _Recorder:
    """In place of a local memory: remembers which cells are read and written."""

    size: int
    reads: list[Index] = field(default_factory=list)
    writes: list[Index] = field(default_factory=list)

    def read(self, at: Index, who: Accessor) -> Terms:
        """Any terms; the cells are noted."""
        self.reads.append(at)
        return np.broadcast_to(CONSTANTS[0], np.arange(self.size)[at].shape)

    def write(self, at: Index, terms: Terms, who: Accessor) -> None:
        """Only noted."""
        self.writes.append(at)


class _Footprint:
    """The local memory that an effect reads and writes, as sets of cells."""

    def __init__(self, machine: Machine, effect: Effect) -> None:
        self.unit = SRAM_ISA.instructions[SRAM_ISA.index[effect.mnemonic]].unit
        cells = machine.local_bytes // 2
        recorder = _Recorder(cells)
        if self.unit == "xfer":
            self._transfer(recorder, machine, effect)
        elif effect.mnemonic == "lw":
            recorder.reads.append(span(effect.values[1], 4))
        elif self.unit in _OWN_MEMORY:
            self._own(recorder, effect)
        else:
            execute(Core(0, recorder, machine, Accessor(0, np.zeros(1, np.int64), -1)), effect)  # type: ignore[arg-type]
        self.reads = self._set(recorder.reads, cells)
        self.writes = self._set(recorder.writes, cells)

    @staticmethod
    def _transfer(recorder: _Recorder, machine: Machine, effect: Effect) -> None:
        o = effect.named
        if effect.mnemonic == "hwr":
            recorder.reads.append(span(o["src"], o["n"]))
        elif effect.mnemonic == "hrd":
            recorder.writes.append(span(o["dst"], o["n"]))
        else:
            channels = o["pch_mask"].bit_count()
            recorder.writes.append(span(o["dst"], o["n"] * machine.column_bytes, o["pch_stride"], channels))

    @staticmethod
    def _own(recorder: _Recorder, effect: Effect) -> None:
        """The local operands of the PIM and tensor units."""
        o, name = effect.named, effect.mnemonic
        if name == "pimld":
            recorder.reads.append(span(o["a"], 2 * o["depth"], o["stride_a"], o["n"]))
        elif name.startswith("pimmv"):
            recorder.reads.append(span(o["x"], 2 * o["depth"]))
            if name.endswith("w"):
                recorder.writes.append(span(o["dst"], 2 * o["n"]))
        elif name in ("twb", "twb.f"):
            size = 4 if name == "twb.f" else 2
            recorder.writes.append(span(o["dst"], size * o["cols"], o["stride_c"], o["rows"]))
        elif name == "tld.f":
            recorder.reads.append(span(o["src"], 4 * o["cols"], o["stride_c"], o["rows"]))
        else:
            by_column = name.endswith("nk")
            recorder.reads.append(span(o["a"], 2 * o["depth"], o["stride_a"], o["rows"]))
            width, rows = (o["depth"], o["cols"]) if by_column else (o["cols"], o["depth"])
            recorder.reads.append(span(o["b"], 2 * width, o["stride_b"], rows))

    @staticmethod
    def _set(places: list[Index], cells: int) -> set[int]:
        every = np.arange(cells)
        return {int(cell) for at in places for cell in every[at]}

    def meets(self, other: _Footprint) -> bool:
        """Whether the order of the two matters."""
        if self.unit == other.unit and self.unit in _OWN_MEMORY:
            return True
        return bool(self.writes & (other.writes | other.reads) or self.reads & other.writes)


def only_commuted(machine: Machine, base: Sequence[Effect], changed: Sequence[Effect]) -> bool:
    """Whether ``changed`` is ``base`` but for the order of instructions that do not touch each other."""
    first, second = _segments(base), _segments(changed)
    if len(first) != len(second):
        return False
    return all(a == b or _segment_commuted(machine, a, b) for a, b in zip(first, second, strict=True))


def _segments(effects: Sequence[Effect]) -> list[list[Effect]]:
    """Each ends with an effect that keeps its place."""
    found: list[list[Effect]] = [[]]
    for effect in effects:
        found[-1].append(effect)
        if effect.mnemonic in FIXED:
            found.append([])
    return found


def _segment_commuted(machine: Machine, a: list[Effect], b: list[Effect]) -> bool:
    if Counter(a) != Counter(b) or (a[-1].mnemonic in FIXED and a[-1] != b[-1]):
        return False
    # The k-th of equal effects stays the k-th: places of b's effects in a.
    seen: Counter[Effect] = Counter()
    places: dict[tuple[Effect, int], int] = {}
    for place, effect in enumerate(a):
        places[effect, seen[effect]] = place
        seen[effect] += 1
    seen.clear()
    order = []
    for effect in b:
        order.append(places[effect, seen[effect]])
        seen[effect] += 1
    footprints: dict[int, _Footprint] = {}

    def footprint(place: int) -> _Footprint:
        if place not in footprints:
            footprints[place] = _Footprint(machine, a[place])
        return footprints[place]

    return not any(
        footprint(order[i]).meets(footprint(order[j]))
        for i in range(len(order))
        for j in range(i + 1, len(order))
        if order[i] > order[j]
    )
