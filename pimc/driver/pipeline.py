"""The default pipeline, and how ``-p`` replaces or edits it.

``-p`` takes the text of a whole pipeline, passes separated by commas with options in braces, or an edit of the
default one: ``...`` stands for the default passes between its neighbours.

    ...,place,my-pass,...           insert my-pass after place
    ...,my-pass,place,...           insert my-pass before place
    ...,place{policy=paper},...     replace place's options
    ...,annotate,partition,...      drop what lies between annotate and partition

The neighbours that count (anchors) are passes that occur once in the default pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator

from pimc.diagnostics import UsageError
from pimc.passes.pipeline import split_pipeline

DEFAULT = (
    "canonicalize",
    "raise",
    "legalize",
    "outline",
    "annotate",
    "place",
    "partition",
    "layout",
    "tile",
    "schedule",
    "lower",
    "allocate",
    "emit",
    "link",
)
ELLIPSIS = "..."


def pass_name(item: str) -> str:
    """The name of the pass in ``name{options}``."""
    return item.partition("{")[0].strip()


def expand(text: str | None, default: tuple[str, ...] = DEFAULT) -> tuple[str, ...]:
    """The passes to run, each as ``name{options}``: ``text``, with every ``...`` expanded from ``default``.

    Raises:
        UsageError: the text is malformed, or an ellipsis does not say which default passes it stands for.
    """
    if text is None:
        return default
    items = split_pipeline(text)
    return tuple(_expanded(items, tuple(pass_name(item) for item in default), default))


def _expanded(items: list[str], names: tuple[str, ...], default: tuple[str, ...]) -> Iterator[str]:
    for index, item in enumerate(items):
        if item != ELLIPSIS:
            yield item
            continue
        before = _anchor(reversed(items[:index]), names)
        after = _anchor(iter(items[index + 1 :]), names)
        if ELLIPSIS in {before, after}:
            raise UsageError(
                "two '...' in the pipeline with no default pass between them",
                hint="name the neighbour: '...,place,my-pass,...' inserts my-pass after place",
            )
        start = 0 if before is None else names.index(before) + 1
        stop = len(names) if after is None else names.index(after)
        if start > stop:
            raise UsageError(
                f"'{before}' comes after '{after}' in the default pipeline, so '...' between them is empty",
                hint=f"default pipeline: {','.join(default)}",
            )
        yield from default[start:stop]


def _anchor(items: Iterator[str], names: tuple[str, ...]) -> str | None:
    """The first anchor or ellipsis among ``items``; None if neither occurs."""
    for item in items:
        name = ELLIPSIS if item == ELLIPSIS else pass_name(item)
        if name == ELLIPSIS or names.count(name) == 1:
            return name
    return None
