"""Where the operations of a module stand in the text it was parsed from, for errors with a line and a caret."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from xdsl.dialects.builtin import FileLineColLoc
from xdsl.ir import Block, Operation

from pimc.diagnostics import Excerpt, Note, PimcError
from pimc.ir.locations import is_unknown, location_text, missing_locations, source_location

_NOTES = 2
_NAME = re.compile(r'"?[A-Za-z_][\w.$]*"?')


class SourceMap:
    """A text with the offsets of the operations that were parsed from it."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._line_starts = [0, *(index + 1 for index, char in enumerate(text) if char == "\n")]
        self._starts: dict[Operation, int] = {}

    def add(self, op: Operation, start: int) -> None:
        """Note that the text of ``op`` starts at an offset."""
        self._starts[op] = start

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of an offset."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def where(self, offset: int) -> str:
        """``file:line:column`` of an offset."""
        line, column = self.line_and_column(offset)
        return f"{self.name}:{line}:{column}"

    def excerpt(self, offset: int, width: int = 1) -> Excerpt:
        """The line of an offset, with carets under ``width`` characters from there on."""
        line, column = self.line_and_column(offset)
        end = self._line_starts[line] - 1 if line < len(self._line_starts) else len(self.text)
        return Excerpt(self.text[self._line_starts[line - 1] : end], column, max(1, min(width, end - offset)))

    def location(self, offset: int) -> FileLineColLoc:
        """The location of what has none of its own."""
        return source_location(self.name, *self.line_and_column(offset))

    def locate(self, module: Operation) -> None:
        """Give operations of our dialects without a location (``loc(unknown)``) their place in the text."""
        for op in missing_locations(module):
            if op in self._starts:
                op.location = self.location(self._starts[op])

    def point(self, error: PimcError, op: Operation, *, operands: bool = False) -> PimcError:
        """Let an error point at an operation of the text, and (``operands``) tell where its operands come from."""
        start = self._starts.get(op)
        if start is None:
            return error
        error.where, error.excerpt = self.where(start), self._of(start)
        error.notes = (*error.notes, *self._origin(op), *(self._operands(op) if operands else ()))
        return error

    def explain(self, error: PimcError) -> PimcError:
        """Let an error of a pass point at the line of the text that it names: by position, or by source location."""
        if error.excerpt is not None or not error.where:
            return error
        position = re.fullmatch(re.escape(self.name) + r":([0-9]{1,9}):([0-9]{1,9})", error.where)
        if position is not None and 0 < int(position[1]) <= len(self._line_starts):
            offset = self._line_starts[int(position[1]) - 1] + int(position[2]) - 1
            error.excerpt = self._of(min(offset, len(self.text)))
            return error
        named = (
            start
            for op, start in self._starts.items()
            if not is_unknown(op.location) and location_text(op.location) == error.where
        )
        first = next(named, None)
        if first is not None:
            note = Note("the first operation of this source location", self.where(first), self._of(first))
            error.notes = (*error.notes, note)
        return error

    def _of(self, start: int) -> Excerpt:
        """The line of an operation, with carets under its name."""
        line_end = self.text.find("\n", start)
        text = self.text[start : line_end if line_end >= 0 else None]
        results = re.match(r"%[^=\"]*=\s*", text)
        start += results.end() if results else 0
        name = _NAME.match(self.text, start)
        return self.excerpt(start, len(name[0]) if name else 1)

    def _origin(self, op: Operation) -> Iterator[Note]:
        """What of the model the operation stands for, where it says so."""
        if not is_unknown(op.location):
            text = location_text(op.location)
            if not text.startswith(f"{self.name}:"):
                yield Note(f"it comes from {text}")

    def _operands(self, op: Operation) -> Iterator[Note]:
        """Where the first operands are made."""
        for index, value in enumerate(op.operands[:_NOTES]):
            owner = value.owner.parent_op() if isinstance(value.owner, Block) else value.owner
            start = self._starts.get(owner) if owner is not None else None
            if start is not None:
                made = "is an argument of this" if isinstance(value.owner, Block) else "is made here"
                message = f"operand {index} {made}, of type {value.type}"
                yield Note(message, self.where(start), self._of(start))
