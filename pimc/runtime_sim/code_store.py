"""Where compiled engines are kept: sealed files in a folder that only its owner can write.

What is read here is executed, so a file is used only if it and its folder belong to the user (or to root) and nobody
else may write them, and if its content has the digest that it was sealed with.  A file that is cut, changed or not
there is the same: it is compiled again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pimc.files import cache_folder

_MAGIC = b"pimc engine 1\n"
_SEAL = len(_MAGIC) + 2 * hashlib.sha256().digest_size
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
#: Seconds between two looks at a lock that another process holds.
_POLL_S = 0.1
#: Engines kept, by last use; seconds after which what a killed process left behind is removed.
_KEPT = 16
_ABANDONED_S = 86_400.0


def default_folder() -> Path:
    """Where engines are kept: ``engines`` in the user's cache folder."""
    return cache_folder() / "engines"


def seal(key: str, payload: bytes) -> bytes:
    """``payload`` with what shows that it is whole and was made for ``key``."""
    name = hashlib.sha256(key.encode()).digest()
    return _MAGIC + name + hashlib.sha256(name + payload).digest() + payload


def unseal(key: str, content: bytes) -> bytes | None:
    """The payload of sealed ``content``, None if it is not whole or was made for another key."""
    name = hashlib.sha256(key.encode()).digest()
    payload = content[_SEAL:]
    return payload if content[:_SEAL] == _MAGIC + name + hashlib.sha256(name + payload).digest() else None


@dataclass(frozen=True)
class CodeStore:
    """Sealed files of compiled code in one folder, a file a key."""

    folder: Path

    def read(self, key: str) -> bytes | None:
        """The payload kept for ``key``; None if there is none that is whole and to be trusted."""
        try:
            with self._opened() as folder:
                handle = os.open(self._name(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                with os.fdopen(handle, "rb") as file:
                    if not _trusted(os.fstat(handle), stat.S_IFREG):
                        return None
                    payload = unseal(key, file.read())
                if payload is not None:
                    with suppress(OSError):
                        os.utime(self._name(key), dir_fd=folder)  # the order of last use
                return payload
        except OSError:
            return None

    def refusal(self) -> str | None:
        """Make the folder if need be; why nothing can be kept in it, None if it can."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
            with self._opened():
                pass
            with tempfile.TemporaryFile(dir=self.folder):
                return None
        except OSError as error:
            return error.strerror or str(error)

    def keep(self, key: str, payload: bytes) -> None:
        """Keep ``payload`` under ``key``; whoever reads sees all of it or nothing.

        Raises:
            OSError: it cannot be written.
        """
        handle, name = tempfile.mkstemp(prefix=".", suffix=".partial", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(seal(key, payload))
            os.replace(name, self.folder / self._name(key))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._prune()

    @contextmanager
    def locked(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of ``key`` among processes and threads; ``waiting`` is called while another holds it.

        The system takes it from a holder that dies.  Where the file system has no locks, nothing is held: two may then
        compile the same at once, and the last one's file stays.
        """
        handle = self._lock_file(key)
        if handle is None:
            yield
            return
        try:
            _wait_for(handle, waiting)
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process forked meanwhile has this handle, too
            os.close(handle)

    def _lock_file(self, key: str) -> int | None:
        """A handle of the lock file of ``key``, None where there are no locks."""
        try:
            handle = os.open(self.folder / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(handle, fcntl.LOCK_UN)
        except BlockingIOError:
            pass
        except OSError:
            os.close(handle)
            return None
        return handle

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """A handle of the folder; OSError if others could have put something there."""
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _trusted(os.fstat(handle), stat.S_IFDIR):
                raise PermissionError(None, "it belongs to another user, or others may write it")
            yield handle
        finally:
            os.close(handle)

    def _name(self, key: str) -> str:
        return f"{key}.code"

    def _prune(self) -> None:
        """Remove the engines that were not used for longest, and what killed processes left."""
        with suppress(OSError):
            ages = {path: path.stat().st_mtime for path in self.folder.iterdir()}
            kept = sorted((path for path in ages if path.suffix == ".code"), key=ages.__getitem__, reverse=True)
            gone = [*kept[_KEPT:], *(path.with_suffix(".lock") for path in kept[_KEPT:])]
            now = time.time()
            gone += [path for path in ages if path.suffix == ".partial" and now - ages[path] > _ABANDONED_S]
            for path in gone:
                path.unlink(missing_ok=True)


def _trusted(status: os.stat_result, kind: int) -> bool:
    """Whether a file or folder belongs to the user or root and nobody else may write it."""
    mine = status.st_uid in {os.geteuid(), 0}
    return mine and stat.S_IFMT(status.st_mode) == kind and not status.st_mode & _OTHERS_WRITE


def _wait_for(handle: int, waiting: Callable[[], None]) -> None:
    """Take the lock of an open file, in steps that an interrupt from the keyboard can end."""
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            time.sleep(_POLL_S)
        else:
            return
