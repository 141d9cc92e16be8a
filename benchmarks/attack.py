"""Attack the command line with what strangers may give it, damaged in every way.

python benchmarks/attack.py --seconds 60             a seed of its own, which it prints
python benchmarks/attack.py --seconds 60 --seed S    the inputs of that seed
python benchmarks/attack.py --only assembly --only ir --seconds 600
python benchmarks/attack.py --replay FOLDER          one saved input again

Exit status 1 if anything crashed, showed a traceback, ended with exit code 3, took more than its limit of time or
memory, left part of an output, or told an error that is too long or commands a terminal.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from attack.kinds import KINDS
from attack.pool import Report, attack


def main() -> int:
    """The command; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", default=None, help="(default: a new one)")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    parser.add_argument("--only", action="append", default=[], choices=[kind.name for kind in KINDS], metavar="KIND")
    parser.add_argument("--save", type=Path, default=Path("attack-failures"), help="folder for inputs that fail")
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="run a saved input")
    arguments = parser.parse_args()
    if arguments.replay:
        from attack.worker import replay

        return replay(arguments.replay.resolve())
    seed = arguments.seed or secrets.token_hex(4)
    _say(f"seed {seed}, {arguments.seconds:.0f} s, {arguments.jobs} processes, pid {os.getpid()}")
    report = attack(arguments.seconds, seed, arguments.jobs, arguments.only, arguments.save.resolve(), _say)
    _say(_table(report))
    return 1 if report.failures else 0


def _table(report: Report) -> str:
    row = "{:<10} {:>8} {:>8} {:>8} {:>7} {:>10} {:>10}".format
    lines = [row("kind", "runs", "refused", "ok", "failed", "new lines", "slowest s")]
    for name, tally in sorted(report.tallies.items()):
        counts = (tally.runs, tally.refused, tally.ok, tally.failed, tally.new_lines or "", f"{tally.slowest_s:.1f}")
        lines.append(row(name, *counts))
    totals = [
        sum(getattr(tally, key) for tally in report.tallies.values()) for key in ("runs", "refused", "ok", "failed")
    ]
    lines.append(row("all", *totals, "", ""))
    return "\n".join(lines)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
