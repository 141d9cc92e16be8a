"""PyTorch's operators as cases: what is right, rounded, outside; the sample; the page and its record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

from conformance import torch_page
from conformance.columns import run_case
from conformance.outcomes import COLUMNS, Column, Outcome
from conformance.table import Row
from conformance.torch_cases import TorchCase, _are_places, _cases, _Place, load_cases

SAMPLE = ("cat", "ceil", "logical_not", "nn.functional.layer_norm", "softmax", "sort", "where")


def make_case(function: Callable[..., object], *tensors: torch.Tensor, name: str = "made") -> TorchCase:
    """``function`` of tensors, as a case."""
    leaves, spec = pytree.tree_flatten((tensors, {}))
    return TorchCase(f"{name}/0", name, function, tuple(_Place() for _ in leaves), spec, tensors)


@pytest.mark.conformance
@pytest.mark.parametrize("column", COLUMNS)
def test_a_sample_of_each_of_some_operators(column: Column) -> None:
    for case in load_cases(SAMPLE, cap=1):
        outcome = run_case(case, column)
        assert outcome.status in ("passed", "rounded"), f"{case.name}: {outcome.reason}: {outcome.detail}"


@pytest.mark.parametrize(
    "name",
    [
        "_unsafe_masked_index/0",
        "bfloat16/3",
        "logical_not/2",
        "nanmean/0",
        "nn.functional.batch_norm/4",
        "unfold_copy/0",
    ],
)
def test_what_was_a_crash(name: str) -> None:
    (case,) = (case for case in load_cases([name.partition("/")[0]], None) if case.name == name)
    for column in COLUMNS:
        outcome = run_case(case, column)
        assert outcome.status == "passed", f"{outcome.reason}: {outcome.detail}"


class TestOutcomes:
    def test_a_step_that_rounding_the_inputs_crosses_is_told_from_a_wrong_result(self) -> None:
        x = torch.tensor([1.5, 2.0001])
        assert run_case(make_case(torch.ceil, x), "interpreter").status == "passed"
        assert run_case(make_case(torch.ceil, x), "hardware").status == "rounded"

    @pytest.mark.parametrize(
        ("values", "places", "right"),
        [
            ([1.0, 5.0], [2, 1], True),
            ([1.0, 5.0], [0, 1], True),
            ([1.0, 5.0], [1, 1], False),
            ([1.0, 5.0], [3, 1], False),
        ],
    )
    def test_places_of_equal_numbers(self, values: list[float], places: list[int], right: bool) -> None:
        x = np.array([[1.0, 2.0, 1.0], [4.0, 5.0, 6.0]])
        assert _are_places(x, np.array(values), np.array(places)) is right

    def test_a_wrong_result_is_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        case = make_case(torch.ceil, torch.tensor([1.5, 2.5]))
        right = TorchCase._eager
        monkeypatch.setattr(TorchCase, "_eager", lambda *given: [found + 1 for found in right(*given)])
        for column in COLUMNS:
            outcome = run_case(case, column)
            assert (outcome.status, outcome.reason) == ("failed", "wrong result")

    @pytest.mark.parametrize(
        ("function", "reason"),
        [
            (torch.rand_like, "random numbers"),
            (lambda x: x.shape, "no tensor as a result"),
            (lambda x: x.cuda(), "PyTorch does not run it on a CPU"),
        ],
    )
    def test_what_has_no_one_right_answer_is_outside(self, function: Callable[..., object], reason: str) -> None:
        outcome = run_case(make_case(function, torch.ones(3)), "interpreter")
        assert (outcome.status, outcome.reason) == ("outside", reason)

    def test_memory_that_nothing_has_written_is_outside(self) -> None:
        outcome = run_case(make_case(torch.empty_like, torch.ones(3), name="empty_like"), "interpreter")
        assert (outcome.status, outcome.reason) == ("outside", "memory that nothing has written")

    def test_a_refusal_says_what_is_refused(self) -> None:
        outcome = run_case(make_case(torch.special.airy_ai, torch.ones(3)), "interpreter")
        assert (outcome.status, outcome.reason) == ("refused", "operator without a conversion")
        assert outcome.detail == "aten.special_airy_ai.default: no conversion"

    def test_a_case_may_change_its_inputs(self) -> None:
        x = torch.ones(3)
        assert run_case(make_case(lambda x: x.zero_() + 2, x), "interpreter").reason != "wrong result"
        assert x.tolist() == [1, 1, 1]


class TestLoading:
    def test_samples_do_not_depend_on_what_else_is_loaded(self) -> None:
        alone = load_cases(["ceil"])
        among = [case for case in load_cases(["cat", "ceil"]) if case.operator == "ceil"]
        assert [case.name for case in alone] == [case.name for case in among]
        for one, other in zip(alone, among, strict=True):
            assert all(map(torch.equal, one.tensors, other.tensors))

    def test_a_cap_draws_the_same_samples_each_time(self) -> None:
        many = [SimpleNamespace(input=torch.full((2,), float(i)), args=(), kwargs={}) for i in range(50)]
        info = SimpleNamespace(full_name="made", op=torch.neg, sample_inputs=lambda *_, **__: many)
        names = [case.name for case in _cases(info, 20)]
        assert names == [case.name for case in _cases(info, 20)]
        assert len(names) == 20
        assert len(list(_cases(info, None))) == 50


PASSED, WRONG, REFUSED = Outcome("passed"), Outcome("failed", "wrong result"), Outcome("refused", "a form", "x: no")
ROUNDED, OUTSIDE = Outcome("rounded"), Outcome("outside", "random numbers")


def row(case: str, interpreter: Outcome, hardware: Outcome) -> Row:
    return Row(case, case.partition("/")[0], {"interpreter": interpreter, "hardware": hardware})


class TestPage:
    ROWS = (
        row("add/0", PASSED, PASSED),
        row("add/3", PASSED, ROUNDED),
        row("mul/0", PASSED, PASSED),
        row("mul/1", PASSED, REFUSED),
        row("rand/0", OUTSIDE, OUTSIDE),
        row("linalg.det/0", REFUSED, REFUSED),
        row("sub/0", PASSED, WRONG),
    )

    def test_totals_groups_and_operators(self) -> None:
        text = torch_page.page(list(self.ROWS))
        assert "| hardware | 7 | 2 | 1 | 2 | 1 | 1 |" in text
        assert "| all others | hardware | 3 | 1 | 1 | 0 | 1 | 33.3 % | 66.7 % |" in text
        assert "| linalg | hardware | 1 | 0 | 0 | 1 | 0 | 0.0 % | 0.0 % |" in text
        assert "| random | hardware | 1 |" in text
        assert "| `add` | 2 | 2 | 2 | 1 |  |  |" in text
        assert "| `mul` | 2 | 2 | 1 |  |  | x: no (1) |" in text
        assert "| hardware | `sub/0` | wrong result |" in text

    def test_a_record_says_all(self) -> None:
        lines = torch_page.record(list(self.ROWS))
        assert lines.splitlines()[0] == "add\tpp\tpr\t0,3"
        assert torch_page.recorded(lines)["add/3"] == {"interpreter": "p", "hardware": "r"}

    def test_what_is_worse_than_recorded_is_a_regression(self) -> None:
        before = torch_page.record(list(self.ROWS))
        assert not torch_page.regressions(list(self.ROWS), before, sampled=True)
        worse = [replace(self.ROWS[0], outcomes={"interpreter": PASSED, "hardware": REFUSED})]
        (problem,) = torch_page.regressions(worse, before, sampled=True)
        assert problem.startswith("add/0 (hardware)")
        (problem,) = torch_page.regressions([row("new/0", PASSED, WRONG)], before, sampled=True)
        assert "new/0" in problem
        problems = torch_page.regressions(worse, before)
        assert "add/3: recorded, but not run" in problems
        assert any("must be" in problem for problem in problems)


def test_the_published_page_is_of_the_record_and_nothing_is_wrong() -> None:
    recorded = torch_page.recorded(torch_page.RECORD.read_text(encoding="utf-8"))
    text = torch_page.PAGE.read_text(encoding="utf-8")
    for column in COLUMNS:
        letters = [its[column] for its in recorded.values()]
        counts = " | ".join(str(letters.count(letter)) for letter in "pr-Fo")
        assert f"| {column} | {len(recorded)} | {counts} |" in text
        assert "F" not in letters
