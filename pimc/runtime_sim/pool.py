"""Machines for several threads: each run has one to itself.

A program that writes HBM leaves its results there for the next run (KV caches), so its runs share one machine, one
after the other.  One that does not has as many machines as threads run it, up to the number of processors; they share
the HBM that all of them only read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pimc.diagnostics import SimError, UsageError
from pimc.isa.program import STREAM_ISAS, LoadedProgram
from pimc.runtime_sim.forking import renew_in_child
from pimc.runtime_sim.machine import Machine

#: Semantics of the instructions that write HBM: transfers of the cores, commands of the controllers.
_WRITES = frozenset({"hwr", "wr"})


def writes_hbm(program: LoadedProgram) -> bool:
    """Whether a run of the program can leave something in HBM."""
    for tensor, code in program.decoded.items():
        instructions = STREAM_ISAS[tensor.split("/")[2]].instructions
        writing = [number for number, each in enumerate(instructions) if each.semantics in _WRITES]
        if any((code.op == number).any() for number in writing):
            return True
    return False


class MachinePool:
    """The machines of one program in one mode."""

    def __init__(self, first: Machine) -> None:
        """``first``: the machine of a program that writes HBM; else the one whose HBM the others share.

        ``keeps_state`` says which.
        """
        self.first = first
        self.keeps_state = writes_hbm(first.program)
        self._torn = False
        self._running: set[int] = set()
        self._idle = [first]
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """At the start and in a forked process, where machines that other threads ran stay as they are."""
        self._torn |= self.keeps_state and bool(self._running)
        self._running = set()
        self._places = threading.Semaphore(1 if self.keeps_state else os.cpu_count() or 1)

    @contextmanager
    def borrowed(self) -> Iterator[Machine]:
        """A machine that no other thread runs; waits for one.

        Raises:
            UsageError: this thread has one already, so that it would wait for ever.
            SimError: the process was forked in the middle of a run, and the program keeps its state in HBM.
        """
        if self._torn:
            raise SimError(
                "this process was forked while another thread ran the program: its HBM holds half of a run",
                hint="call reset(), or fork between runs",
            )
        me = threading.get_ident()
        if me in self._running:
            raise UsageError("a run was started from inside a run of the same executable, by its on_progress")
        with self._places:
            self._running.add(me)
            machine = self._take()
            try:
                yield machine
            finally:
                self._idle.append(machine)
                self._running.discard(me)

    def _take(self) -> Machine:
        try:
            return self._idle.pop()
        except IndexError:
            return self.first.sibling()
