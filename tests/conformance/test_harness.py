"""The harness itself: what it calls passed, failed and refused; pools, limits, pages and records."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.case.test_case import TestCase as NodeCase

from conformance import columns, onnx_page
from conformance.columns import run_case
from conformance.onnx_cases import OnnxCase
from conformance.outcomes import COLUMNS, Array, Column, Outcome, beyond_hardware
from conformance.pool import run_cases
from conformance.reasons import refusal
from conformance.table import Row
from pimc.diagnostics import InputError, SimError, TargetError, UnsupportedItem, UnsupportedModelError

X = np.array([1.0, 2.0, 3.0], np.float32)


def make_case(operator: str = "Add", want: Array = 2 * X, inputs: int = 2) -> OnnxCase:
    """``operator`` on ``X``, as a case."""
    names = ["a", "b"][:inputs]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in names]
    out = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(want.dtype), list(want.shape))
    node = helper.make_node(operator, names, ["y"])
    graph = helper.make_graph([node], "case", ports, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnx.defs.onnx_opset_version())])
    source = NodeCase("case", "case", None, None, model, [([X] * inputs, [want])], "node", 1e-3, 1e-7)
    return OnnxCase("test_case", operator, source.rtol, source.atol, source)


@pytest.mark.parametrize("column", COLUMNS)
class TestOutcomes:
    def test_a_right_result_is_passed(self, column: Column) -> None:
        assert run_case(make_case(), column).status == "passed"

    @pytest.mark.parametrize(
        ("want", "said"),
        [
            (2 * X + [0, 0, 0.2], "1 of 3 elements differ, by up to 0.2"),
            (np.array([2, np.nan, 6]), "1 of 3 elements differ"),
            (np.array([2, np.inf, 6]), "1 of 3 elements differ"),
            ((2 * X)[None], "shape (3,) instead of (1, 3)"),
        ],
    )
    def test_a_wrong_result_is_failed(self, column: Column, want: Array, said: str) -> None:
        # The model itself says [3]: only what the harness compares with is wrong.
        right = make_case()
        source = replace(right.source, data_sets=[([X, X], [want.astype(np.float32)])])
        outcome = run_case(replace(right, source=source), column)
        assert (outcome.status, outcome.reason) == ("failed", "wrong result")
        assert said in outcome.detail

    def test_an_operator_without_a_conversion_is_refused_with_its_reason(self, column: Column) -> None:
        outcome = run_case(make_case("Bernoulli", X, 1), column)
        assert (outcome.status, outcome.reason) == ("refused", "random numbers")

    @pytest.mark.parametrize("error", [RuntimeError("lost"), SimError("a race"), InputError("op: numpy says no")])
    def test_errors_that_refuse_nothing_are_failures(
        self, column: Column, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(columns, "_RUN", {column: raising(error)})
        outcome = run_case(make_case(), column)
        assert outcome.status == "failed"
        assert str(error) in outcome.detail

    def test_a_case_that_takes_too_long_is_failed(self, column: Column, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(columns, "_RUN", {column: endless})
        outcome = run_case(make_case(), column, seconds=0.05)
        assert (outcome.status, outcome.reason) == ("failed", "time limit")


def raising(error: Exception) -> Callable[..., None]:
    def run(*_: object) -> None:
        raise error

    return run


def endless(*_: object) -> None:
    while True:
        try:
            sum(range(1000))
        except Exception:  # noqa: BLE001 - what a case might do must not hide the limit
            continue


class TestHardwareColumn:
    @pytest.mark.parametrize(
        ("array", "beyond"),
        [
            (np.array([65504.0, -65504.0, np.inf, np.nan]), False),
            (np.array([65536.0]), True),
            (np.array([-(2**31), 2**31 - 1]), False),
            (np.array([2**31]), True),
            (np.array([2**31], np.uint32), True),
            (np.array([], np.float32), False),
        ],
    )
    def test_the_ranges_of_its_types(self, array: Array, beyond: bool) -> None:
        assert beyond_hardware(array) is beyond

    def test_a_value_beyond_fp16_is_refused(self) -> None:
        outcome = run_case(make_case(want=np.array([2, 4, 1e6], np.float32)), "hardware")
        assert (outcome.status, outcome.reason) == ("refused", "a value beyond the range of fp16")

    def test_inputs_that_fp16_cannot_tell_apart_are_refused(self) -> None:
        case = make_case("Softmax", X, 1)
        large = np.array([10000, 10001, 10002], np.float32)
        want = np.exp(large - 10002) / np.exp(large - 10002).sum()
        case = replace(case, source=replace(case.source, data_sets=[([large], [want])]))
        assert run_case(case, "interpreter").status == "passed"
        outcome = run_case(case, "hardware")
        assert (outcome.status, outcome.reason) == ("refused", "inputs that fp16 cannot tell apart")

    def test_small_results_are_not_near_zero(self) -> None:
        case = make_case(want=2e-4 * X)
        assert case.difference("hardware", [np.zeros(3, np.float32)], [2e-4 * X])

    def test_integers_must_be_equal_and_of_the_type(self) -> None:
        case, want = make_case(), np.array([1, 2])
        assert not case.difference("hardware", [want], [want])
        assert case.difference("hardware", [want + 1], [want])
        assert case.difference("hardware", [want.astype(np.int32)], [want])
        assert case.difference("hardware", [want.astype(np.float32)], [want])


class TestReasons:
    def test_classes_are_of_what_is_said_of_any_item(self) -> None:
        items = [
            UnsupportedItem("Foo", "n", None, "no conversion"),
            UnsupportedItem("input", "x", None, "element type string"),
        ]
        assert refusal(UnsupportedModelError(items)) == "strings"
        assert refusal(UnsupportedModelError(items[:1])) == "operator without a conversion"

    def test_an_unknown_reason_is_still_a_refusal(self) -> None:
        assert refusal(UnsupportedModelError([UnsupportedItem("Foo", "n", None, "odd")])) == "a form of the operator"

    def test_other_errors(self) -> None:
        message = "buffer 'x' does not fit the activation memory of 9 bytes: it takes 10 bytes"
        assert refusal(TargetError(message)) == "too large for the machine"
        assert refusal(SimError("access outside a memory")) is None


def answer(case: OnnxCase, column: Column) -> Outcome:
    """A runner that dies, hangs or says the case's name."""
    if case.name == "dies":
        os._exit(7)
    if case.name == "hangs":
        time.sleep(60)
    return Outcome("passed", detail=case.name)


