"""What ``pimc doctor`` finds: versions, packages, the kept engines, the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pimc import __version__
from pimc.diagnostics import PimcError
from pimc.requirements import import_hint, import_requirements, own_requirements

_OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its name, what was found, and what is wrong (``problem``: it stops pimc from
    working; ``note``: it takes something away).
    """

    name: str
    found: str
    problem: str | None = None
    note: str | None = None


def findings() -> Iterator[Finding]:
    """Everything that matters, in order."""
    yield Finding("pimc", f"{__version__}, {Path(__file__).resolve().parents[1]}")
    too_old = None if sys.version_info >= _OLDEST_PYTHON else "pimc needs Python 3.11 or newer"
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}", too_old)
    yield Finding("system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    yield Finding("processor", f"{_processor()}, {_usable_cores()} of {os.cpu_count()} cores usable")
    for requirement in own_requirements():
        yield _package(requirement, needed=True)
    missing = False
    for requirement in import_requirements():
        finding = _package(requirement, needed=False)
        missing = missing or finding.note is not None
        yield finding
    if missing:
        yield Finding("models", "not all kinds can be compiled", note=import_hint())
    yield _engines()
    yield from _targets()


def _package(requirement: str, *, needed: bool) -> Finding:
    name, _, wanted = requirement.partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", *_wrong(needed, f"pip install {requirement}"))
    # A build of PyTorch says so behind a plus sign.
    if wanted and found.partition("+")[0] != wanted:
        return Finding(name, found, *_wrong(needed, f"tested with {wanted}: pip install {requirement}"))
    return Finding(name, found)


def _wrong(needed: bool, advice: str) -> tuple[str | None, str | None]:
    return (advice, None) if needed else (None, advice)


def _engines() -> Finding:
    """The folder of compiled engines: whether one can be kept, how many there are, and their bytes."""
    from pimc.runtime_sim.code_store import CodeStore, default_folder

    folder = default_folder()
    refusal = CodeStore(folder).refusal()
    if refusal is not None:
        note = f"the simulator is compiled anew in each process; PIMC_CACHE=FOLDER names another folder ({refusal})"
        return Finding("compiled engines", str(folder), note=note)
    sizes = [path.stat().st_size for path in folder.glob("*.code")]
    state = f"{len(sizes)} kept, {sum(sizes) / 1e6:.1f} MB" if sizes else "none yet: the first run compiles one"
    return Finding("compiled engines", f"{folder}: writable, {state}")


def _targets() -> Iterator[Finding]:
    from pimc.targets import list_targets, load_target

    for name in list_targets():
        try:
            yield Finding(f"target {name}", load_target(name).digest[:12])
        except PimcError as error:
            yield Finding(f"target {name}", "damaged", str(error))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
