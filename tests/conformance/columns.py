"""Running one case in one column, and what came of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any, Final, Literal

import numpy as np

from conformance.cases import Array, Case
from conformance.reasons import refusal
from pimc.diagnostics import PimcError, UnsupportedModelError
from pimc.driver.compile import Options, Plan, compile_imported, plan
from pimc.frontends.model import ImportedModel
from pimc.frontends.onnx import import_onnx
from pimc.frontends.onnx.nodes import needed_inputs
from pimc.ir.interpreter import Interpreter
from pimc.runtime import Executable

Column = Literal["interpreter", "hardware"]
COLUMNS: Final[tuple[Column, ...]] = ("interpreter", "hardware")
Status = Literal["passed", "failed", "refused"]

RTOL_FP16: Final = 1e-2
ATOL_FP16: Final = 2e-3
"""How near the hardware must be: ``|got - want| <= ATOL * largest |want| + RTOL * |want|``.

Storage is fp16, so every tensor between two operators is rounded to 11 bits, 4.9e-4 relative.  A case is one
operator or the dozen of an operator's definition; errors of single elements are relative to the largest numbers
they are sums of, which is what the absolute term is for.
"""
RTOL_16_BIT: Final[Mapping[str, float]] = {"float16": 2.0**-9, "bfloat16": 2.0**-6}
"""Least relative tolerance of outputs with 16 bits, in the interpreter column: two units in the last place.

The expected values were rounded after every step, the interpreter rounds where the model says so; the suite's own
1e-3 is less than one unit of a bfloat16.
"""
CPU_SECONDS: Final = 30.0
"""CPU time that a case may take in a column."""
_LARGEST: Final = 65504.0


@dataclass(frozen=True)
class Outcome:
    """What came of a case: why it failed or was refused, and the inputs whose values were fixed at compile time.

    ``folded``: these were all its inputs, so the compiler computed the outputs.
    """

    status: Status
    reason: str = ""
    detail: str = ""
    bound: tuple[str, ...] = ()
    folded: bool = False
    seconds: float = 0.0


class _Refused(Exception):  # noqa: N818 - an outcome
    """The harness itself cannot ask the question of a column."""


class _TimeLimit(BaseException):
    """The case has had its CPU time; not an Exception, so that nothing on the way takes it for one of its own."""


def run_case(case: Case, column: Column, seconds: float = CPU_SECONDS) -> Outcome:
    """Import, run and compare one case, in at most ``seconds`` of CPU time (main thread only)."""
    began = time.perf_counter()
    try:
        with _limited(seconds):
            outcome = _outcome(case, column)
    except _TimeLimit:
        outcome = Outcome("failed", "time limit", f"more than {seconds:g} s")
    return replace(outcome, detail=outcome.detail[:300], seconds=time.perf_counter() - began)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def expired(number: int, frame: FrameType | None) -> None:
        raise _TimeLimit

    before = signal.signal(signal.SIGPROF, expired)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _outcome(case: Case, column: Column) -> Outcome:
    bound: tuple[str, ...] = ()
    try:
        inputs, expected = case.arrays
        model, bound = _import(case, inputs)
        given = {name: value for name, value in inputs.items() if name not in bound}
        got = _RUN[column](model, given, expected)
        problem = _difference(case, column, got, expected)
        if problem and column == "hardware":
            _refuse_unless_representable(case, bound, got)
    except _Refused as refused:
        return Outcome("refused", str(refused), "", bound)
    except PimcError as error:
        reason = refusal(error)
        return Outcome("refused" if reason else "failed", reason or "an error", _text(error), bound)
    except Exception as error:  # noqa: BLE001 - anything that is no PimcError is a crash, and a failure
        return Outcome("failed", "crash", _text(error), bound)
    if problem:
        return Outcome("failed", "wrong result", problem, bound)
    return Outcome("passed", bound=bound, folded=bool(inputs) and not given)


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _import(case: Case, inputs: Mapping[str, Any]) -> tuple[ImportedModel, tuple[str, ...]]:
    """The imported model; inputs that its shapes depend on get the case's values."""
    bind: dict[str, Array] = {}
    while True:
        try:
            return import_onnx(case.model, bind=bind), tuple(sorted(bind))
        except UnsupportedModelError as error:
            more = needed_inputs(error) - set(bind)
            if not more or any(inputs.get(name) is None for name in more):
                raise
            bind |= {name: np.asarray(inputs[name]) for name in more}