class TestPool:
    def test_a_process_that_dies_or_hangs_costs_its_case(self) -> None:
        names = ["a", "dies", "b", "hangs", "c", "dies", "d"]
        cases = [replace(make_case(), name=name) for name in names]
        seen: list[Row] = []
        rows = run_cases(cases, ("interpreter",), jobs=2, runner=answer, seconds=1.0, on_row=seen.append)
        assert [row.case for row in rows] == names
        assert sorted(map(str, seen)) == sorted(map(str, rows))
        for row in rows:
            outcome = row.outcomes["interpreter"]
            wanted = {"dies": ("failed", "crash"), "hangs": ("failed", "time limit")}
            assert (outcome.status, outcome.reason) == wanted.get(row.case, ("passed", ""))
        assert "exit code 7" in rows[1].outcomes["interpreter"].detail

    def test_no_cases(self) -> None:
        assert run_cases([], jobs=2) == []


def row(case: str, interpreter: Outcome, hardware: Outcome, operator: str = "Add") -> Row:
    return Row(case, operator, {"interpreter": interpreter, "hardware": hardware})


PASSED, WRONG, REFUSED = Outcome("passed"), Outcome("failed", "wrong result"), Outcome("refused", "strings")


class TestPage:
    ROWS = (row("test_a", PASSED, PASSED), row("test_b", PASSED, WRONG), row("test_c", REFUSED, REFUSED, "Sub"))

    def test_totals_failures_by_name_and_operators(self) -> None:
        text = onnx_page.page(list(self.ROWS))
        assert "| interpreter | 3 | 2 | 1 | 0 |" in text
        assert "| hardware | 3 | 1 | 1 | 1 |" in text
        assert "| hardware | `test_b` | wrong result |" in text
        assert "| Add | 2 | 2 |  | 1 |  |" in text
        assert "| Sub | 1 | 0 | strings (1) | 0 | strings (1) |" in text

    def test_a_record_says_all(self) -> None:
        assert onnx_page.record(list(self.ROWS)).splitlines() == [
            "test_a\tpassed\tpassed",
            "test_b\tpassed\tfailed: wrong result",
            "test_c\trefused: strings\trefused: strings",
        ]

    def test_regressions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(onnx_page, "LEAST", {"interpreter": 1, "hardware": 1})
        before = "".join(f"test_{name}\tpassed\tpassed\n" for name in "abd") + "test_c\trefused: strings\tpassed\n"
        problems = onnx_page.regressions(list(self.ROWS), before)
        assert [problem.split(":")[0] for problem in problems] == [
            "test_b (hardware)",
            "test_c (hardware)",
            "test_d",
            "1 cases passed in the hardware column; more than 1 must",
        ]
