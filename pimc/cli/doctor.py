"""``pimc doctor``: whether everything that pimc needs is there."""

from __future__ import annotations

import argparse
import dataclasses

from pimc.cli import console
from pimc.diagnostics import InputError


def execute(arguments: argparse.Namespace) -> None:
    """Print what was found; InputError (exit code 1) if something stops pimc from working."""
    from pimc.driver.doctor import findings

    found = list(findings())
    problems = [item for item in found if item.problem is not None]
    if arguments.json:
        console.write_json({"ok": not problems, "findings": [dataclasses.asdict(item) for item in found]})
    else:
        for item in found:
            mark = "FAIL" if item.problem is not None else "note" if item.note is not None else "ok"
            more = item.problem or item.note
            console.write(f"{mark:4}  {item.name}: {item.found}{f' ({more})' if more else ''}\n")
    if problems:
        raise InputError(
            f"{len(problems)} problem(s): {', '.join(item.name for item in problems)}", hint=problems[0].problem
        )
