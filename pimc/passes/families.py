"""Families of weight names: names that differ in one number, the layer's; or names made into a family by aliases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """``pattern`` with ``*`` in the place of the number; ``indices`` are the numbers, in order."""

    pattern: str
    indices: tuple[int, ...]


def family_of(names: Sequence[str]) -> Family | None:
    """The family of two or more names in order; None if they differ in anything but one plain number."""
    parts = [re.split(r"(\d+)", name) for name in names]
    if len({len(part) for part in parts}) != 1 or any("*" in name for name in names):
        return None
    differing = [index for index in range(len(parts[0])) if len({part[index] for part in parts}) > 1]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    at = differing[0]
    numbers = [part[at] for part in parts]
    if any(str(int(number)) != number for number in numbers):  # 007 is no member of "*"
        return None
    pattern = "".join([*parts[0][:at], "*", *parts[0][at + 1 :]])
    return Family(pattern, tuple(int(number) for number in numbers))


def aliased(names: Sequence[str], first: int) -> tuple[Family, dict[str, str]]:
    """A family for weights whose names say nothing of layers, and the alias of each: name -> weight.

    The pattern follows from the first weight's name, so that entry points that share weights share the family.
    """
    family = Family(f"{names[0].replace('*', '')}@*", tuple(range(first, first + len(names))))
    members = (family.pattern.replace("*", str(index)) for index in family.indices)
    return family, dict(zip(members, names, strict=True))
