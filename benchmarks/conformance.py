"""The ONNX project's node tests in two columns: reference interpreter and simulated hardware.

python benchmarks/conformance.py                          the totals
python benchmarks/conformance.py --only softmax -v        cases by name, with what came of each
python benchmarks/conformance.py --write                  writes docs/conformance.md and the recorded outcomes
python benchmarks/conformance.py --check                  exit status 1 if anything got worse, or the page differs
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from conformance import command
from conformance.onnx_cases import load_cases
from conformance.onnx_page import PAGE, RECORD, page, record, regressions
from conformance.table import summary


def main() -> int:
    """The command; see the module."""
    parser = command.parser(__doc__ or "", PAGE)
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose names have it")
    arguments = parser.parse_args()
    if (arguments.write or arguments.check) and (arguments.only or arguments.column != "both"):
        parser.error("--write and --check are about all cases in both columns")
    cases = load_cases()
    wanted = [case for case in cases if re.search(arguments.only, case.name)]
    rows = command.run(wanted, next(case for case in cases if case.name == "test_abs"), arguments)
    sys.stdout.write(summary(rows) + "\n")
    if arguments.write:
        command.write(page(rows), arguments.write, record(rows), RECORD)
    if not arguments.check:
        return 0
    worse = regressions(rows, RECORD.read_text(encoding="utf-8"))
    return command.report(worse + command.unlike(page(rows), arguments.check, record(rows), RECORD))


if __name__ == "__main__":
    raise SystemExit(main())
