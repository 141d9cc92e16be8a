"""PyTorch's operator database in two columns: reference interpreter and simulated hardware.

python benchmarks/conformance_torch.py                            the totals
python benchmarks/conformance_torch.py --operators 'diag,masked.*' --list refused,failed
                                                                  operators by name; what came of them, by reason
python benchmarks/conformance_torch.py --cap 2 --list failed      a quick look: two samples of each operator
python benchmarks/conformance_torch.py --write                    writes docs/conformance-torch.md and the record
python benchmarks/conformance_torch.py --check                    exit status 1 if anything is worse or the page differs
python benchmarks/conformance_torch.py --check --sample 0.1       the same of a tenth, drawn with a new seed (--seed)
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conformance import command
from conformance.outcomes import COLUMNS
from conformance.table import Row, summary, text
from conformance.torch_cases import CAP, load_cases
from conformance.torch_page import PAGE, RECORD, STATUSES, page, record, regressions


def _parser() -> argparse.ArgumentParser:
    parser = command.parser(__doc__ or "", PAGE)
    parser.add_argument("--operators", default="*", metavar="NAME,NAME", help="operators; * and ? stand for anything")
    parser.add_argument("--cap", type=int, default=CAP, metavar="N", help=f"samples of an operator ({CAP}); 0: all")
    parser.add_argument("--sample", type=float, default=1.0, metavar="SHARE", help="a share of the samples")
    parser.add_argument("--seed", type=int, help="what draws them; printed (default: a new one)")
    parser.add_argument("--list", default="", metavar="STATUS,STATUS", help="operators with that outcome, by reason")
    return parser


def main() -> int:
    """The command; see the module."""
    parser = _parser()
    arguments = parser.parse_args()
    partial = arguments.operators != "*" or arguments.cap != CAP or arguments.column != "both"
    if ((arguments.write or arguments.check) and partial) or (arguments.write and arguments.sample != 1.0):
        parser.error("--write and --check are about all operators in both columns")
    if unknown := set(filter(None, arguments.list.split(","))) - set(STATUSES):
        parser.error(f"no such status: {', '.join(sorted(unknown))}; there are {', '.join(STATUSES)}")
    cases = load_cases(arguments.operators.split(","), arguments.cap or None)
    if arguments.sample != 1.0:
        seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
        cases = random.Random(seed).sample(cases, round(len(cases) * arguments.sample))
        sys.stdout.write(f"{len(cases)} samples, drawn with --seed {seed}\n")
    rows = command.run(cases, load_cases(["abs"], 1)[0], arguments)
    _list(rows, arguments.list.split(","))
    sys.stdout.write(summary(rows, STATUSES) + "\n")
    if arguments.write:
        command.write(page(rows), arguments.write, record(rows), RECORD)
    return _check(rows, arguments) if arguments.check else 0


def _list(rows: list[Row], statuses: list[str]) -> None:
    """A line for each operator, column and reason, with the first of its cases."""
    found: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for row in rows:
        for column in COLUMNS:
            if column in row.outcomes and row.outcomes[column].status in statuses:
                outcome = row.outcomes[column]
                detail = outcome.detail if outcome.reason != "wrong result" else ""
                found[row.operator, column, " | ".join(filter(None, (text(outcome), detail)))].append(row.case)
    for (operator, column, words), cases in sorted(found.items()):
        sys.stdout.write(f"{operator} {column} {words} ({len(cases)}: {cases[0]})\n")


def _check(rows: list[Row], arguments: argparse.Namespace) -> int:
    sampled = arguments.sample != 1.0
    problems = regressions(rows, RECORD.read_text(encoding="utf-8"), sampled=sampled)
    if not sampled:
        problems += command.unlike(page(rows), arguments.check, record(rows), RECORD)
    return command.report(problems)


if __name__ == "__main__":
    raise SystemExit(main())
