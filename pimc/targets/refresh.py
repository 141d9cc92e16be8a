"""Whether a DRAM's refresh leaves time for anything else."""

from __future__ import annotations

from pimc.diagnostics import TargetError
from pimc.targets.dram_spec import DramSpec

_INTERVAL = "nREFI"


def check_refresh(spec: DramSpec, where: str) -> None:
    """Raise :class:`TargetError` for refreshes that fall due faster than the DRAM can do them.

    What is owed then grows faster than it is paid, and a program that waits for a bank never ends.  An interval of 0
    means no refresh.
    """
    interval = spec.timing.get(_INTERVAL, 0)
    for constraint in spec.constraints:
        if "REF" in constraint.preceding and "REF" in constraint.following:
            needed = spec.clocks(constraint.latency)
            if 0 < interval <= needed:
                raise TargetError(
                    f"a refresh falls due every {interval} clocks and takes {needed} ({constraint.latency}): it would "
                    "take all the time",
                    where=f"{where}: hbm.timing.{_INTERVAL}",
                    hint=f"{_INTERVAL} must be above {constraint.latency}, or 0 for no refresh",
                )
