"""Reading of a TOML table into frozen dataclasses, with errors that name the file and the key.

A dataclass field is a key of its table. Its type says what the value must be: ``int``, ``str``, another
dataclass, a tuple of one of these for an array, :class:`Figures` for a free table of figures. ``Annotated``
adds a :class:`Range`, :class:`Choices` or a :class:`Key`. A field without a default must be present; one of
``X | None`` may be left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, TypeVar, cast, get_args, get_origin, get_type_hints

from pimc.diagnostics import TargetError
from pimc.targets.expression import did_you_mean, evaluate

T = TypeVar("T")
_MAX = 1 << 48


@dataclass(frozen=True)
class Range:
    """Annotation of an integer: ``low <= value <= high``."""

    low: int = 1
    high: int = _MAX


@dataclass(frozen=True, init=False)
class Choices:
    """Annotation of a string (or each string of an array): one of ``names``."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class Key:
    """Annotation of a field whose TOML key is not its name."""

    name: str


@dataclass(frozen=True)
class Figures(Mapping[str, int]):
    """Named integers that do not change; hashable, so that a target is."""

    pairs: tuple[tuple[str, int], ...]

    def __getitem__(self, name: str) -> int:
        return dict(self.pairs)[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class _Place:
    """Where a value comes from: file and dotted key; ``figures`` are what its expressions may use."""

    file: str
    path: str
    figures: Mapping[str, int]

    def __truediv__(self, key: str) -> _Place:
        return dataclasses.replace(self, path=f"{self.path}.{key}" if self.path else key)

    def __getitem__(self, label: str) -> _Place:
        return dataclasses.replace(self, path=f"{self.path}[{label}]")

    def error(self, message: str, hint: str | None = None) -> TargetError:
        return TargetError(message, where=f"{self.file}: {self.path}" if self.path else self.file, hint=hint)


def read(cls: type[T], table: object, file: str, path: str = "", figures: Mapping[str, int] | None = None) -> T:
    """Build the dataclass ``cls`` from a TOML ``table``.

    ``file`` and ``path`` (dotted key of the table) are for errors; ``figures`` are what an integer given as
    an expression may use.  Raises :class:`TargetError`.
    """
    return cast("T", _dataclass(cls, table, _Place(file, path, figures or {})))


def _dataclass(cls: type, table: object, place: _Place) -> object:
    if not isinstance(table, dict):
        raise place.error(f"expected a table, found {_kind(table)}")
    hints = get_type_hints(cls, include_extras=True)
    fields = {_key(hints[field.name], field.name): field for field in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise (place / key).error(f"unknown key {key!r}", did_you_mean(key, fields))
    values: dict[str, object] = {}
    for key, field in fields.items():
        if key in table:
            values[field.name] = _value(hints[field.name], table[key], place / key)
        elif field.default is dataclasses.MISSING:
            raise (place / key).error(f"missing key {key!r}", did_you_mean(key, table))
    return cls(**values)


def _key(hint: object, name: str) -> str:
    keys = [item.name for item in getattr(hint, "__metadata__", ()) if isinstance(item, Key)]
    return keys[0] if keys else name


def _value(hint: object, value: object, place: _Place) -> object:
    notes: tuple[object, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        notes = tuple(rest)
    if get_origin(hint) is UnionType:  # a table that may be left out
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if hint is int:
        return _integer(value, place, next((note for note in notes if isinstance(note, Range)), Range(0)))
    if hint is str:
        return _string(value, place, next((note for note in notes if isinstance(note, Choices)), Choices()))
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise place.error(f"expected an array, found {_kind(value)}")
        element = Annotated[get_args(hint)[0], *notes] if notes else get_args(hint)[0]
        return tuple(_value(element, item, place[_label(item, index)]) for index, item in enumerate(value))
    if hint is Figures:
        if not isinstance(value, dict):
            raise place.error(f"expected a table, found {_kind(value)}")
        limits = next((note for note in notes if isinstance(note, Range)), Range(0))
        return Figures(tuple((name, _integer(item, place / name, limits)) for name, item in sorted(value.items())))
    assert isinstance(hint, type)
    return _dataclass(hint, value, place)


def _integer(value: object, place: _Place, limits: Range) -> int:
    if isinstance(value, str):
        value = evaluate(value, place.figures, f"{place.file}: {place.path}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise place.error(f"expected an integer, found {_kind(value)}")
    if not limits.low <= value <= limits.high:
        bound = f"at least {limits.low}" if limits.high == _MAX else f"between {limits.low} and {limits.high}"
        raise place.error(f"{value} is out of range, it must be {bound}")
    return value


def _string(value: object, place: _Place, choices: Choices) -> str:
    if not isinstance(value, str):
        raise place.error(f"expected a string, found {_kind(value)}")
    if choices.names and value not in choices.names:
        raise place.error(f"{value!r} is none of {', '.join(choices.names)}", did_you_mean(value, choices.names))
    return value


def _label(item: object, index: int) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else str(index)


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    names: dict[type, str] = {str: "a string", bool: "a boolean", int: "an integer", float: "a number"}
    return f"{names.get(type(value), type(value).__name__)} ({value!r})"
