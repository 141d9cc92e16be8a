"""The ONNX project's node tests in two columns: reference interpreter and simulated hardware.

    python benchmarks/conformance.py                          the totals
    python benchmarks/conformance.py --only softmax -v        cases by name, with what came of each
    python benchmarks/conformance.py --write docs/conformance.md
    python benchmarks/conformance.py --check docs/conformance.md     exit status 1 if anything got worse
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conformance.cases import load_cases
from conformance.columns import COLUMNS, Column, Outcome, run_case
from conformance.table import RECORD, Row, page, record, regressions, summary


def _share(
    pattern: str, columns: tuple[Column, ...], worker: int, workers: int
) -> list[tuple[str, str, dict[Column, Outcome]]]:
    """Every ``workers``-th case from ``worker`` on."""
    cases = load_cases(pattern)[worker::workers]
    return [(case.name, case.operator, {column: run_case(case, column) for column in columns}) for case in cases]


def run(pattern: str, columns: tuple[Column, ...], jobs: int) -> list[Row]:
    """Run all cases; rows in order of their names."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(_share, pattern, columns, worker, jobs) for worker in range(jobs)]
        found = [row for share in shares for row in share.result()]
    return [Row(*row) for row in sorted(found)]


def main() -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", metavar="REGEX")
    parser.add_argument("--column", choices=[*COLUMNS, "both"], default="both")
    parser.add_argument("-v", "--verbose", action="store_true")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", type=Path, metavar="PAGE")
    action.add_argument("--check", type=Path, metavar="PAGE")
    arguments = parser.parse_args()
    if (arguments.write or arguments.check) and (arguments.only or arguments.column != "both"):
        parser.error("--write and --check are about all cases in both columns")
    columns: tuple[Column, ...] = COLUMNS if arguments.column == "both" else (arguments.column,)
    rows = run(arguments.only, columns, max(1, arguments.jobs))
    if arguments.verbose:
        for row in rows:
            for column, outcome in row.outcomes.items():
                text = f"{outcome.status} {outcome.reason} | {outcome.detail} ({outcome.seconds:.2f} s)"
                sys.stdout.write(f"{row.case} {column} {text}\n")
    sys.stdout.write(summary(rows) + "\n")
    if arguments.write:
        arguments.write.write_text(page(rows), encoding="utf-8")
        RECORD.write_text(record(rows), encoding="utf-8")
    if arguments.check:
        return _check(rows, arguments.check)
    return 0


def _check(rows: list[Row], path: Path) -> int:
    problems = regressions(rows, RECORD.read_text(encoding="utf-8"))
    for problem in problems:
        sys.stdout.write(problem + "\n")
    if not problems and page(rows) != path.read_text(encoding="utf-8"):
        sys.stdout.write(f"{path} is not what this run makes: `python benchmarks/conformance.py --write {path}`\n")
        return 1
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
