"""What the command line says: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pimc.diagnostics import PimcError, UnsupportedModelError
from pimc.limits import ERROR_CHARACTERS

if TYPE_CHECKING:
    from rich.console import Console

    from pimc.runtime_sim.results import Overflow

_SURROGATE = re.compile("[\ud800-\udfff]")


def prepare() -> None:
    """Let no text fail to be written: what an encoding lacks (or what is half a character) is escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def plain(text: str, longest: int = 100) -> str:
    """Text of a file that may come from anyone, safe to show on a terminal: bounded, what is not printable escaped."""
    shown = _escaped(text[: longest + 1])
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."


def _escaped(text: str, allowed: str = "") -> str:
    return "".join(
        c if c.isprintable() or c in allowed else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def line(text: str) -> str:
    """``text`` as one plain line of bounded length, which says how much is left out."""
    flat = _escaped(" ".join(text[: 2 * ERROR_CHARACTERS].split()))
    left = len(text) - ERROR_CHARACTERS
    if len(flat) <= ERROR_CHARACTERS and left <= ERROR_CHARACTERS:
        return flat
    return f"{flat[:ERROR_CHARACTERS]} ... ({max(left, len(flat) - ERROR_CHARACTERS)} more characters)"


def say(message: str) -> None:
    """One line to the user (or several, already made), on stderr."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it
        sys.stderr.write(f"{_harmless(message)}\n")
        sys.stderr.flush()


def write(text: str) -> None:
    """Part of the command's result, on stdout, at once.  On a terminal, without what would command it."""
    sys.stdout.write(_harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _harmless(text: str) -> str:
    return _escaped(text, "\n\t")


def write_json(value: Mapping[str, object]) -> None:
    """The command's result as one JSON object on one line of stdout."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, allow_nan=False)
    sys.stdout.write(_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
    sys.stdout.flush()


def report(error: PimcError) -> None:
    """Print an error in one bounded line (a list of unsupported things in one line each); then the line of the text it
    is about, notes on other places, and its hint.
    """
    if isinstance(error, UnsupportedModelError):
        first, *items = str(error).splitlines()
        say("\n".join([f"pimc: error: {line(first)}", *(f"  {line(item)}" for item in items)]))
    else:
        say(f"pimc: error: {line(str(error))}")
    if error.excerpt is not None:
        say(str(error.excerpt))
    for note in error.notes:
        say(f"  note: {line(str(note))}")
        if note.excerpt is not None:
            say(str(note.excerpt))
    if error.hint:
        say(f"  hint: {line(error.hint)}")


def warn_of_overflows(overflows: Sequence[Overflow]) -> None:
    """Say on stderr what left the range of fp16 though its operands were finite, if anything did."""
    if overflows:
        from pimc.runtime_sim.results import overflow_message

        say(f"pimc: warning: {line(overflow_message(overflows))}")


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