def _interpret(model: ImportedModel, inputs: Mapping[str, Any], expected: list[Any]) -> list[Array]:
    interpreter = Interpreter(model.module, model.weights, "f32")
    return list(interpreter.call("main", {name: np.asarray(value) for name, value in inputs.items()}).values())


@cache
def _plan() -> Plan:
    return plan(Options())


def _simulate(model: ImportedModel, inputs: Mapping[str, Any], expected: list[Any]) -> list[Array]:
    for array in map(np.asarray, (*inputs.values(), *expected)):
        if beyond_hardware(array):
            kind = "fp16" if _is_float(array) else "32-bit integers"
            raise _Refused(f"a value beyond the range of {kind}")
    compiled = compile_imported(model, planned=_plan())
    executable = Executable(compiled.program, compiled.target)
    result = executable.run({name: np.asarray(value) for name, value in inputs.items()}, entry="main")
    return list(result.outputs.values())


_RUN: Final[Mapping[Column, Callable[[ImportedModel, Mapping[str, Any], list[Any]], list[Array]]]] = {
    "interpreter": _interpret,
    "hardware": _simulate,
}


def _refuse_unless_representable(case: Case, bound: tuple[str, ...], got: list[Array]) -> None:
    """Refuse a case that fp16 cannot put (softmax of 10000, 10001 ...): the fp32 reference gives the expected outputs,
    but not once the inputs are rounded to fp16; and then it gives what the hardware gives.
    """
    inputs, expected = case.arrays
    model, _ = _import(case, inputs)
    exact = {name: np.asarray(value) for name, value in inputs.items() if name not in bound}
    rounded = {name: _half(value) for name, value in exact.items()}
    reference = _interpret(model, rounded, expected)
    outside = _difference(case, "hardware", reference, expected)
    right = not _difference(case, "hardware", _interpret(model, exact, expected), expected)
    if right and outside and not _difference(case, "hardware", got, reference):
        raise _Refused("inputs that fp16 cannot tell apart")


def _half(array: Array) -> Array:
    return array.astype(np.float16).astype(array.dtype) if _is_float(array) else array


def beyond_hardware(array: Array) -> bool:
    """Whether an array has a value that the hardware's types (fp16, i32) do not have: no run could be right."""
    if _is_float(array):
        finite = np.abs(array[np.isfinite(array)].astype(np.float64))
        return float(finite.max(initial=0.0)) > _LARGEST
    whole = array.dtype.kind in "iu" and array.size > 0
    return whole and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31


def _is_float(array: Array) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _difference(case: Case, column: Column, got: list[Array], expected: list[Any]) -> str:
    """What is wrong with the outputs; empty if nothing is."""
    if len(got) != len(expected):
        return f"{len(got)} outputs instead of {len(expected)}"
    for index, (have, want) in enumerate(zip(got, expected, strict=True)):
        want = np.asarray(want)
        if have.shape != want.shape:
            return f"output {index} has the shape {have.shape} instead of {want.shape}"
        if _is_float(have) != _is_float(want):
            return f"output {index} holds {have.dtype} instead of {want.dtype}"
        if not _is_float(want):
            if have.dtype != want.dtype:
                return f"output {index} holds {have.dtype} instead of {want.dtype}"
            if not np.array_equal(have, want):
                return f"output {index}: {int((have != want).sum())} of {want.size} elements differ"
            continue
        rtol, atol = _tolerance(case, column, want)
        have, want = have.astype(np.float64), want.astype(np.float64)
        with np.errstate(all="ignore"):
            near = np.isclose(have, want, rtol=rtol, atol=atol, equal_nan=True)
        if not near.all():
            worst = float(np.nanmax(np.abs(have - want)[~near])) if np.isfinite((have - want)[~near]).any() else np.inf
            return f"output {index}: {int((~near).sum())} of {near.size} elements differ, by up to {worst:.3g}"
    return ""


def _tolerance(case: Case, column: Column, want: Array) -> tuple[float, float]:
    if column == "interpreter":
        rtol = RTOL_16_BIT.get(want.dtype.name, 0.0)
        return max(case.rtol, rtol), max(case.atol, rtol / 16)
    want = want.astype(np.float64)
    finite = np.abs(want[np.isfinite(want)])
    return max(case.rtol, RTOL_FP16), max(case.atol, ATOL_FP16 * float(finite.max(initial=0.0)))
