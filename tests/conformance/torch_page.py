"""The page of PyTorch's operators: docs/conformance-torch.md, and the recorded outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from conformance.outcomes import ATOL_FP16, COLUMNS, RTOL_FP16, Column, Outcome, Status
from conformance.table import Row, by_operator, counts, failed, markdown, reasons, refusals, summary, text
from conformance.torch_cases import ATOL_FP32, CAP, RTOL_FP32

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "conformance-torch.md"
RECORD: Final = Path(__file__).parent / "expected-torch.txt"
COMMAND: Final = "python benchmarks/conformance_torch.py --write"
LEAST: Final = 0.8
"""Share of the operators of no group that must be right on the hardware."""

STATUSES: Final[tuple[Status, ...]] = ("passed", "rounded", "refused", "failed", "outside")
_LETTERS: Final[Mapping[Status, str]] = {"passed": "p", "rounded": "r", "refused": "-", "failed": "F", "outside": "o"}
_RANK: Final[Mapping[str, int]] = {"p": 0, "r": 0, "o": 1, "-": 1, "F": 2}
"""From best to worst: what is worse than it was is a regression."""

_OLDER_NAMES: Final[Mapping[str, str]] = {
    "linalg": "cholesky cholesky_inverse cholesky_solve geqrf inverse logdet lu lu_solve lu_unpack matrix_exp ormqr "
    "pca_lowrank pinverse qr svd svd_lowrank triangular_solve",
    "fft": "stft istft",
    "special": "digamma erfinv i0 igamma igammac lgamma mvlgamma polygamma",
}
"""Operators that belong to a group whose prefix they do not have."""

_INTRODUCTION: Final = """\
PyTorch's own operator database (`torch.testing._internal.common_methods_invocations.op_db`, PyTorch {version}): all
{operators} operators that have samples of float32 tensors on a CPU, run by

    {command}

An operator with more than {cap} samples (`max_pool2d` has 1,440) has {cap} of them, drawn with a fixed seed; every
other has all: {cases} samples.  `python benchmarks/conformance_torch.py --check` runs them all and compares with this
page; CI runs a tenth, drawn anew each time (`--check --sample 0.1`).

A sample is imported as a user's module is, by `torch.export`: the tensors among its arguments are the inputs, the rest
are constants.  It runs twice: in the reference interpreter on the imported IR (fp32), and compiled for HPIM with the
default pipeline and executed in the simulator.  Both are compared with eager PyTorch in fp32.  The interpreter may be
off by {rtol32:g} of a number and {atol32:g} of the largest of the output (or of 1), the hardware by {rtol:g} and
{atol:g}, as on [the page of the ONNX tests](conformance.md): it stores fp16 (11 bits), which rounds each tensor
between two operations by up to 4.9e-4 of a number.  Integers and truth values must be equal.

- **passed**: within these bounds.
- **rounded**: right for the inputs as fp16 rounds them.  PyTorch, in fp32 and within the same bounds, gives what the
  hardware gives once the inputs are rounded to fp16, and something else for those that were given: `ceil` of 2.0001,
  an order of numbers that fp16 cannot tell apart, a sum that all but cancels.  Of the place of a number that has become
  equal to others, that the number stands there.
