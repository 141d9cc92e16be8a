"""What the commands of the two suites have in common."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from conformance.columns import Case, run_case
from conformance.outcomes import COLUMNS, Column, Outcome
from conformance.pool import run_cases
from conformance.table import Row, text


def parser(description: str, page: Path) -> argparse.ArgumentParser:
    """The options of both."""
    command = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    command.add_argument("--column", choices=[*COLUMNS, "both"], default="both")
    command.add_argument("-v", "--verbose", action="store_true", help="a line for each case and column")
    command.add_argument("--keep", type=Path, metavar="FILE", help="go on where a run with this file was interrupted")
    action = command.add_mutually_exclusive_group()
    action.add_argument("--write", type=Path, metavar="PAGE", nargs="?", const=page, help="write the page")
    action.add_argument("--check", type=Path, metavar="PAGE", nargs="?", const=page, help="compare with the page")
    return command


def columns_of(arguments: argparse.Namespace) -> tuple[Column, ...]:
    """The columns that ``--column`` asks for."""
    return COLUMNS if arguments.column == "both" else (arguments.column,)


def run(cases: Sequence[Case], warm_up: Case, arguments: argparse.Namespace) -> list[Row]:
    """Run the cases, with a line for each that fails, or for all; rows in the order of the cases.

    ``warm_up`` runs first: the simulator is compiled, once a machine, before the clock of any case runs.
    """
    columns = columns_of(arguments)
    kept = _kept(arguments.keep)
    waiting = [case for case in cases if case.name not in kept]
    for column in columns if waiting else ():
        run_case(warm_up, column, seconds=1e4)
    on_row = _progress(len(waiting), arguments.keep)
    ran = {row.case: row for row in run_cases(waiting, columns, jobs=max(1, arguments.jobs), on_row=on_row)}
    rows = [kept.get(case.name) or ran[case.name] for case in cases]
    for row in rows:
        for column, outcome in row.outcomes.items():
            if arguments.verbose or outcome.status == "failed":
                words = " | ".join(filter(None, (text(outcome), outcome.detail)))
                sys.stdout.write(f"{row.case} {column} {words} ({outcome.seconds:.2f} s)\n")
    return rows


def _progress(total: int, keep: Path | None) -> Callable[[Row], None]:
    """Says how far the run is where a person watches, and writes what is done to the file that keeps it."""
    done = 0

    def show(row: Row) -> None:
        nonlocal done
        done += 1
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done}/{total}" + ("\n" if done == total else ""))
        if keep is not None:
            with keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")

    return show


def _kept(path: Path | None) -> dict[str, Row]:
    """What an interrupted run has done, by case."""
    if path is None or not path.exists():
        return {}
    found = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {
        line["case"]: Row(
            line["case"],
            line["operator"],
            {
                column: Outcome(**{**fields, "bound": tuple(fields["bound"])})
                for column, fields in line["outcomes"].items()
            },
        )
        for line in found
    }


def write(page: str, path: Path, record: str, record_path: Path) -> None:
    """Write the page and the recorded outcomes."""
    path.write_text(page, encoding="utf-8")
    record_path.write_text(record, encoding="utf-8")


def unlike(page: str, path: Path, record: str, record_path: Path) -> list[str]:
    """A problem if the page or the record is not what the run makes."""
    same = page == path.read_text(encoding="utf-8") and record == record_path.read_text(encoding="utf-8")
    return [] if same else [f"{path} is not what this run makes: run {sys.argv[0]} --write {path}"]


def report(problems: Sequence[str]) -> int:
    """Print what is wrong; the exit status."""
    for problem in problems:
        sys.stdout.write(problem + "\n")
    return 1 if problems else 0
