"""Locks and the like after ``fork``: the child has one thread, so nobody is left to open what others held."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol


class Renewable(Protocol):
    """Something that a forked process has to make anew."""

    def renew(self) -> None:
        """Make anew what belonged to the threads of the process that was forked."""


_RENEWED: Final[weakref.WeakSet[Renewable]] = weakref.WeakSet()


def renew_in_child(item: Renewable) -> None:
    """Call ``item.renew()`` in every process that is forked from this one, as long as ``item`` lives."""
    _RENEWED.add(item)


def _renew() -> None:
    for item in list(_RENEWED):
        item.renew()


os.register_at_fork(after_in_child=_renew)


class ForkSafeLock:
    """A reentrant lock that a forked process finds open."""

    def __init__(self) -> None:
        self.renew()
        renew_in_child(self)

    def renew(self) -> None:
        """Open it."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
