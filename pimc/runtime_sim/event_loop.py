"""A run from its first event to its end: limits, interrupts and progress between portions of the engine's work."""

from __future__ import annotations

import time

from pimc.runtime_sim.engine import guard
from pimc.runtime_sim.engine.loop import run_events
from pimc.runtime_sim.failure import Explainer
from pimc.runtime_sim.memories import Memories
from pimc.runtime_sim.run_limits import RunLimits

#: Events of the first portion, and of the greatest; seconds that a portion should take: an interrupt from the keyboard,
#: a limit and progress are seen between two portions.
_FIRST, _MOST = 1 << 10, 1 << 22
_PORTION_S = 0.05


def simulate(memories: Memories, limits: RunLimits, period_fs: int, explainer: Explainer) -> None:
    """Process the events of a run until none is left.

    Raises subclasses of SimError: what the program did wrong, a deadlock, or RunLimitError.
    """
    run_events.prepare()
    began = before = time.monotonic()
    portion = _FIRST
    while not _process(memories, portion, explainer):
        now = time.monotonic()
        cycles = memories.figure("time") // period_fs
        reached = limits.reached(cycles, now - began)
        if reached is not None:
            raise explainer.stopped(reached)
        if limits.on_progress is not None:
            limits.on_progress(cycles)
        portion = _next(portion, now - before)
        before = time.monotonic()
    if memories.figure("error"):
        raise explainer.error()
    stuck = explainer.deadlock()
    if stuck is not None:
        raise stuck
    reached = limits.reached(-(-_end(memories) // period_fs), 0.0)
    if reached is not None:
        raise explainer.stopped(reached)


def _process(memories: Memories, portion: int, explainer: Explainer) -> bool:
    """Process up to ``portion`` events; True when none is left or an error has been noted."""
    try:
        return run_events(memories.record, portion)
    except IndexError:  # raised by the guarded build only
        raise explainer.broken(guard.explain()) from None


def _next(portion: int, seconds: float) -> int:
    """Events of the next portion, when one has taken ``seconds``."""
    factor = min(2.0, _PORTION_S / max(seconds, 1e-6))
    return max(1, min(_MOST, int(portion * factor)))


def _end(memories: Memories) -> int:
    """When the last stream has halted, femtoseconds."""
    return max(int(memories.arrays["cores"]["end"].max()), int(memories.arrays["pchs"]["end"].max()))
