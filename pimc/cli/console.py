"""What the command line says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
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


def plain(text: str, longest: int = 100) -> str:
    """Text of a file that may come from anyone, safe to show on a terminal: bounded, without control characters."""
    shown = "".join(character if character.isprintable() else "\ufffd" for character in text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


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
def progress(message: str) -> Iterator[Callable[[str | None], None]]:
    """Show ``message`` with a spinner while the block runs, if a person watches.

    Yields a function that changes the message; None ends the spinner (before output that it would disturb).
    """
    if not watched():
        yield lambda _: None
        return
    with stderr_console().status(message) as status:
        yield lambda text: status.stop() if text is None else status.update(text)


@contextmanager
def prompt_progress() -> Iterator[Callable[[int, int], None]]:
    """Show how much of a prompt is done while a person waits for the answer; yields what is to be told."""
    with progress("reading the prompt") as update:
        yield lambda done, whole: update(f"reading the prompt: {done} of {whole} tokens" if done < whole else None)


def prepare_simulator() -> None:
    """Load the simulator; where it has to be compiled first, say so and how far it is, if a person watches."""
    from pimc.runtime_sim import prepare

    if not watched():
        prepare()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr_console(), transient=True) as bar:
        task = bar.add_task("compiling the simulator (once)", total=1.0, visible=False)

        def show(done: float | None) -> None:
            what = "waiting: another process compiles" if done is None else "compiling"
            bar.update(task, visible=True, completed=done or 0.0, description=f"{what} the simulator (once)")

        prepare(show)
