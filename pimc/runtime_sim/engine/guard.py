"""The guarded build of the engine, for finding memory errors: ``PIMC_GUARD=1``.

Every native array then lies in a mapping of its own, with an inaccessible page directly before and behind it, and is
registered in a table.  Compiled code checks every view it makes against that table (``intrinsics.make_view``), and
every index against its view (numba's ``boundscheck``).  Without ``PIMC_GUARD`` nothing of this is compiled in.

The table is native memory of the process, since views are made from addresses alone: a count, the address and size of
the first view that failed, the places of the last views, and then (start, end) of every array.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Whether this process uses the guarded build.
GUARDED = os.environ.get("PIMC_GUARD", "") not in ("", "0")

#: The symbol that guarded code calls: ``int64 check(int64 address, int64 bytes)``, 0 for a bad view.
CHECK_SYMBOL = "pimc_guard_check"

_CAPACITY = 1 << 14
_COUNT, _ADDRESS, _BYTES, _NEXT, _LAST = range(5)
_RECENT = 8  # views remembered, from _LAST on
_ENTRIES = 16  # where the (start, end) pairs begin


@dataclass
class _Registry:
    """The arrays that are alive: their places in the native table and their names."""

    table: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_ENTRIES + 2 * _CAPACITY, np.int64))
    names: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Register an array until it is collected."""
        start, end = array.ctypes.data, array.ctypes.data + array.nbytes
        with self.lock:
            place = len(self.names)
            if place == _CAPACITY:
                raise MemoryError("the table of guarded arrays is full")
            self.names.append(name)
            self.table[_ENTRIES + 2 * place : _ENTRIES + 2 * place + 2] = start, end
            self.table[_COUNT] = place + 1
        weakref.finalize(array, self.remove, start)

    def remove(self, start: int) -> None:
        """Forget the array that starts at an address: the last one takes its place."""
        with self.lock:
            count = len(self.names)
            starts = self.table[_ENTRIES : _ENTRIES + 2 * count : 2]
            (found,) = np.nonzero(starts == start)
            place, last = int(found[0]), count - 1
            self.names[place] = self.names[last]
            pairs = self.table[_ENTRIES : _ENTRIES + 2 * count].reshape(-1, 2)
            pairs[place] = pairs[last]
            self.names.pop()
            self.table[_COUNT] = last

    def explain(self) -> str:
        """What the failed view was, and near which array; the arrays of the last views for a failed index."""
        with self.lock:
            address, size = int(self.table[_ADDRESS]), int(self.table[_BYTES])
            count = len(self.names)
            pairs = self.table[_ENTRIES : _ENTRIES + 2 * count].reshape(-1, 2)
            if address == 0:
                recent = {self.names[int(place)] for place in self.table[_LAST : _LAST + _RECENT] if place < count}
                return f"an index is outside its view, of one of the arrays {', '.join(sorted(recent))}"
            self.table[_ADDRESS] = 0
            before = [place for place in range(count) if pairs[place, 0] <= address]
            if not before:
                return f"a view of {size} bytes lies before every array"
            place = max(before, key=lambda place: int(pairs[place, 0]))
            start, end = (int(edge) for edge in pairs[place])
            return (
                f"a view of {size} bytes at byte {address - start} leaves the array {self.names[place]} "
                f"of {end - start} bytes"
            )


@lru_cache(maxsize=1)
def _registry() -> _Registry:
    return _Registry()


def explain() -> str:
    """Words for the memory error that guarded code has just raised."""
    return _registry().explain()


def zeros(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of zeros between two inaccessible pages, its end at the end of its last page, registered as ``name``."""
    page = mmap.PAGESIZE
    count = int(np.prod(shape, dtype=np.int64))
    size = count * dtype.itemsize
    inner = -(-size // page) * page
    memory = mmap.mmap(-1, inner + 2 * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for edge in (base, base + page + inner):
        if protect(edge, page, 0):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    array: NDArray[Any] = np.frombuffer(memory, dtype, count, page + inner - size).reshape(shape)
    _registry().add(name, array)
    return array


@lru_cache(maxsize=1)
def install(view: Callable[[int, int], NDArray[np.int64]]) -> Any:  # noqa: ANN401
    """Compile the check and make it known to the linker of compiled code; returns what must stay alive.

    ``view``: an int64 view of raw memory, not guarded itself.
    """
    import llvmlite.binding as llvm
    from numba import cfunc, types

    table_at, words = _registry().table.ctypes.data, _registry().table.size

    def check(start: int, size: int) -> int:
        t = view(table_at, words)
        for place in range(t[_COUNT]):
            at = _ENTRIES + 2 * place
            if size > 0 and t[at] <= start and start + size <= t[at + 1]:
                t[_LAST + t[_NEXT]] = place
                t[_NEXT] = (t[_NEXT] + 1) % _RECENT
                return 1
        if t[_ADDRESS] == 0:
            t[_ADDRESS], t[_BYTES] = start, size
        return 0

    compiled = cfunc(types.int64(types.int64, types.int64))(check)
    llvm.add_symbol(CHECK_SYMBOL, compiled.address)
    return compiled
