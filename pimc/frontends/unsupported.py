"""What a model has that the compiler cannot do: collected while a graph is imported, and raised all at once."""

from __future__ import annotations

from pimc.diagnostics import UnsupportedItem, UnsupportedModelError


class UnsupportedError(Exception):
    """An operator, or a form of it, that has no conversion; importers collect these.

    ``reason`` says what about it, ``alternative`` the nearest thing that is supported, if there is one.
    """

    def __init__(self, reason: str, alternative: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.alternative = alternative


__all__ = ["UnsupportedError", "UnsupportedItem", "UnsupportedModelError"]
