"""Whole numbers of a program that are known while it is lowered, or in a register when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.ir import SSAValue

from pimc.backends.builder import SramBuilder

#: A number known now, or a register.
Index: TypeAlias = "int | SSAValue"


def _power(value: int) -> int | None:
    """The exponent of a power of two; None for other numbers."""
    return value.bit_length() - 1 if value > 0 and value & (value - 1) == 0 else None


@dataclass(frozen=True)
class Indices:
    """Arithmetic on indices: done now where both numbers are known, else by instructions of a core."""

    core: SramBuilder

    def add(self, a: Index, b: Index) -> Index:
        """a + b."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if a == 0 or b == 0:
            return b if a == 0 else a
        return self.core.add(a, b)

    def sub(self, a: Index, b: Index) -> Index:
        """a - b."""
        if isinstance(b, int):
            return self.add(a, -b)
        return self.core.sub(a, b)

    def mul(self, a: Index, b: Index) -> Index:
        """a * b."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if 0 in (a, b):
            return 0
        if a == 1 or b == 1:
            return b if a == 1 else a
        return self.core.mul(a, b)

    def div(self, a: Index, b: Index) -> Index:
        """a / b, rounded down; neither is negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a // b
        if b == 1 or a == 0:
            return a
        power = _power(b) if isinstance(b, int) else None
        return self.core.divu(a, b) if power is None else self.core.srli(a, power)

    def mod(self, a: Index, b: Index) -> Index:
        """a modulo b; neither is negative."""
        if isinstance(a, int) and isinstance(b, int):
            return a % b
        if b == 1 or a == 0:
            return 0
        power = _power(b) if isinstance(b, int) else None
        return self.core.remu(a, b) if power is None else self.core.and_(a, (1 << power) - 1)

    def least(self, a: Index, b: Index) -> Index:
        """The lesser."""
        return min(a, b) if isinstance(a, int) and isinstance(b, int) else self.core.min(a, b)

    def most(self, a: Index, b: Index) -> Index:
        """The greater."""
        return max(a, b) if isinstance(a, int) and isinstance(b, int) else self.core.max(a, b)

    def left(self, total: Index, done: Index, block: int) -> Index:
        """How many of ``total`` a block of ``block`` has that begins at ``done``: none behind the end."""
        return self.most(self.least(self.sub(total, done), block), 0)

    def split(self, number: Index, sizes: Sequence[int]) -> list[Index]:
        """The digits of a number by their sizes, the last one running fastest; the first has no bound."""
        digits: list[Index] = []
        for size in reversed(sizes[1:]):
            digits.append(self.mod(number, size))
            number = self.div(number, size)
        return [number, *reversed(digits)]

    @contextmanager
    def loop(self, count: Index) -> Iterator[Index]:
        """A loop over 0 .. count - 1; no loop for the count 1."""
        if count == 1:
            yield 0
            return
        with self.core.loop(0, count) as number:
            yield number
