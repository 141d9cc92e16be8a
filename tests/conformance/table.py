"""What the pages have in common: rows, totals, reasons, and tables in Markdown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from conformance.outcomes import COLUMNS, Column, Outcome, Status

STATUSES: Final[tuple[Status, ...]] = ("passed", "refused", "failed")


@dataclass(frozen=True)
class Row:
    """A case's outcomes."""

    case: str
    operator: str
    outcomes: Mapping[Column, Outcome]


def counts(rows: Iterable[Row], column: Column) -> Counter[str]:
    """Cases by status."""
    return Counter(row.outcomes[column].status for row in rows)


def by_operator(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by their operator, in order of the operators' names."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.operator].append(row)
    return dict(sorted(groups.items()))


def markdown(head: Sequence[str], lines: Iterable[Sequence[object]], numbers: Sequence[str] = ()) -> str:
    """A table in Markdown; the columns of ``numbers`` are aligned to the right."""
    rules = ["---:" if name in numbers else "---" for name in head]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in (head, rules, *lines))


def summary(rows: Sequence[Row], statuses: Sequence[Status] = STATUSES) -> str:
    """The totals: cases by column and status."""
    found = {column: counts(rows, column) for column in COLUMNS if all(column in row.outcomes for row in rows)}
    lines = [[column, len(rows), *(found[column][status] for status in statuses)] for column in found]
    return markdown(["column", "cases", *statuses], lines, ["cases", *statuses])


def reasons(rows: Sequence[Row], column: Column, status: Status = "refused") -> str:
    """A section that counts the reasons of a status; empty where no case has it."""
    found = _frequent(row.outcomes[column].reason for row in rows if row.outcomes[column].status == status)
    table = markdown(["cases", "reason"], [(count, reason) for reason, count in found], ["cases"])
    return f"## {status.capitalize()}: {column}\n\n{table}" if found else ""


def failed(rows: Sequence[Row]) -> str:
    """A section that names the cases that failed; empty where none has."""
    lines = [
        (column, f"`{row.case}`", row.outcomes[column].reason)
        for column in COLUMNS
        for row in rows
        if row.outcomes[column].status == "failed"
    ]
    return "## Failed\n\n" + markdown(["column", "case", "what"], lines) if lines else ""


def refusals(rows: Iterable[Row], column: Column, text: Callable[[Outcome], str] = lambda found: found.reason) -> str:
    """A cell: reasons and how many cases each has, the most frequent first."""
    outcomes = (row.outcomes[column] for row in rows)
    found = _frequent(text(outcome) for outcome in outcomes if outcome.status == "refused")
    return ", ".join(f"{reason} ({count})" for reason, count in found)


def _frequent(reasons: Iterable[str]) -> list[tuple[str, int]]:
    return sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))


def text(outcome: Outcome) -> str:
    """Status and reason."""
    return f"{outcome.status}: {outcome.reason}" if outcome.reason else outcome.status
