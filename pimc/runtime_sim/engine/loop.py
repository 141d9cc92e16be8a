"""The event loop."""

from __future__ import annotations

import numpy as np
from numba import from_dtype, int64
from numpy.typing import NDArray

from pimc.runtime_sim.engine import controller, core
from pimc.runtime_sim.engine.errors import STREAM_CORE, TIME, fail
from pimc.runtime_sim.engine.heap import pop
from pimc.runtime_sim.engine.jit import entry_point
from pimc.runtime_sim.engine.noc import head_arrives, tail_arrives
from pimc.runtime_sim.engine.records import EFFORT_LIMIT, FLIGHTS, TIME_LIMIT
from pimc.runtime_sim.engine.signals import deliver
from pimc.runtime_sim.engine.state import EVENT_CORE, EVENT_HEAD, EVENT_PCH, EVENT_SIGNAL, EVENT_TAIL, MACHINE
from pimc.runtime_sim.engine.transfers import arrived

_core_step = core.step
_controller_step = controller.step


@entry_point(from_dtype(MACHINE)[::1], int64)
def run_events(machine: NDArray[np.void], limit: int) -> bool:
    """Process up to ``limit`` events; True when none is left or an error has been noted.

    Returns earlier, False, when the events have been much work: about 0.1 s at the latest.  How the events are
    divided over calls makes no difference to a run.
    """
    m = machine[0]
    done = 0
    for _ in range(limit):
        if m.heap_size == 0 or m.error:
            return True
        if done > EFFORT_LIMIT:
            return False
        time, kind, argument = pop(m)
        m.time, m.event_kind, m.event_argument = time, kind, argument
        m.events += 1
        if time >= TIME_LIMIT:
            fail(m, TIME, STREAM_CORE, 0, 0, TIME_LIMIT, 0)
            return True
        m.effort = 0
        m.progress += int(kind != EVENT_CORE)
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
        done += m.effort
    return False
