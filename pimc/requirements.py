"""What reading models needs beside pimc itself, and how to get it."""

from __future__ import annotations

import importlib.metadata

_DISTRIBUTION, _EXTRA = "pimc", "import"


def own_requirements() -> tuple[str, ...]:
    """The packages that pimc itself needs, as ``name==version``; none where pimc is no installed package."""
    return tuple(name for name, marker in _requirements() if not marker)


def import_requirements() -> tuple[str, ...]:
    """The packages of the extra ``import``, as ``name==version``; none where pimc is no installed package."""
    wanted = (f'extra == "{_EXTRA}"', f"extra == '{_EXTRA}'")
    return tuple(name for name, marker in _requirements() if marker in wanted)


def _requirements() -> list[tuple[str, str]]:
    """Requirement and marker of each."""
    try:
        found = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    pairs = (requirement.partition(";") for requirement in found)
    return [(name.strip(), marker.strip()) for name, _, marker in pairs]


def import_hint() -> str:
    """The line that installs them: by name and version, since pimc itself may be on no index."""
    packages = import_requirements()
    return f"pip install {' '.join(packages)}" if packages else f"in pimc's source folder: pip install '.[{_EXTRA}]'"
