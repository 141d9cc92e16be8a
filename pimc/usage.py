"""Where simulated time goes: how long each kind of unit was busy over one or more runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pimc.runtime_sim import RunResult
from pimc.targets import DramSpec, Target

BANK_MAC = "bank MAC"
_MAC = "MAC"


@dataclass
class Usage:
    """Busy time by kind of unit, femtoseconds, mean over its instances, and the time all runs took."""

    target: Target
    time_fs: int = 0
    busy_fs: dict[str, float] = field(default_factory=dict)

    def add(self, result: RunResult) -> None:
        """Add a run."""
        self.time_fs += result.time_fs
        for unit, busy in result.stats.unit_busy_fs.items():
            self._add(unit, float(busy.mean()))
        columns = float(result.stats.mac_columns.mean())
        self._add(BANK_MAC, columns * mac_period_fs(self.target.hbm))

    def shares(self) -> Mapping[str, float]:
        """Busy time over all time by kind of unit, greatest first; units work at the same time."""
        if not self.time_fs:
            return {}
        items = sorted(self.busy_fs.items(), key=lambda item: -item[1])
        return {unit: busy / self.time_fs for unit, busy in items if busy}

    def _add(self, unit: str, busy_fs: float) -> None:
        self.busy_fs[unit] = self.busy_fs.get(unit, 0.0) + busy_fs


def mac_period_fs(spec: DramSpec) -> int:
    """Time from one column MAC to the next in the same banks, femtoseconds."""
    periods = [
        spec.fs(constraint.latency)
        for constraint in spec.constraints
        if _MAC in constraint.preceding and _MAC in constraint.following and constraint.window <= 1
    ]
    return max(periods, default=spec.clock_fs)
