"""The ONNX project's node tests in two columns: reference interpreter and simulated hardware.

python benchmarks/conformance.py                          the totals
python benchmarks/conformance.py --only softmax -v        cases by name, with what came of each
python benchmarks/conformance.py --write                  writes docs/conformance.md and the recorded outcomes
python benchmarks/conformance.py --check                  exit status 1 if anything got worse, or the page differs
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conformance.cases import load_cases
from conformance.columns import COLUMNS, Column, run_case
from conformance.pool import run_cases
from conformance.table import PAGE, RECORD, Row, page, record, regressions, summary


def parser() -> argparse.ArgumentParser:
    """The command line."""
    text = __doc__ or ""
    command = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    command.add_argument("--only", default="", metavar="REGEX", help="cases whose names have it")
    command.add_argument("--column", choices=[*COLUMNS, "both"], default="both")
    command.add_argument("-v", "--verbose", action="store_true", help="a line for each case and column")
    action = command.add_mutually_exclusive_group()
    action.add_argument("--write", type=Path, metavar="PAGE", nargs="?", const=PAGE, help="write the page")
    action.add_argument("--check", type=Path, metavar="PAGE", nargs="?", const=PAGE, help="compare with the page")
    return command


def run(pattern: str, columns: tuple[Column, ...], jobs: int) -> list[Row]:
    """Run the cases whose names have ``pattern``; rows in order of their names."""
    cases = load_cases()
    wanted = [case for case in cases if re.search(pattern, case.name)]
    if "hardware" in columns:  # the simulator is compiled, once a machine, before the clock of any case runs
        run_case(next(case for case in cases if case.name == "test_abs"), "hardware", seconds=1e4)

    def progress(done: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{len(wanted)}" + ("\n" if done == len(wanted) else ""))

    return run_cases(wanted, columns, jobs=max(1, jobs), on_row=progress)


def main() -> int:
    """The command; see the module."""
    command = parser()
    arguments = command.parse_args()
    if (arguments.write or arguments.check) and (arguments.only or arguments.column != "both"):
        command.error("--write and --check are about all cases in both columns")
    columns: tuple[Column, ...] = COLUMNS if arguments.column == "both" else (arguments.column,)
    rows = run(arguments.only, columns, arguments.jobs)
    for row in rows:
        for column, outcome in row.outcomes.items():
            if arguments.verbose or outcome.status == "failed":
                text = " | ".join(filter(None, (outcome.status, outcome.reason, outcome.detail)))
                sys.stdout.write(f"{row.case} {column} {text} ({outcome.seconds:.2f} s)\n")
    sys.stdout.write(summary(rows) + "\n")
    if arguments.write:
        arguments.write.write_text(page(rows), encoding="utf-8")
        RECORD.write_text(record(rows), encoding="utf-8")
    return _check(rows, arguments.check) if arguments.check else 0


def _check(rows: list[Row], path: Path) -> int:
    """Print what got worse, or is not as it was written; the exit status."""
    problems = regressions(rows, RECORD.read_text(encoding="utf-8"))
    if page(rows) != path.read_text(encoding="utf-8") or record(rows) != RECORD.read_text(encoding="utf-8"):
        problems.append(f"{path} is not what this run makes: run {sys.argv[0]} --write {path}")
    for problem in problems:
        sys.stdout.write(problem + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
