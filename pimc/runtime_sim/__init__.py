"""The simulator: runs compiled programs on a target, instruction by instruction, with data and time.

The engine is imported on first use: the tools beside it (generator, trace checker) do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pimc.runtime_sim.results import DramTrace, RunResult, RunStats

if TYPE_CHECKING:
    from pimc.runtime_sim.machine import Machine

__all__ = ["DramTrace", "Machine", "RunResult", "RunStats"]


def __getattr__(name: str) -> object:
    """Import the engine when ``Machine`` is first asked for."""
    if name == "Machine":
        from pimc.runtime_sim.machine import Machine

        return Machine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
