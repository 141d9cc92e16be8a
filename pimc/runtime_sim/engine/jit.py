"""The one way engine functions are compiled.

Only the entry points, which Python calls, are kept compiled (see ``pimc.runtime_sim.compiled``): they contain the
others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
from numba import types

from pimc.runtime_sim.compiled import ENGINE_SOURCES, EntryPoint, Sources
from pimc.runtime_sim.engine.guard import GUARDED

#: Inner functions are only called by compiled ones and only see memory they do not own: no wrappers, no counting of
#: references (halves the time to compile).
_INNER = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "boundscheck": GUARDED}

P = ParamSpec("P")
R = TypeVar("R")


def _one_signature(compiled: Any) -> Any:  # noqa: ANN401
    """Let every caller share one compiled version: numba would make another for each constant passed as argument."""
    resolve = compiled.get_call_template

    def get_call_template(args: Any, kws: Any) -> Any:  # noqa: ANN401
        plain = tuple(types.unliteral(arg) for arg in args)
        return resolve(tuple(types.int64 if isinstance(arg, types.Integer) else arg for arg in plain), kws)

    compiled.get_call_template = get_call_template
    return compiled


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function of the engine (never kept alone: the entry point contains it)."""
    compiled: Callable[P, R] = _one_signature(numba.njit(_nrt=False, **_INNER)(function))
    return compiled


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`jit`, for accessors of a few instructions."""
    compiled: Callable[P, R] = _one_signature(numba.njit(forceinline=True, **_INNER)(function))
    return compiled


def entry_point(*arguments: object, sources: Sources = ENGINE_SOURCES) -> Callable[[Callable[P, R]], EntryPoint[P, R]]:
    """As :func:`jit`, for a function that Python calls with arguments of these numba types."""

    def wrap(function: Callable[P, R]) -> EntryPoint[P, R]:
        return EntryPoint(
            numba.njit(error_model="numpy", nogil=True, boundscheck=GUARDED)(function), arguments, sources
        )

    return wrap
