"""Memories of terms that notice accesses which nothing orders.

An *epoch* is a component of the vector clocks and its count when an access happened. An access is ordered after an
earlier one if its own clock covers the earlier epoch. Components: the cores and controllers (agents), the transfer
engine of every core, and every pair of cores that exchange messages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equivalence.schedule import Machine
from equivalence.streams import CannotTellError
from equivalence.terms import Terms

Clock = NDArray[np.int64]
Index = slice | NDArray[np.int64]

_SHIFT = np.int64(32)
_COUNT = np.int64((1 << 32) - 1)


@dataclass(frozen=True)
class Components:
    """Numbers of the components of a vector clock."""

    machine: Machine

    @property
    def size(self) -> int:
        """How many there are."""
        return self.machine.agents + self.machine.cores * (1 + self.machine.cores)

    def transfers(self, core: int) -> int:
        """The transfer engine of a core."""
        return self.machine.agents + core

    def messages(self, sender: int, receiver: int) -> int:
        """The messages of one core to another."""
        return self.machine.agents + self.machine.cores * (1 + sender) + receiver


@dataclass
class Accessor:
    """Who accesses: its component, its clock, and where its reads are noted (``slot``; -1: not a reader here).

    ``partner``: a component that the scoreboard orders with this one; its news are learnt on contact.
    """

    component: int
    clock: Clock
    slot: int
    partner: int = -1
    what: str = ""


def span(low: int, size: int, stride: int = 0, rows: int = 1) -> Index:
    """The 16-bit cells of ``rows`` runs of ``size`` bytes, ``stride`` bytes apart."""
    if rows <= 0 or size <= 0:
        return slice(0, 0)
    if rows == 1 or stride == size:
        return slice(low >> 1, (low + size * rows) >> 1)
    return ((low >> 1) + np.arange(rows)[:, None] * (stride >> 1) + np.arange(size >> 1)).reshape(-1)


@dataclass
class Cells:
    """The local memory of a core: terms with epochs.

    ``reads`` notes reads by slot, ``readers`` is the component of each slot.
    """

    terms: Terms
    writes: NDArray[np.int64]
    reads: NDArray[np.int64]
    readers: NDArray[np.int64]

    def read(self, at: Index, who: Accessor) -> Terms:
        """The terms of cells, all of which must have been written before."""
        terms = self.terms[at]
        if not terms.all():
            raise CannotTellError(f"{who.what}: reads what nothing has written")
        _check(self.writes[at], who)
        if who.slot >= 0:
            self.reads[who.slot, at] = who.clock[who.component]
        return terms

    def write(self, at: Index, terms: Terms, who: Accessor) -> None:
        """Set the terms of cells; every earlier access must be ordered."""
        _check(self.writes[at], who)
        counts = self.reads[:, at]
        if counts.any():
            _check(counts | (self.readers << _SHIFT)[:, None], who)
        self.terms[at] = terms
        self.writes[at] = np.int64(who.component) << _SHIFT | who.clock[who.component]


def _check(epochs: NDArray[np.int64], who: Accessor) -> None:
    """Each epoch must be covered by the clock of ``who``, or be its own."""
    components, counts = epochs >> _SHIFT, epochs & _COUNT
    late = counts > who.clock[components]
    if not late.any():
        return
    late &= components != who.component
    partner = late & (components == who.partner)
    if partner.any():
        who.clock[who.partner] = max(who.clock[who.partner], counts[partner].max())
        late &= ~partner
    if late.any():
        raise CannotTellError(f"{who.what}: nothing orders it with an earlier access of another agent")


class LocalMemories:
    """The local memories of a run of cores."""

    def __init__(self, machine: Machine, components: Components, cores: range) -> None:
        """Nothing is written.  Reads are noted for a core, its transfer engine, and its controllers."""
        cells, slots = machine.local_bytes // 2, 2 + machine.channels
        self._cores = cores
        self._terms = np.zeros((len(cores), cells), np.uint64)  # UNWRITTEN
        self._writes = np.zeros((len(cores), cells), np.int64)
        self._reads = np.zeros((slots, len(cores), cells), np.int64)
        self._readers = np.array(
            [
                [core, components.transfers(core), *(machine.controller(core, q) for q in range(machine.channels))]
                for core in cores
            ],
            np.int64,
        ).T

    def of(self, core: int) -> Cells:
        """The memory of one core (views)."""
        at = core - self._cores.start
        return Cells(self._terms[at], self._writes[at], self._reads[:, at], self._readers[:, at])

    def broadcast(self, cores: range, at: Index, terms: Terms, who: Accessor) -> None:
        """Write the same cells of several cores, ``who.component`` + i being the component that writes the i-th.

        Cores that are not held are left out.
        """
        held = range(max(cores.start, self._cores.start), min(cores.stop, self._cores.stop))
        if not held:
            return
        chosen = slice(held.start - self._cores.start, held.stop - self._cores.start)
        own = (who.component + np.arange(held.start - cores.start, held.stop - cores.start, dtype=np.int64))[:, None]
        _check_each(self._writes[chosen, at], own, who)
        counts = self._reads[:, chosen, at]
        if counts.any():
            _check_each(counts | (self._readers[:, chosen] << _SHIFT)[:, :, None], own, who)
        self._terms[chosen, at] = terms
        self._writes[chosen, at] = own << _SHIFT | who.clock[who.component]


def _check_each(epochs: NDArray[np.int64], own: NDArray[np.int64], who: Accessor) -> None:
    """As :func:`_check`, with a component of its own for every core (last dimension but one) and no partner."""
    components, counts = epochs >> _SHIFT, epochs & _COUNT
    if ((counts > who.clock[components]) & (components != own)).any():
        raise CannotTellError(f"{who.what}: nothing orders it with an earlier access at a receiver")
