"""Files that appear whole or not at all; what is not a file is written to."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pimc.diagnostics import InputError
from pimc.files import reason

_SUFFIX = ".partial"
_LONGEST_STEM = 160  # bytes of the final name that the temporary one repeats; a name has 255 at most
_YOUNG_S = 60
_DESCRIPTORS = ("/dev/", "/proc/")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on any error.

    The temporary file does not exist when the block starts (so that writers that refuse existing files work).  A
    symbolic link stays, and what it points to is replaced.  A device, a pipe or a descriptor (``/dev/stdout``) is
    written to when the block has ended.  What a killed process left beside ``path`` is removed.

    Raises:
        InputError: the folder of ``path`` does not exist or cannot be written, or writing fails (a full disk).
    """
    try:
        if _is_stream(Path(path)):
            with _collected(Path(path)) as temporary:
                yield temporary
        else:
            with _replaced(Path(os.path.realpath(path))) as temporary:
                yield temporary
    except OSError as error:
        raise InputError(f"cannot be written: {reason(error)}", where=str(path)) from error
    except ValueError as error:
        if "\0" not in str(path):
            raise
        raise InputError(f"cannot be written: {error}", where=str(path)) from error


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_stream(path: Path) -> bool:
    """Whether ``path`` is something to write to rather than a file to replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise InputError("is a folder, not a file to write", where=str(path), hint="name a file in it")
    return not stat.S_ISREG(mode) or os.path.abspath(path).startswith(_DESCRIPTORS)


@contextmanager
def _collected(path: Path) -> Iterator[Path]:
    """A temporary path whose content goes to ``path`` at the end."""
    with tempfile.TemporaryDirectory(prefix="pimc-") as folder:
        temporary = Path(folder) / "output"
        yield temporary
        with temporary.open("rb") as source, path.open("ab") as stream:
            shutil.copyfileobj(source, stream)


@contextmanager
def _replaced(final: Path) -> Iterator[Path]:
    folder, stem = final.parent, os.fsdecode(os.fsencode(final.name)[:_LONGEST_STEM])
    if final.is_symlink():
        raise InputError("cannot write here: the links make a circle", where=str(final))
    if not folder.is_dir():
        raise InputError("cannot write here: no such folder", where=str(folder))
    _remove_litter(folder, stem)
    temporary = folder / f".{stem}.{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    try:
        temporary.open("xb").close()
        temporary.unlink()
    except OSError as error:
        raise InputError(f"cannot write here: {reason(error)}", where=str(folder)) from error
    try:
        yield temporary
        with contextlib.suppress(OSError):  # what was there keeps its permissions
            shutil.copymode(final, temporary)
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_litter(folder: Path, stem: str) -> None:
    """Remove temporary files of the same name whose process is gone (it was killed while it wrote)."""
    pattern = re.compile(rf"\.{re.escape(stem)}\.(\d+)-[0-9a-f]{{8}}{re.escape(_SUFFIX)}")
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = pattern.fullmatch(name)
            if match and not _is_running(int(match[1])) and _age_s(folder / name) > _YOUNG_S:
                (folder / name).unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    """How long ago it was written to: another machine's process may write on a shared disk."""
    return time.time() - path.stat().st_mtime


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
