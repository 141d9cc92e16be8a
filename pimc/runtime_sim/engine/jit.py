"""The one way engine functions are compiled, and where compiled code is kept.

numba's own cache notices a change of the file of the cached function only, not of the files of the functions it calls;
so the folder of the cache is named after a digest of all sources that are compiled.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba import types

#: Inner functions are only called by compiled ones and only see memory they do not own: no wrappers, no counting of
#: references (halves the time to compile).
_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

P = ParamSpec("P")
R = TypeVar("R")


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Folder of compiled engines: ``$PIMC_CACHE`` or the user's cache folder, then numba version and digest."""
    digest = hashlib.sha256(numba.__version__.encode())
    here = Path(__file__).parent
    for path in (*sorted(here.glob("*.py")), here.parent / "dram.py", here.parents[1] / "targets" / "dram_spec.py"):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    base = os.environ.get("PIMC_CACHE")
    root = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pimc"
    return root / f"engine-{digest.hexdigest()[:16]}"


def _one_signature(compiled: Any) -> Any:  # noqa: ANN401
    """Let every caller share one compiled version: numba would make another for each constant passed as argument."""
    resolve = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:  # noqa: ANN401
        plain = tuple(types.unliteral(arg) for arg in args)
        return resolve(tuple(types.int64 if isinstance(arg, types.Integer) else arg for arg in plain), kws)

    compiled.get_call_template = get_call_template
    return compiled


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of the engine (never cached alone: the entry point contains it)."""
    compiled: Callable[P, R] = _one_signature(numba.njit(_nrt=False, **_INNER)(function))
    return compiled


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`jit`, for accessors of a few instructions."""
    compiled: Callable[P, R] = _one_signature(numba.njit(forceinline=True, **_INNER)(function))
    return compiled


def entry_point(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`jit`, for the functions Python calls: cached in :func:`cache_folder`."""
    saved = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_folder())
    try:
        compiled: Callable[P, R] = numba.njit(error_model="numpy", nogil=True, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = saved
    return compiled
