"""Text files from users."""

from __future__ import annotations

import sys
from pathlib import Path

from pimc.diagnostics import InputError


def read_text(path: str) -> str:
    """The text of a file, or of standard input for ``-``.

    Raises:
        InputError: it cannot be read, or is not UTF-8 text.
    """
    try:
        return sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text", where=path) from error
