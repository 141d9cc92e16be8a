"""Where the wall time of a command goes, stage by stage, with nothing left over.

A stage's time is what it takes itself, without the stages inside it; so the times add up to the whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_REST = "other"


class Timings:
    """A clock that always runs for one stage or another."""

    def __init__(self, began: float, before: str, on_stage: Callable[[str], None] | None = None) -> None:
        """``began``: a time of ``perf_counter``; what has passed since is of the stage ``before``.

        ``on_stage`` is told each stage that begins, and the one that goes on when it ends.
        """
        self._began = self._last = began
        self._stages: dict[str, float] = {}
        self._open = [before]
        self._on_stage = on_stage
        self._lap()
        self._open = [_REST]

    @contextmanager
    def active(self) -> Iterator[None]:
        """While open, :func:`stage` counts for these timings (in this thread)."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """While open, time counts for the stage ``name``."""
        self._lap()
        self._open.append(name)
        self._tell(name)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()
            self._tell(self._open[-1])

    def stages(self) -> dict[str, float]:
        """Seconds of each stage up to now, in the order of their first beginning."""
        self._lap()
        return dict(self._stages)

    def table(self) -> str:
        """A table of stage, milliseconds and share; the last line is the sum."""
        stages = self.stages()
        total = sum(stages.values())
        rows = [*stages.items(), ("total", total)]
        return "".join(f"{1000 * seconds:10.1f} ms {seconds / total:6.1%}  {name}\n" for name, seconds in rows)

    def _lap(self) -> None:
        now = time.perf_counter()
        name = self._open[-1]
        self._stages[name] = self._stages.get(name, 0.0) + now - self._last
        self._last = now

    def _tell(self, name: str) -> None:
        if self._on_stage is not None and name != _REST:
            self._on_stage(name)


_CURRENT: ContextVar[Timings | None] = ContextVar("timings", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """A stage of whatever is timed at the moment; nothing where nobody times."""
    current = _CURRENT.get()
    if current is None:
        yield
        return
    with current.stage(name):
        yield


def process_start() -> float:
    """When this process started, as a time of ``perf_counter`` (to 10 ms); now where the system does not say."""
    now = time.perf_counter()
    try:
        ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return now
    return now - max(age, 0.0)
