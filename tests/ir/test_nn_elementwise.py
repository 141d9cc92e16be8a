"""Functions, arithmetic, tests and bit operations of single elements, on every element type they take."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

import numpy as np
import pytest
from one_operator import FLOATS, INTEGERS, Array, run

from pimc.ir import nn

SIGNED = [name for name in INTEGERS if not name.startswith("u")]
POINTS = [-3.5, -2.5, -1.0, -0.5, -0.0, 0.25, 0.5, 1.0, 1.5, 2.5]

FUNCTIONS: list[tuple[type[nn.UnaryOp], Callable[[float], float], float, float]] = [
    (nn.SinOp, math.sin, -4, 4),
    (nn.CosOp, math.cos, -4, 4),
    (nn.TanOp, math.tan, -4, 4),
    (nn.AsinOp, math.asin, -1, 1),
    (nn.AcosOp, math.acos, -1, 1),
    (nn.AtanOp, math.atan, -4, 4),
    (nn.SinhOp, math.sinh, -4, 4),
    (nn.CoshOp, math.cosh, -4, 4),
    (nn.AsinhOp, math.asinh, -4, 4),
    (nn.AcoshOp, math.acosh, 1, 4),
    (nn.AtanhOp, math.atanh, -0.99, 0.99),
    (nn.FloorOp, math.floor, -4, 4),
    (nn.CeilOp, math.ceil, -4, 4),
    (nn.RoundOp, round, -4, 4),
    (nn.ErfOp, math.erf, -4, 4),
    (nn.SiluOp, lambda x: x / (1 + math.exp(-x)), -4, 4),
    (nn.SigmoidOp, lambda x: 1 / (1 + math.exp(-x)), -4, 4),
    (nn.GeluOp, lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2, -4, 4),
    (nn.TanhOp, math.tanh, -4, 4),
    (nn.ExpOp, math.exp, -4, 4),
    (nn.LogOp, math.log, 0.1, 4),
    (nn.SqrtOp, math.sqrt, 0, 4),
    (nn.RsqrtOp, lambda x: 1 / math.sqrt(x), 0.1, 4),
    (nn.RecipOp, lambda x: 1 / x, 0.1, 4),
    (nn.ReluOp, lambda x: max(x, 0.0), -4, 4),
]


@pytest.mark.parametrize("element", FLOATS)
@pytest.mark.parametrize(("op", "reference", "low", "high"), FUNCTIONS)
def test_functions(
    op: type[nn.UnaryOp], reference: Callable[[float], float], low: float, high: float, element: str
) -> None:
    """f64 is computed in double precision, the others in single precision."""
    x = np.array([point for point in POINTS if low <= point <= high])
    precise = element == "f64"
    expected = [reference(point) for point in x.tolist()]
    np.testing.assert_allclose(run(op, (element, x)), expected, rtol=1e-12 if precise else 1e-6, atol=1e-7)
    assert run(op, (element, np.zeros((0, 3)))).size == 0
    np.testing.assert_allclose(run(op, (element, x[-1])), expected[-1], rtol=1e-6)


def test_outside_the_domain_is_nan() -> None:
    for op, x in ((nn.AsinOp, 1.5), (nn.AcosOp, -1.5), (nn.AcoshOp, 0.5), (nn.AtanhOp, 2.0), (nn.SqrtOp, -1.0)):
        assert np.isnan(run(op, ("f32", x)))


def test_halves_round_to_even() -> None:
    assert run(nn.RoundOp, ("f32", [0.5, 1.5, 2.5, -0.5, -1.5])).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize("element", [*FLOATS, *SIGNED])
def test_negation_magnitude_and_sign(element: str) -> None:
    x = [-3, 0, 5]
    assert run(nn.NegOp, (element, x)).tolist() == [3, 0, -5]
    assert run(nn.AbsOp, (element, x)).tolist() == [3, 0, 5]
    assert run(nn.SignOp, (element, x)).tolist() == [-1, 0, 1]


def test_negation_and_sign_of_odd_values() -> None:
    assert run(nn.NegOp, ("ui8", [1, 0])).tolist() == [255, 0]
    assert run(nn.SignOp, ("ui8", [200, 0])).tolist() == [1, 0]
    assert np.isnan(run(nn.SignOp, ("f32", np.nan)))


def test_tests_of_floats() -> None:
    odd = [np.nan, np.inf, -np.inf, 1.0]
    for element in FLOATS:
        assert run(nn.IsNanOp, (element, odd)).tolist() == [True, False, False, False]
        assert run(nn.IsInfOp, (element, odd)).tolist() == [False, True, True, False]
        assert run(lambda x: nn.IsInfOp(x, True, False), (element, odd)).tolist() == [False, True, False, False]
        assert run(lambda x: nn.IsInfOp(x, False, True), (element, odd)).tolist() == [False, False, True, False]
    assert run(lambda x: nn.IsInfOp(x, False, False), ("f32", np.inf)).item() is False


ARITHMETIC: list[tuple[type[nn.BinaryOp], Callable[[Array, Array], Array]]] = [
    (nn.AddOp, np.add),
    (nn.SubOp, np.subtract),
    (nn.MulOp, np.multiply),
    (nn.MaximumOp, np.maximum),
    (nn.MinimumOp, np.minimum),
]


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize(("op", "reference"), ARITHMETIC)
def test_arithmetic(op: type[nn.BinaryOp], reference: Callable[[Array, Array], Array], element: str) -> None:
    """Integers wrap, operands are broadcast."""
    a, b = np.array([[100, 3], [7, 0]]), np.array([2, 5])
    expected = reference(a, b)
    if element in INTEGERS:
        expected = expected.astype(_dtype(element))
    np.testing.assert_array_equal(run(op, (element, a), (element, b)), expected)
    assert run(op, (element, 1), (element, np.zeros((0, 2)))).shape == (0, 2)


def _dtype(element: str) -> str:
    return ("u" if element.startswith("u") else "i") + str(int(element.lstrip("ui")) // 8)


def test_extremes_hand_nan_on() -> None:
    for op in (nn.MaximumOp, nn.MinimumOp):
        assert np.isnan(run(op, ("f32", [1, np.nan]), ("f32", [np.nan, 1]))).all()


def test_arithmetic_of_truth_values() -> None:
    a, b = ("i1", [0, 0, 1, 1]), ("i1", [0, 1, 0, 1])
    for op in (nn.AddOp, nn.MaximumOp, nn.OrOp):
        assert run(op, a, b).tolist() == [False, True, True, True]
    for op in (nn.MulOp, nn.MinimumOp, nn.AndOp):
        assert run(op, a, b).tolist() == [False, False, False, True]
    assert run(nn.XorOp, a, b).tolist() == [False, True, True, False]
    assert run(nn.NotOp, ("i1", [0, 1])).tolist() == [True, False]


@pytest.mark.parametrize("element", SIGNED)
def test_division_of_integers_is_towards_zero(element: str) -> None:
    a, b = [7, -7, 7, -7, 6, -6, 0], [2, 2, -2, -2, 3, 3, -5]
    assert run(nn.DivOp, (element, a), (element, b)).tolist() == [3, -3, -3, 3, 2, -2, 0]
    low = int(np.iinfo(_dtype(element)).min)
    exact = [-(-low // 2), -(-low // 3), low]
    assert run(nn.DivOp, (element, [low] * 3), (element, [2, 3, 1])).tolist() == exact


def test_division_of_other_numbers() -> None:
    assert run(nn.DivOp, ("ui8", [255, 7]), ("ui8", [2, 8])).tolist() == [127, 0]
    assert run(nn.DivOp, ("ui64", [2**64 - 1]), ("ui64", [3])).tolist() == [(2**64 - 1) // 3]
    assert run(nn.DivOp, ("f32", [1, -1, 0]), ("f32", [0, 0, 0])).tolist()[:2] == [math.inf, -math.inf]


@pytest.mark.parametrize("element", [*FLOATS, *SIGNED])
def test_remainder(element: str) -> None:
    a, b = [7, -7, 7, -7], [3, 3, -3, -3]
    floored = run(nn.ModOp, (element, a), (element, b))
    truncated = run(lambda x, y: nn.ModOp(x, y, True), (element, a), (element, b))
    assert floored.tolist() == list(map(operator.mod, a, b))
    assert truncated.tolist() == list(map(math.fmod, a, b))


def test_powers() -> None:
    assert run(nn.PowOp, ("i64", [2, 3, -3]), ("i64", [62, 39, 3])).tolist() == [2**62, 3**39, -27]
    assert run(nn.PowOp, ("i64", [3]), ("ui64", [39])).tolist() == [3**39]
    assert run(nn.PowOp, ("ui8", [3, 7]), ("i8", [6, 2])).tolist() == [3**6 % 256, 49]
    assert run(nn.PowOp, ("i32", [2, 1, -1, 3**15]), ("i32", [-1, -5, -3, 1])).tolist() == [0, 1, -1, 3**15]
    assert run(nn.PowOp, ("i32", [4, 2]), ("f32", [0.5, 2.5])).tolist() == [2, 5]
    assert run(nn.PowOp, ("f32", [2, 4]), ("i64", [3, -1])).tolist() == [8, 0.25]
    assert run(nn.PowOp, ("f64", [[2.0], [3.0]]), ("f32", [2, 3])).tolist() == [[4, 8], [9, 27]]


@pytest.mark.parametrize("element", INTEGERS)
def test_bits(element: str) -> None:
    a, b = [0b1100, 5, 127], [0b1010, 0, 1]
    for op, reference in ((nn.AndOp, operator.and_), (nn.OrOp, operator.or_), (nn.XorOp, operator.xor)):
        assert run(op, (element, a), (element, b)).tolist() == list(map(reference, a, b))
    x = np.array(a, _dtype(element))
    np.testing.assert_array_equal(run(nn.BitNotOp, (element, a)), ~x)
    by = [1, 2, 0]
    np.testing.assert_array_equal(run(nn.ShiftLeftOp, (element, a), (element, by)), x << np.array(by, x.dtype))
    np.testing.assert_array_equal(run(nn.ShiftRightOp, (element, a), (element, by)), x >> np.array(by, x.dtype))


def test_shifts_of_negative_numbers_and_by_many_bits() -> None:
    assert run(nn.ShiftRightOp, ("i8", [-8, -1]), ("i8", [1, 7])).tolist() == [-4, -1]
    assert run(nn.ShiftLeftOp, ("ui8", [0b11000001]), ("ui8", [1])).tolist() == [0b10000010]


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS, "i1"])
def test_comparison_and_selection(element: str) -> None:
    a, b = [[0, 1, 1]], [[1], [0]]
    for predicate in nn.PREDICATES:
        got = run(lambda x, y, p=predicate: nn.CompareOp(x, y, p), (element, a), (element, b))
        np.testing.assert_array_equal(got, getattr(operator, predicate)(np.array(a), np.array(b)))
    got = run(nn.SelectOp, ("i1", [1, 0, 1]), (element, a), (element, b))
    np.testing.assert_array_equal(got, np.where([True, False, True], a, b))
    assert run(nn.SelectOp, ("i1", True), (element, 1), (element, 0)).item() == 1


def test_comparison_with_nan() -> None:
    for predicate in nn.PREDICATES:
        got = run(lambda x, y, p=predicate: nn.CompareOp(x, y, p), ("f32", [np.nan]), ("f32", [np.nan]))
        assert got.tolist() == [predicate == "ne"]


def test_large_unsigned_numbers_compare_as_such() -> None:
    got = run(lambda x, y: nn.CompareOp(x, y, "gt"), ("ui64", [2**63]), ("ui64", [1]))
    assert got.tolist() == [True]
