"""Cases in worker processes: one that hangs or kills its worker costs that case, not the run.

Workers are forked from a process that has loaded the cases and the compiler: loading takes longer than most cases.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

from conformance.columns import CPU_SECONDS, Case, run_case
from conformance.outcomes import COLUMNS, Column, Outcome
from conformance.table import Row

Runner = Callable[[Case, Column], Outcome]
_FORK: Final = get_context("fork")
GRACE: Final = 10.0
"""Wall time after which a worker is stuck, as a multiple of the CPU time that its case may take."""


@dataclass
class _Worker:
    """A process and the case it is at."""

    process: BaseProcess
    connection: Connection
    case: int | None = None
    deadline: float = 0.0

    def give(self, case: int, seconds: float) -> None:
        """Give it a case."""
        self.case, self.deadline = case, time.monotonic() + seconds
        self.connection.send(case)


def run_cases(
    cases: Sequence[Case],
    columns: tuple[Column, ...] = COLUMNS,
    *,
    jobs: int = 1,
    runner: Runner = run_case,
    seconds: float = CPU_SECONDS * GRACE,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Run cases in ``jobs`` processes; rows in the order of the cases.

    Args:
        runner: what runs one case in one column.
        seconds: wall time that all columns of a case may take before its process is ended.
        on_row: called with each case that is done.
    """
    rows: dict[int, Row] = {}
    waiting = deque(range(len(cases)))
    workers = [_start(cases, columns, runner) for _ in range(min(jobs, len(cases)))]
    try:
        for worker in workers:
            worker.give(waiting.popleft(), seconds)
        while len(rows) < len(cases):
            for index, worker in enumerate(workers):
                if worker.case is None:
                    continue
                outcomes = _poll(worker, columns)
                if outcomes is None:
                    continue
                done = Row(cases[worker.case].name, cases[worker.case].operator, outcomes)
                rows[worker.case] = done
                on_row(done)
                if not worker.process.is_alive():
                    workers[index] = worker = _start(cases, columns, runner)
                worker.case = None
                if waiting:
                    worker.give(waiting.popleft(), seconds)
            busy = [worker.connection for worker in workers if worker.case is not None]
            wait(busy, timeout=1.0)
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
    return [rows[index] for index in range(len(cases))]


def _start(cases: Sequence[Case], columns: tuple[Column, ...], runner: Runner) -> _Worker:
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=_work, args=(cases, columns, runner, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _work(cases: Sequence[Case], columns: tuple[Column, ...], runner: Runner, connection: Connection) -> None:
    while True:
        case = cases[connection.recv()]
        connection.send({column: runner(case, column) for column in columns})


def _poll(worker: _Worker, columns: tuple[Column, ...]) -> dict[Column, Outcome] | None:
    """What came of the worker's case; None if it is still at it.  A worker that is stuck or dead has ended."""
    try:
        if worker.connection.poll():
            found: dict[Column, Outcome] = worker.connection.recv()
            return found
    except EOFError:
        worker.process.join()
        detail = f"the process ended with exit code {worker.process.exitcode}"
        return dict.fromkeys(columns, Outcome("failed", "crash", detail))
    if time.monotonic() > worker.deadline:
        worker.process.kill()
        worker.process.join()
        return dict.fromkeys(columns, Outcome("failed", "time limit", "the process was stuck"))
    return None
