"""What the command line says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pimc.diagnostics import PimcError, UnsupportedModelError

if TYPE_CHECKING:
    from rich.console import Console


def say(message: str) -> None:
    """One line to the user, on stderr."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """Part of the command's result, on stdout, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(value: Mapping[str, object]) -> None:
    """The command's result as one JSON object on one line of stdout."""
    write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def report(error: PimcError) -> None:
    """Print an error in one line (a list of unsupported things in one line each), and its hint in another."""
    if isinstance(error, UnsupportedModelError):
        first, *items = str(error).splitlines()
        say("\n".join([f"pimc: error: {first}", *(f"  {' '.join(item.split())}" for item in items)]))
    else:
        say(f"pimc: error: {' '.join(str(error).split())}")
    if error.hint:
        say(f"  hint: {error.hint}")


def watched() -> bool:
    """Whether a person watches stderr (a terminal), so that progress is worth drawing."""
    return sys.stderr.isatty()


def stderr_console() -> Console:
    """A rich console on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def progress(message: str) -> Iterator[None]:
    """Show ``message`` with a spinner while the block runs, if a person watches."""
    if not watched():
        yield
        return
    with stderr_console().status(message):
        yield
