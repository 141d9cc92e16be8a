"""Whole numbers of a program: known while it is lowered (for each core, perhaps), or in a register when it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.ir import SSAValue

from pimc.backends.builder import SramBuilder

#: A number known now, or a register.
Index: TypeAlias = "int | SSAValue"
#: The same, or numbers that are known now, one a core.
Number: TypeAlias = "Index | list[int]"


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


@dataclass(frozen=True)
class Numbers:
    """The arithmetic of :class:`Indices`, also on numbers that are known for each core."""

    core: SramBuilder

    def register(self, number: Number) -> SSAValue:
        """The number in a register."""
        return self.core.const(number) if isinstance(number, list) else self.core.register(number)

    @staticmethod
    def one(numbers: list[int]) -> Number:
        """A number that is the same on all cores, or one a core."""
        return numbers[0] if len(set(numbers)) == 1 else numbers

    def _each(self, operation: Callable[[Indices, Index, Index], Index], a: Number, b: Number) -> Number:
        """An operation core by core where both numbers are known, else in a register."""
        x = Indices(self.core)
        if isinstance(a, SSAValue) or isinstance(b, SSAValue) or not (isinstance(a, list) or isinstance(b, list)):
            return operation(x, *(self.register(n) if isinstance(n, list) else n for n in (a, b)))
        cores = len(a) if isinstance(a, list) else len(b) if isinstance(b, list) else 0
        pairs = zip(*(n if isinstance(n, list) else [n] * cores for n in (a, b)), strict=True)
        return self.one([known for pair in pairs if isinstance(known := operation(x, *pair), int)])

    def add(self, a: Number, b: Number) -> Number:
        """a + b."""
        return self._each(Indices.add, a, b)

    def sub(self, a: Number, b: Number) -> Number:
        """a - b."""
        return self._each(Indices.sub, a, b)

    def mul(self, a: Number, b: Number) -> Number:
        """a * b."""
        return self._each(Indices.mul, a, b)

    def div(self, a: Number, b: int) -> Number:
        """a / b, rounded down; neither is negative."""
        return self._each(Indices.div, a, b)

    def mod(self, a: Number, b: int) -> Number:
        """a modulo b; neither is negative."""
        return self._each(Indices.mod, a, b)

    def least(self, a: Number, b: Number) -> Number:
        """The lesser."""
        return self._each(Indices.least, a, b)

    def most(self, a: Number, b: Number) -> Number:
        """The greater."""
        return self._each(Indices.most, a, b)
