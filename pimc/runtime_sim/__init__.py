"""The simulator: runs compiled programs on a target, instruction by instruction, with data and time."""

from pimc.runtime_sim.machine import Machine
from pimc.runtime_sim.results import DramTrace, RunResult, RunStats

__all__ = ["DramTrace", "Machine", "RunResult", "RunStats"]
