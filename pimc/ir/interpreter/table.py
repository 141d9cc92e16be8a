"""The table of reference implementations: operation class -> function on numpy arrays.

Each dialect has a module with one table; :mod:`pimc.ir.interpreter` merges them.  An implementation gets the
frame it runs in, the operation and the operand values, and returns one value a result.  Results are rounded
to the type of the result afterwards unless the implementation is registered as ``exact`` (it moves values, or
rounds by itself).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy.typing as npt
from xdsl.ir import Operation

from pimc.diagnostics import InputError, InternalError
from pimc.ir.locations import where

if TYPE_CHECKING:
    from pimc.ir.interpreter.core import Frame

Array: TypeAlias = npt.NDArray[Any]
"""A tensor value: its element type is known only when the IR is."""

Value: TypeAlias = Array | int | float
"""A value at run time: a tensor, or a scalar of the arith dialect."""

OpT = TypeVar("OpT", bound=Operation)
Implementation: TypeAlias = "Callable[[Frame, OpT, Sequence[Any]], Sequence[Value]]"


@dataclass(frozen=True)
class Entry:
    """An implementation, and whether its results need no rounding."""

    run: Implementation[Any]
    exact: bool


class ImplementationTable:
    """Implementations by operation class."""

    def __init__(self) -> None:
        self._entries: dict[type[Operation], Entry] = {}

    def register(
        self, op_type: type[OpT], *, exact: bool = False
    ) -> Callable[[Implementation[OpT]], Implementation[OpT]]:
        """Decorator that registers the implementation of ``op_type``; InternalError if it has one already."""

        def add(function: Implementation[OpT]) -> Implementation[OpT]:
            self._add(op_type, Entry(function, exact))
            return function

        return add

    def _add(self, op_type: type[Operation], entry: Entry) -> None:
        if op_type in self._entries:
            raise InternalError(f"{op_type.name} has two reference implementations")
        self._entries[op_type] = entry

    def __iter__(self) -> Iterator[type[Operation]]:
        return iter(self._entries)

    def lookup(self, op: Operation) -> Entry:
        """The implementation of ``op``; InputError if there is none."""
        try:
            return self._entries[type(op)]
        except KeyError:
            raise InputError(f"the interpreter has no meaning for {op.name}", where=where(op)) from None

    @staticmethod
    def merged(tables: Sequence[ImplementationTable]) -> ImplementationTable:
        """One table with the entries of all; InternalError where two have the same operation."""
        result = ImplementationTable()
        for table in tables:
            for op_type, entry in table._entries.items():
                result._add(op_type, entry)
        return result
