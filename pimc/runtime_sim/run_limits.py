"""Limits of a run that its user sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pimc.diagnostics import UsageError


@dataclass(frozen=True)
class RunLimits:
    """When a run is stopped, and who is told how far it is.

    ``max_cycles``: simulated cycles that it may take.  ``timeout``: seconds of wall time that simulating it may take
    (compiling the simulator, once, is not counted).  ``on_progress``: told the simulated cycles so far, some 20 times a
    second; what it raises ends the run.  ``spent_cycles``, ``spent_s``: what runs before have taken of the same limits.
    """

    max_cycles: int | None = None
    timeout: float | None = None
    on_progress: Callable[[int], None] | None = None
    spent_cycles: int = 0
    spent_s: float = 0.0

    def __post_init__(self) -> None:
        """Raise UsageError for a limit that is none."""
        if self.max_cycles is not None and self.max_cycles < 0:
            raise UsageError(f"max_cycles is {self.max_cycles}, which is negative")
        if self.timeout is not None and not (self.timeout >= 0 and math.isfinite(self.timeout)):
            raise UsageError(f"timeout is {self.timeout}, which is not a number of seconds of at least 0")

    def reached(self, cycles: int, seconds: float) -> str | None:
        """Words for a run that has taken more than it may; None where it may go on."""
        cycles += self.spent_cycles
        seconds += self.spent_s
        if self.max_cycles is not None and cycles > self.max_cycles:
            return f"stopped at the limit of {self.max_cycles} cycles (max_cycles), after {seconds:.1f} s"
        if self.timeout is not None and seconds > self.timeout:
            return f"stopped at the limit of {self.timeout:g} seconds (timeout), after {cycles} cycles"
        return None


UNLIMITED: Final = RunLimits()
