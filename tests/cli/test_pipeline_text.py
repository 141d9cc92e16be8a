"""``-p``: whole pipelines and edits of the default one."""

from __future__ import annotations

import pytest

from pimc.diagnostics import UsageError
from pimc.driver.pipeline import expand

DEFAULT = ("a", "b", "cse", "c", "cse", "d")


def test_nothing_given_is_the_default() -> None:
    assert expand(None, DEFAULT) == DEFAULT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b,c{x=1,2 y=3},z", ["b", "c{x=1,2 y=3}", "z"]),
        ("...", ["a", "b", "cse", "c", "cse", "d"]),
        ("...,b,mine,...", ["a", "b", "mine", "cse", "c", "cse", "d"]),
        ("...,mine,c,...", ["a", "b", "cse", "mine", "c", "cse", "d"]),
        ("...,b{x=1},...", ["a", "b{x=1}", "cse", "c", "cse", "d"]),
        ("...,a,c,...", ["a", "c", "cse", "d"]),
        ("...,c", ["a", "b", "cse", "c"]),
        ("c,...", ["c", "cse", "d"]),
        ("...,mine", ["a", "b", "cse", "c", "cse", "d", "mine"]),
        ("mine,...", ["mine", "a", "b", "cse", "c", "cse", "d"]),
        ("...,b,cse,mine,...", ["a", "b", "cse", "mine", "cse", "c", "cse", "d"]),
        ("...,a,mine,...,d,other", ["a", "mine", "b", "cse", "c", "cse", "d", "other"]),
    ],
)
def test_edits(text: str, expected: list[str]) -> None:
    assert list(expand(text, DEFAULT)) == expected


@pytest.mark.parametrize("text", ["...,mine,...", "...,...", "...,c,...,a,...", "...,c{x=1,..."])
def test_unclear_edits_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        expand(text, DEFAULT)
