"""Tables of converters and rules that are written in several modules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import TypeVar

Entry = TypeVar("Entry")


def merged(tables: Iterable[tuple[ModuleType, Mapping[str, Entry]]]) -> dict[str, Entry]:
    """One table of all; ValueError where two modules have an entry of the same name."""
    found: dict[str, Entry] = {}
    owners: dict[str, str] = {}
    for module, table in tables:
        for name, entry in table.items():
            if name in found:
                raise ValueError(f"{name} stands in {owners[name]} and in {module.__name__}")
            found[name], owners[name] = entry, module.__name__
    return found
