"""What a model has that the compiler cannot do: collected while a graph is imported, and raised all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimc.diagnostics import InputError


class UnsupportedError(Exception):
    """An operator, or a form of it, that has no conversion; importers collect these.

    ``reason`` says what about it, ``alternative`` the nearest thing that is supported, if there is one.
    """

    def __init__(self, reason: str, alternative: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alternative = alternative


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

    def __init__(
        self, items: Sequence[UnsupportedItem], *, hint: str | None = None, where: str | None = None
    ) -> None:
        operators = {item.operator for item in items}
        lines = [f"{len(items)} unsupported node(s) of {len(operators)} operator(s):", *(f"  {item}" for item in items)]
        super().__init__("\n".join(lines), hint=hint, where=where)
        self.items = tuple(items)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the items (errors cross process borders in parallel runs)."""
        return (_rebuild, (self.items, self.hint, self.where))


def _rebuild(items: Sequence[UnsupportedItem], hint: str | None, where: str | None) -> UnsupportedModelError:
    return UnsupportedModelError(items, hint=hint, where=where)
