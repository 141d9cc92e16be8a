"""The default pipeline, and how ``-p`` replaces or edits it.

``-p`` takes the text of a whole pipeline, passes separated by commas with options in braces, or an edit of the
default one: ``...`` stands for the default passes between its neighbours.

    ...,place,my-pass,...           insert my-pass after place
    ...,my-pass,place,...           insert my-pass before place
    ...,tile{share=40},...          replace the options of tile
    ...,annotate,partition,...      drop what lies between annotate and partition

The neighbours that count (anchors) are passes that occur once in the default pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator

from pimc.diagnostics import UsageError
from pimc.ir.stages import Stage
from pimc.passes.pipeline import split_pipeline
from pimc.passes.registry import PassRegistry

DEFAULT = (
    "canonicalize",
    "raise",
    "legalize",
    "outline",
    "annotate",
    "place",
    "partition",
    "widen",
    "layout",
    "spill",
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


def after(stage: Stage, registry: PassRegistry) -> tuple[str, ...]:
    """The default passes that a module of ``stage`` has before it."""
    produced: list[Stage | None] = [getattr(registry.get(name), "produces", None) for name in DEFAULT]
    done = [index for index, made in enumerate(produced) if made is not None and made <= stage]
    return DEFAULT[done[-1] + 1 :] if done else DEFAULT


def check_names(text: str | None, registry: PassRegistry) -> None:
    """Raise UsageError where a pipeline names a pass that there is not."""
    for item in split_pipeline(text or ""):
        if item != ELLIPSIS and item:
            registry.get(pass_name(item))


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
        first = _anchor(reversed(items[:index]), names)
        last = _anchor(iter(items[index + 1 :]), names)
        if ELLIPSIS in {first, last}:
            raise UsageError(
                f"{_between(items, index)}, so the '...' around do not say which default passes they stand for",
                hint=f"name a neighbour, as in '...,place,my-pass,...'; the default pipeline is {','.join(default)}",
            )
        start = 0 if first is None else names.index(first) + 1
        stop = len(names) if last is None else names.index(last)
        if start > stop:
            raise UsageError(
                f"'{first}' comes after '{last}' in the default pipeline, so '...' between them is empty",
                hint=f"default pipeline: {','.join(default)}",
            )
        yield from default[start:stop]


def _between(items: list[str], index: int) -> str:
    """What stands between the ellipsis at ``index`` and the next one, in words."""
    rest = items[index + 1 :]
    names = [repr(pass_name(item)) for item in rest[: rest.index(ELLIPSIS)]] if ELLIPSIS in rest else []
    if not names:
        return "nothing stands between two '...'"
    return f"{' and '.join(names)} {'is no default pass' if len(names) == 1 else 'are no default passes'}"


def _anchor(items: Iterator[str], names: tuple[str, ...]) -> str | None:
    """The first anchor or ellipsis among ``items``; None if neither occurs."""
    for item in items:
        name = ELLIPSIS if item == ELLIPSIS else pass_name(item)
        if name == ELLIPSIS or names.count(name) == 1:
            return name
    return None