- **refused**: the compiler says that it cannot, with a reason.
- **failed**: a wrong result, a crash, an error that is no refusal, a time limit.
- **outside**: there is no one right answer (random numbers, memory that nothing has written), no tensor as a result, a
  sparse tensor, or an operator that PyTorch itself does not run on a CPU."""

_GROUPS_TEXT: Final = """\
An operator counts as *right* where every sample that is not outside is passed or rounded; as *right as far as taken*
where at least one is, none failed, and the others are refused.  Groups are by name: `linalg.`, `fft.`, `special.`,
`sparse.`, and the older names of the same functions (`svd`, `stft`, `lgamma` ...); *random* are the operators with a
sample whose result is random or memory that nothing has written, *no result to compare* those that have only samples
outside for other reasons."""


def group_of(operator: str, rows: Sequence[Row]) -> str:
    """The group that an operator is counted in."""
    stem = operator.partition(".")[0]
    for group, names in _OLDER_NAMES.items():
        if stem == group or stem in names.split():
            return group
    outside = {row.outcomes["hardware"].reason for row in rows if row.outcomes["hardware"].status == "outside"}
    if stem == "sparse" or "sparse tensors" in outside:
        return "sparse"
    if outside & {"random numbers", "memory that nothing has written"}:
        return "random"
    if all(row.outcomes["hardware"].status == "outside" for row in rows):
        return "no result to compare"
    return "all others"


_GROUPS: Final = ("all others", "linalg", "fft", "special", "sparse", "random", "no result to compare")


def verdict(rows: Sequence[Row], column: Column) -> str:
    """What an operator is: "right", "partly" (right as far as taken), "refused", "failed" or "outside"."""
    found = counts(rows, column)
    right = found["passed"] + found["rounded"]
    if found["failed"]:
        return "failed"
    if found["refused"]:
        return "partly" if right else "refused"
    return "right" if right else "outside"


def share_right(rows: list[Row], column: Column = "hardware") -> tuple[float, float]:
    """The share of the operators of no group that are right, and of those that are right as far as taken."""
    members = [found for name, found in by_operator(rows).items() if group_of(name, found) == "all others"]
    verdicts = [verdict(found, column) for found in members]
    right, partly = verdicts.count("right"), verdicts.count("partly")
    return right / max(1, len(verdicts)), (right + partly) / max(1, len(verdicts))


def page(rows: list[Row]) -> str:
    """The whole of docs/conformance-torch.md."""
    introduction = _INTRODUCTION.format(
        version=torch.__version__.partition("+")[0],
        command=COMMAND,
        operators=len(by_operator(rows)),
        cases=len(rows),
        cap=CAP,
        rtol=RTOL_FP16,
        atol=ATOL_FP16,
        rtol32=RTOL_FP32,
        atol32=ATOL_FP32,
    )
    parts = [
        f"<!-- Generated by `{COMMAND}`: do not edit. -->",
        "# Conformance: PyTorch's operators",
        introduction,
        summary(rows, STATUSES),
        "## By group",
        _GROUPS_TEXT,
        _groups(rows),
        *(reasons(rows, column) for column in COLUMNS),
        reasons(rows, "hardware", "outside"),
        failed(rows),
        _operators(rows),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _groups(rows: list[Row]) -> str:
    operators = by_operator(rows)
    members = {name: group_of(name, found) for name, found in operators.items()}
    lines: list[list[object]] = []
    for group in _GROUPS:
        names = [name for name, its in members.items() if its == group]
        for column in COLUMNS if names else ():
            found = [verdict(operators[name], column) for name in names]
            right, partly = found.count("right"), found.count("partly")
            cells = [right, partly, found.count("refused"), found.count("failed")]
            shares = [f"{100 * right / len(names):.1f} %", f"{100 * (right + partly) / len(names):.1f} %"]
            lines.append([group, column, len(names), *cells, *shares])
    numbers = ["operators", "right", "right as far as taken", "refused", "failed", "share right", "with partly"]
    return markdown(["group", "column", *numbers], lines, numbers)


def _operators(rows: list[Row]) -> str:
    lines: list[list[object]] = []
    for operator, members in by_operator(rows).items():
        found = counts(members, "interpreter"), counts(members, "hardware")
        right = [f"{its['passed'] + its['rounded']}" for its in found]
        rounded = found[1]["rounded"] or ""
        taken = len(members) - found[1]["outside"]
        lines.append([f"`{operator}`", taken, *right, rounded, found[1]["failed"] or "", _why(members)])
    numbers = ["samples", "interpreter", "hardware", "of these rounded", "failed"]
    return "## Operators\n\nSamples outside are not counted.\n\n" + markdown(
        ["operator", *numbers, "refused on the hardware"], lines, numbers
    )


def _why(rows: Sequence[Row]) -> str:
    def short(outcome: Outcome) -> str:
        words = " ".join((outcome.detail or outcome.reason).split()).replace("|", "\\|")
        return words if len(words) <= 120 else words[:117] + "..."

    return refusals(rows, "hardware", short)


def record(rows: list[Row]) -> str:
    """The recorded outcomes: a line an operator with the numbers of its samples and a letter for each, by column."""
    lines: list[str] = []
    for operator, members in by_operator(rows).items():
        numbers = ",".join(row.case.rpartition("/")[2] for row in members)
        letters = ["".join(_LETTERS[row.outcomes[column].status] for row in members) for column in COLUMNS]
        lines.append("\t".join([operator, *letters, numbers]) + "\n")
    return "".join(lines)


def recorded(lines: str) -> dict[str, dict[Column, str]]:
    """Letters by case and column, as :func:`record` wrote them."""
    found: dict[str, dict[Column, str]] = {}
    for line in lines.splitlines():
        operator, interpreter, hardware, numbers = line.split("\t")
        for number, *letters in zip(numbers.split(","), interpreter, hardware, strict=True):
            found[f"{operator}/{number}"] = dict(zip(COLUMNS, letters, strict=True))
    return found


def regressions(rows: list[Row], lines: str, *, sampled: bool = False) -> list[str]:
    """Cases that are worse than they were recorded; unless ``sampled``, those that were not run, and too few right."""
    before = recorded(lines)
    problems: list[str] = []
    for row in rows:
        for column in COLUMNS:
            outcome = row.outcomes[column]
            was, now = before.get(row.case, {}).get(column, "-"), _LETTERS[outcome.status]
            if _RANK[now] > _RANK[was]:
                problems.append(f"{row.case} ({column}): was {was!r}, now {text(outcome)}: {outcome.detail}")
    if sampled:
        return problems
    problems += [f"{case}: recorded, but not run" for case in sorted(set(before) - {row.case for row in rows})]
    _, share = share_right(rows)
    if share < LEAST:
        problems.append(f"{100 * share:.1f} % of the operators of no group are right; {100 * LEAST:g} % must be")
    return problems
