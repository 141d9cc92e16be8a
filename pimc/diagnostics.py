"""Errors as users meet them: one line that says what is wrong, where, and what to do about it.

Every error that pimc raises on purpose is a :class:`PimcError`.  The command line prints it in one line (plus, of a
text, the line meant with a caret, notes on other places, and a hint) and exits with its ``exit_code``; anything else
that escapes is a bug in pimc and exits with 3.  This module imports nothing of pimc, so that every part may use it.

Exit codes: 0 success, 1 the input cannot be processed, 2 the command was used wrongly, 3 a bug in pimc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

#: Characters of a line that an excerpt shows.
_SHOWN = 100


@dataclass(frozen=True)
class Excerpt:
    """A line of a text and the part of it that is meant: ``column`` counts from 1, ``width`` is in characters.

    As text it is two lines, the line (of a long one, what is around) and carets under the part.
    """

    line: str
    column: int
    width: int = 1

    def __str__(self) -> str:
        line = "".join(character if character.isprintable() else " " for character in self.line)
        start, before, behind = 0, "", ""
        if len(line) > _SHOWN:
            start = max(0, min(self.column - 1 - _SHOWN // 3, len(line) - _SHOWN))
            before, behind = "..." if start else "", "..." if start + _SHOWN < len(line) else ""
        shown = f"{before}{line[start : start + _SHOWN]}{behind}"
        indent = len(before) + self.column - 1 - start
        return f"    {shown}\n    {' ' * indent}{'^' * max(1, min(self.width, len(shown) - indent))}"


@dataclass(frozen=True)
class Note:
    """Another place that an error concerns, and what is there."""

    message: str
    where: str | None = None
    excerpt: Excerpt | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class PimcError(Exception):
    """Base of all errors of pimc.

    ``message`` is one sentence without a final stop, ``hint`` says what the user can do, ``where`` names the
    place: a file, a source location, a stream and instruction.  ``excerpt`` shows the place in its text, ``notes``
    tell of other places.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        where: str | None = None,
        excerpt: Excerpt | None = None,
        notes: Sequence[Note] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where
        self.excerpt = excerpt
        self.notes = tuple(notes)

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the keyword-only arguments (errors cross process borders in parallel runs)."""
        return (_rebuild, (type(self), self.message, self.hint, self.where, self.excerpt, self.notes))


def _rebuild(
    cls: type[PimcError],
    message: str,
    hint: str | None,
    where: str | None,
    excerpt: Excerpt | None,
    notes: tuple[Note, ...],
) -> PimcError:
    return cls(message, hint=hint, where=where, excerpt=excerpt, notes=notes)


class InputError(PimcError):
    """What the user gave cannot be processed: a file, a model, a program."""


class UsageError(PimcError):
    """The command, an option or an argument was used wrongly."""

    exit_code = 2


class InternalError(PimcError):
    """A broken promise inside pimc: a bug."""

    exit_code = 3


class TargetError(InputError):
    """A target description is wrong, or a program does not fit the target."""


class DoesNotFitError(TargetError):
    """A program needs more of a core than there is: local memory, or scalar registers."""


class IsaError(InputError):
    """An instruction, an assembly text or a binary is malformed."""


class SimError(InputError):
    """A program did something in the simulator that the hardware does not allow."""


class RaceError(SimError):
    """Two agents accessed the same memory with nothing that orders them."""


class DeadlockError(SimError):
    """Every running stream waits and no event is left that could wake one."""


class LivelockError(SimError):
    """A stream repeats itself for ever, and nothing can change that."""


class RunLimitError(SimError):
    """A run reached a limit that the user set: cycles, or seconds."""


class OutOfRangeError(SimError):
    """An access outside a memory."""


class UninitialisedReadError(SimError):
    """A read of memory that nothing has written."""


class NumericsError(SimError):
    """Results left the range of their type though their operands were finite, where that is not allowed."""


class DramTimingError(SimError):
    """A DRAM command violates the protocol or a timing constraint."""


@dataclass(frozen=True)
class UnsupportedItem:
    """One unsupported node: its operator, its name (ONNX) or module path (PyTorch), ``file.py:line`` where known, the
    reason, and the nearest supported alternative.
    """

    operator: str
    node: str
    source_line: str | None
    reason: str
    alternative: str | None = None

    def __str__(self) -> str:
        place = ", ".join(filter(None, (self.node, self.source_line)))
        advice = f" (instead: {self.alternative})" if self.alternative else ""
        return f"{self.operator} at {place}: {self.reason}{advice}"


class UnsupportedModelError(InputError):
    """Everything in a model that is not supported, one line an item; ``items`` has the parts."""

    def __init__(self, items: Sequence[UnsupportedItem], *, hint: str | None = None, where: str | None = None) -> None:
        operators = {item.operator for item in items}
        lines = [f"{len(items)} unsupported node(s) of {len(operators)} operator(s):", *(f"  {item}" for item in items)]
        super().__init__("\n".join(lines), hint=hint, where=where)
        self.items = tuple(items)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the items (errors cross process borders in parallel runs)."""
        return (_rebuild_unsupported, (self.items, self.hint, self.where))


def _rebuild_unsupported(
    items: Sequence[UnsupportedItem], hint: str | None, where: str | None
) -> UnsupportedModelError:
    return UnsupportedModelError(items, hint=hint, where=where)
