"""The event loop."""

from __future__ import annotations

import numpy as np
from numba import from_dtype, int64
from numpy.typing import NDArray

from pimc.runtime_sim.engine import controller, core
from pimc.runtime_sim.engine.heap import pop
from pimc.runtime_sim.engine.jit import entry_point
from pimc.runtime_sim.engine.noc import head_arrives, tail_arrives
from pimc.runtime_sim.engine.signals import deliver
from pimc.runtime_sim.engine.state import (
    EVENT_CORE,
    EVENT_HEAD,
    EVENT_PCH,
    EVENT_SIGNAL,
    EVENT_TAIL,
    FLIGHTS,
    MACHINE,
)
from pimc.runtime_sim.engine.transfers import arrived

_core_step = core.step
_controller_step = controller.step


@entry_point(from_dtype(MACHINE)[::1], int64)
def run_events(machine: NDArray[np.void], limit: int) -> bool:
    """Process up to ``limit`` events; True when none is left or an error has been noted."""
    m = machine[0]
    for _ in range(limit):
        if m.heap_size == 0 or m.error:
            return True
        time, kind, argument = pop(m)
        m.time = time
        m.events += 1
        if kind == EVENT_CORE:
            _core_step(m, argument)
        elif kind == EVENT_PCH:
            _controller_step(m, argument)
        elif kind == EVENT_HEAD:
            head_arrives(m, argument // m.cores, argument % m.cores)
        elif kind == EVENT_TAIL:
            tail_arrives(m, argument // m.cores, argument % m.cores)
        elif kind == EVENT_SIGNAL:
            deliver(m, argument)
        else:
            arrived(m, argument // FLIGHTS, argument % FLIGHTS)
    return False
