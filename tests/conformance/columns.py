"""Running one case in one column, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

import numpy as np

from conformance.cases import Array, Case
from conformance.reasons import reason_of
from pimc.diagnostics import PimcError, UnsupportedModelError
from pimc.driver.compile import Options, Plan, compile_imported, plan
from pimc.frontends.model import ImportedModel
from pimc.frontends.onnx import import_onnx
from pimc.frontends.onnx.graph import needed_inputs
from pimc.ir.interpreter import Interpreter
from pimc.runtime import Executable

Column = Literal["interpreter", "hardware"]
COLUMNS: Final[tuple[Column, ...]] = ("interpreter", "hardware")
Status = Literal["passed", "failed", "refused"]

RTOL_FP16: Final = 1e-2
ATOL_FP16: Final = 2e-3
"""How near the hardware must be: ``|got - want| <= ATOL * max(1, largest |want|) + RTOL * |want|``.

Storage is fp16, so every tensor between two operators is rounded to 11 bits, 4.9e-4 relative.  A case is one
operator or the dozen of an operator's definition; errors of single elements are relative to the largest numbers
they are sums of, which is what the absolute term is for.
"""
RTOL_16_BIT: Final[Mapping[str, float]] = {"float16": 2.0**-9, "bfloat16": 2.0**-6}
"""Least relative tolerance of outputs with 16 bits, in the interpreter column: two units in the last place.

The expected values were rounded after every step, the interpreter rounds where the model says so; the suite's own
1e-3 is less than one unit of a bfloat16.
"""
_LARGEST: Final = 65504.0


@dataclass(frozen=True)
class Outcome:
    """What came of a case: why it failed or was refused, and the inputs whose values were fixed at compile time."""

    status: Status
    reason: str = ""
    detail: str = ""
    bound: tuple[str, ...] = ()
    seconds: float = 0.0


class _Refused(Exception):  # noqa: N818 - an outcome
    """The harness itself cannot ask the question of a column."""


def run_case(case: Case, column: Column) -> Outcome:
    """Import, run and compare one case."""
    began = time.perf_counter()
    bound: tuple[str, ...] = ()
    try:
        inputs, expected = case.arrays
        model, bound = _import(case, inputs)
        given = {name: value for name, value in inputs.items() if name not in bound}
        got = _RUN[column](model, given, expected)
        problem = _difference(case, column, got, expected)
        outcome = Outcome("failed", "wrong result", problem, bound) if problem else Outcome("passed", bound=bound)
    except _Refused as refused:
        outcome = Outcome("refused", str(refused), str(refused), bound)
    except PimcError as error:
        internal = error.exit_code == 3
        detail = " ".join(str(error).split())
        outcome = Outcome("failed" if internal else "refused", reason_of(error), detail, bound)
    except Exception as error:  # noqa: BLE001 - anything that is no PimcError is a crash, and a failure
        outcome = Outcome("failed", "crash", f"{type(error).__name__}: {' '.join(str(error).split())}", bound)
    return Outcome(outcome.status, outcome.reason, outcome.detail[:300], bound, time.perf_counter() - began)


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
    for array in (*inputs.values(), *expected):
        finite = np.abs(array[np.isfinite(array)]) if _is_float(np.asarray(array)) else np.zeros(0)
        if finite.size and float(finite.max()) > _LARGEST:
            raise _Refused("value outside the fp16 range")
    compiled = compile_imported(model, planned=_plan())
    executable = Executable(compiled.program, compiled.target)
    result = executable.run({name: np.asarray(value) for name, value in inputs.items()}, entry="main")
    return list(result.outputs.values())


_RUN: Final[Mapping[Column, Callable[[ImportedModel, Mapping[str, Any], list[Any]], list[Array]]]] = {
    "interpreter": _interpret,
    "hardware": _simulate,
}


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
        if not _is_float(want):
            if not np.array_equal(have.astype(want.dtype), want):
                return f"output {index} differs"
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
    return max(case.rtol, RTOL_FP16), max(case.atol, ATOL_FP16 * max(1.0, float(finite.max(initial=0.0))))
