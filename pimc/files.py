"""Files that pimc reads: ordinary ones, of bounded size where they are text; and the folder for what it keeps."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from pimc.diagnostics import InputError
from pimc.limits import Limit

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def cache_folder() -> Path:
    """Where pimc keeps what it can make again: ``$PIMC_CACHE``, ``$XDG_CACHE_HOME/pimc`` or ``~/.cache/pimc``."""
    own = os.environ.get("PIMC_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pimc"


def reason(error: OSError) -> str:
    """What the system says, without the name of the file; some libraries set no ``strerror``."""
    return error.strerror or str(error) or type(error).__name__


def regular_file(path: str | Path) -> Path:
    """``path`` if an ordinary file is there (links are followed): others could block or have no end.

    Raises:
        InputError: nothing is there, or something else.
    """
    found = Path(path)
    try:
        mode = found.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {why}", where=str(path)) from error
    for is_kind, name in _KINDS:
        if is_kind(mode):
            hint = "copy what it gives into a file first"
            raise InputError(f"is {name}, not a file", where=str(path), hint=None if stat.S_ISDIR(mode) else hint)
    return found


def read_text(path: str | Path, limit: Limit, *, stdin: bool = False) -> str:
    """The text (UTF-8) of a file of at most ``limit`` bytes; of standard input for ``-`` if ``stdin``.

    Raises:
        InputError: it is no ordinary file, cannot be read, is too long, or is not UTF-8 text.
    """
    where = str(path)
    try:
        if stdin and where == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with regular_file(path).open("rb") as file:
                data = file.read(limit + 1)
        if len(data) > limit:
            raise InputError(f"has more than {limit.text}", where=where)
        return data.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}", where=where) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where=where) from error
