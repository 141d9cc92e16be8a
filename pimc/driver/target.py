"""Which hardware a command means: a bundled target, a file, or what a binary was compiled for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from pimc.diagnostics import InputError, TargetError, UsageError
from pimc.isa.program import Program
from pimc.targets import Target, list_targets, load_target

#: Keys of a target and what replaces their values: in a mapping, or as texts ``key=value``.
Overrides: TypeAlias = Mapping[str, int | float | str] | Sequence[str]
OVERRIDES_KEY = "target_overrides"  # in the model metadata of a binary


def override_texts(overrides: Overrides) -> tuple[str, ...]:
    """Overrides as texts ``key=value``.

    Raises:
        UsageError: something else than a mapping from keys to numbers or texts, or a sequence of texts.
    """
    items: object = overrides
    if isinstance(overrides, Mapping):
        items = [f"{key}={value}" for key, value in overrides.items()]
    texts = [item for item in items if isinstance(item, str) and "=" in item] if isinstance(items, Sequence) else []
    if isinstance(items, str) or not isinstance(items, Sequence) or len(texts) != len(items):
        raise UsageError(
            f"{str(overrides)[:80]!r} are no overrides of a target",
            hint="give {'hbm.timing.nFAW': 20} or ['hbm.timing.nFAW=20']; `pimc targets NAME` lists the keys",
        )
    return tuple(texts)


def target_of(program: Program, source: str | Path | None = None, overrides: Sequence[str] = ()) -> Target:
    """The target to simulate ``program`` on.

    By default the one it was compiled for, overrides included.  Whoever names a target or an override means it:
    the same binary on hardware with other timing is a fair experiment.

    Args:
        source: a bundled target's name or a TOML file, None for the program's own.
        overrides: single keys to replace, each ``key.key=value``.

    Raises:
        InputError: the program's own target is not (or no longer) the one that comes with pimc.
    """
    if source is not None or overrides:
        return load_target(source or _own_name(program), overrides)
    target = load_target(_own_name(program), _own_overrides(program))
    if target.digest != program.target_digest:
        raise InputError(
            f"the binary was compiled for another description of target '{program.target_name}'",
            hint="give the --target-file and --set of `pimc compile` again, or compile again",
        )
    return target


def _own_name(program: Program) -> str:
    if program.target_name not in list_targets():
        raise TargetError(
            f"the binary was compiled for target '{program.target_name}', which does not come with pimc",
            hint="name its description with --target-file",
        )
    return program.target_name


def _own_overrides(program: Program) -> list[str]:
    value = (program.model or {}).get(OVERRIDES_KEY, [])
    return [str(item) for item in value] if isinstance(value, list) else []
