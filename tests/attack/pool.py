"""Workers, watched: their outcomes counted, and what ends or outlasts one is put down to the case it ran."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
_SILENCE_S = 300  # wall time without a word: a case has its own, shorter limits of processor time
_START_S = 1800  # the guarded simulator may have to be compiled first
_TAIL_BYTES = 2000


@dataclass
class Tally:
    """Counts of a kind."""

    runs: int = 0
    refused: int = 0
    ok: int = 0
    failed: int = 0
    new_lines: int = 0
    slowest_s: float = 0.0


@dataclass
class Report:
    """Counts by kind, and failures: what happened and where the case is saved."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    failures: list[tuple[str, Path]] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """Cases that have ended."""
        return sum(tally.runs for tally in self.tallies.values())


class Worker:
    """One process, started again after each end."""

    def __init__(self, folder: Path, seed: str, first: int, step: int, only: Sequence[str]) -> None:
        self._arguments = (seed, step, list(only))
        self.folder = folder
        self.running: tuple[str, int] | None = None
        self._complaints = folder / "stderr"
        folder.mkdir(parents=True)
        self._start(first)

    def _start(self, first: int) -> None:
        seed, step, only = self._arguments
        call = f"serve(Path({str(self.folder)!r}), {seed!r}, {first}, {step}, {only!r})"
        code = f"import sys; sys.path.insert(0, {str(_TESTS)!r}); from pathlib import Path; "
        self.heard = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", f"{code}from attack.worker import serve; {call}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._complaints.open("wb"),
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONFAULTHANDLER": "1", "PIMC_GUARD": "1"},
            cwd=self.folder,
        )
        self._rest = b""
        self.ready = False

    @property
    def silent(self) -> bool:
        """Whether nothing has been heard for longer than anything takes."""
        return time.monotonic() - self.heard > (_SILENCE_S if self.ready else _START_S)

    def read(self) -> list[dict[str, object]] | None:
        """Outcomes since the last call; None if the process has ended."""
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            value = json.loads(line)
            self.ready = True
            if "starts" in value:
                self.running = (value["starts"], value["number"])
            else:
                self.running = None
                found.append(value)
        return found

    def ended(self) -> dict[str, object]:
        """The outcome of the case that ended the process; starts another process behind it."""
        silent = self.silent
        self.process.kill()
        code = self.process.wait()
        tail = self._complaints.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        if self.running is None:
            raise RuntimeError(f"a worker ended between cases, with {code}:\n{tail}")
        kind, number = self.running
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        problem = f"crash: {how}: {tail}"
        if silent or code == -signal.SIGXCPU:
            problem = f"past its limit: {'no answer' if silent else how}"
        self.running = None
        self._start(number + self._arguments[1])
        return {"kind": kind, "number": number, "refused": False, "problem": problem, "cpu_s": 0.0, "new_lines": 0}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def attack(
    seconds: float,
    seed: str,
    jobs: int,
    only: Sequence[str],
    save: Path,
    say: Callable[[str], None],
    until: int | None = None,
) -> Report:
    """Run cases for ``seconds`` (or ``until`` as many have run) on ``jobs`` processes.

    Cases that fail are saved in ``save``; ``say`` is told of each.
    """
    report = Report()
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="pimc-attack-") as root:
        workers = [Worker(Path(root) / str(i), seed, i, jobs, only) for i in range(jobs)]
        try:
            while time.monotonic() < end and (until is None or report.runs < until):
                _step(workers, report, save, say)
        finally:
            for worker in workers:
                worker.stop()
    return report


def _step(workers: Sequence[Worker], report: Report, save: Path, say: Callable[[str], None]) -> None:
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            assert worker.process.stdout is not None
            selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        ready = [key.data for key, _ in selector.select(1)]
    for worker in workers:
        if worker in ready:
            outcomes = worker.read()
        elif worker.silent:
            outcomes = None
        else:
            continue
        for outcome in [worker.ended()] if outcomes is None else outcomes:
            _count(outcome, report, worker.folder, save, say)


def _count(outcome: dict[str, object], report: Report, folder: Path, save: Path, say: Callable[[str], None]) -> None:
    kind, problem = str(outcome["kind"]), str(outcome["problem"])
    tally = report.tallies.setdefault(kind, Tally())
    tally.runs += 1
    tally.new_lines += int(str(outcome["new_lines"]))
    tally.slowest_s = max(tally.slowest_s, float(str(outcome["cpu_s"])))
    if not problem:
        tally.refused += bool(outcome["refused"])
        tally.ok += not outcome["refused"]
        return
    tally.failed += 1
    place = save / f"{kind}-{outcome['number']}"
    shutil.rmtree(place, ignore_errors=True)
    failed = folder / f"failed-{outcome['number']}"
    shutil.copytree(failed if failed.exists() else folder / "current", place)
    report.failures.append((problem, place))
    say(f"FAILED {place}: {problem}")
