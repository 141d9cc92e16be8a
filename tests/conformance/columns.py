"""Running one case in one column: import, run, compare."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import Any, Final

import numpy as np

from conformance.outcomes import Array, Column, Decided, Outcome, Tolerance, beyond_hardware, different_values, is_float
from conformance.reasons import refusal, told
from pimc.diagnostics import PimcError
from pimc.driver.compile import Options, Plan, compile_imported, plan
from pimc.frontends.model import ImportedModel
from pimc.ir.interpreter import Interpreter
from pimc.runtime import Executable

CPU_SECONDS: Final = 30.0
"""CPU time that a case may take in a column."""


@dataclass(frozen=True, eq=False)
class Case(ABC):
    """One case: inputs, what they give, and how to import the model that is to give it."""

    name: str
    operator: str

    @property
    @abstractmethod
    def arrays(self) -> tuple[dict[str, Any], list[Any]]:
        """Inputs by name, and the expected outputs in order.

        Raises:
            Decided: the case has no such question.
        """

    @abstractmethod
    def imported(self) -> tuple[ImportedModel, tuple[str, ...]]:
        """The imported model, fresh, and the inputs whose values it was given for that.

        Raises:
            PimcError: of the frontend.
        """

    @abstractmethod
    def tolerance(self, column: Column, want: Array) -> Tolerance:
        """How near an output of floating-point numbers must be."""

    @abstractmethod
    def judge_rounded(self, bound: tuple[str, ...], got: list[Array]) -> None:
        """Decide about outputs of the hardware that differ, if rounding the inputs to fp16 explains them.

        Raises:
            Decided: it does.
        """

    def same_type(self, have: Array, want: Array) -> bool:
        """Whether an output that holds no floating-point numbers has the type that it should have."""
        return have.dtype == want.dtype

    def difference(self, column: Column, got: Sequence[Array], expected: Sequence[Any]) -> str:
        """What is wrong with the outputs; empty if nothing is."""
        if len(got) != len(expected):
            return f"{len(got)} outputs instead of {len(expected)}"
        for index, (have, want) in enumerate(zip(got, map(np.asarray, expected), strict=True)):
            if have.shape != want.shape:
                return f"output {index} has the shape {have.shape} instead of {want.shape}"
            if is_float(have) != is_float(want) or not (is_float(want) or self.same_type(have, want)):
                return f"output {index} holds {have.dtype} instead of {want.dtype}"
            if problem := different_values(have, want, self.tolerance(column, want)):
                return f"output {index}: {problem}"
        return ""


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
        model, bound = case.imported()
        given = {name: value for name, value in inputs.items() if name not in bound}
        got = _RUN[column](model, given, expected)
        problem = case.difference(column, got, expected)
        if problem and column == "hardware":
            case.judge_rounded(bound, got)
    except Decided as decided:
        return Outcome(decided.status, decided.reason, "", bound)
    except PimcError as error:
        reason = refusal(error)
        if reason:
            return Outcome("refused", reason, told(error), bound)
        return Outcome("failed", "an error", _text(error), bound)
    except Exception as error:  # noqa: BLE001 - anything that is no PimcError is a crash, and a failure
        return Outcome("failed", "crash", _text(error), bound)
    if problem:
        return Outcome("failed", "wrong result", problem, bound)
    return Outcome("passed", bound=bound, folded=bool(inputs) and not given)


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def interpret(model: ImportedModel, inputs: Mapping[str, Any], expected: Sequence[Any] = ()) -> list[Array]:
    """The outputs of the reference interpreter, in fp32."""
    interpreter = Interpreter(model.module, model.weights, "f32")
    return list(interpreter.call("main", {name: np.asarray(value) for name, value in inputs.items()}).values())


@cache
def _plan() -> Plan:
    return plan(Options())


def _simulate(model: ImportedModel, inputs: Mapping[str, Any], expected: Sequence[Any]) -> list[Array]:
    for array in map(np.asarray, (*inputs.values(), *expected)):
        if beyond_hardware(array):
            kind = "fp16" if is_float(array) else "32-bit integers"
            raise Decided("refused", f"a value beyond the range of {kind}")
    compiled = compile_imported(model, planned=_plan())
    executable = Executable(compiled.program, compiled.target)
    result = executable.run({name: np.asarray(value) for name, value in inputs.items()}, entry="main")
    return list(result.outputs.values())


_RUN: Final[Mapping[Column, Callable[[ImportedModel, Mapping[str, Any], Sequence[Any]], list[Array]]]] = {
    "interpreter": interpret,
    "hardware": _simulate,
}
