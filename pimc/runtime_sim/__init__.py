"""The simulator: runs compiled programs on a target, instruction by instruction, with data and time.

The engine is imported on first use: the tools beside it (generator, trace checker) do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pimc.runtime_sim.results import DramTrace, RunResult, RunStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from pimc.runtime_sim.machine import Machine

__all__ = ["DramTrace", "Machine", "RunResult", "RunStats", "prepare"]


def prepare(on_progress: Callable[[float | None], None] | None = None) -> None:
    """Load the compiled simulator, or compile it (once, about a minute); the first run does this, too.

    ``on_progress`` is called only where it has to be compiled, a few times a second, with the part that is done, from
    0 to 1, or None while another process compiles it.
    """
    from pimc.runtime_sim.engine.loop import run_events

    run_events.prepare(on_progress)


def __getattr__(name: str) -> object:
    """Import the engine when ``Machine`` is first asked for."""
    if name == "Machine":
        from pimc.runtime_sim.machine import Machine

        return Machine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
