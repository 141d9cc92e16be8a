"""Reductions, searches and running totals along axes; operators that move data; products: of every element type,
rank 0, and tensors without elements.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from one_operator import ELEMENTS, FLOATS, INTEGERS, Array, run, run_all, value
from xdsl.utils.exceptions import VerifyException

from pimc.ir import nn
from pimc.ir.interpreter.core import held_dtype

RNG = np.random.default_rng(4)
X = RNG.integers(0, 3, (2, 3, 4))
EMPTY = np.zeros((0, 3))
PLAIN = [name for name in ELEMENTS if name != "index"]

REDUCTIONS: list[tuple[type[nn.ReduceOp], Callable[..., Array]]] = [
    (nn.ReduceSumOp, np.sum),
    (nn.ReduceMeanOp, np.mean),
    (nn.ReduceMaxOp, np.max),
    (nn.ReduceMinOp, np.min),
    (nn.ReduceProdOp, np.prod),
]


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize(("op", "reference"), REDUCTIONS)
def test_reductions(op: type[nn.ReduceOp], reference: Callable[..., Array], element: str) -> None:
    for axes in ((0,), (1, 2), (-1,), (0, 1, 2), (2, 0), ()):
        for keepdims in (False, True):
            expected = reference(X, axis=axes, keepdims=keepdims).astype(held_dtype(ELEMENTS[element]))
            got = run(lambda x, a=axes, k=keepdims: op(x, a, k), (element, X))
            np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert run(lambda x: op(x, []), (element, 2)).item() == 2
    assert run(lambda x: op(x, [1]), (element, EMPTY)).shape == (0,)


def test_reductions_of_truth_values() -> None:
    x = ("i1", [[0, 0], [0, 1], [1, 1]])
    for op in (nn.ReduceSumOp, nn.ReduceMaxOp):
        assert run(lambda x, o=op: o(x, [1]), x).tolist() == [False, True, True]
    for op in (nn.ReduceProdOp, nn.ReduceMinOp):
        assert run(lambda x, o=op: o(x, [1]), x).tolist() == [False, False, True]


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS, "i1"])
def test_reductions_of_nothing(element: str) -> None:
    limits = {"i1": (False, True)}.get(element, (-math.inf, math.inf))
    if element in INTEGERS:
        info = np.iinfo(np.dtype(held_dtype(ELEMENTS[element])))
        limits = (info.min, info.max)
    assert run(lambda x: nn.ReduceSumOp(x, [0]), (element, EMPTY)).tolist() == [0] * 3
    assert run(lambda x: nn.ReduceProdOp(x, [0]), (element, EMPTY)).tolist() == [1] * 3
    assert run(lambda x: nn.ReduceMaxOp(x, [0]), (element, EMPTY)).tolist() == [limits[0]] * 3
    assert run(lambda x: nn.ReduceMinOp(x, [0]), (element, EMPTY)).tolist() == [limits[1]] * 3
    if element in FLOATS:
        assert np.isnan(run(lambda x: nn.ReduceMeanOp(x, [0]), (element, EMPTY))).all()


def test_extremes_hand_nan_on() -> None:
    for op in (nn.ReduceMaxOp, nn.ReduceMinOp):
        assert np.isnan(run(lambda x, o=op: o(x, [0]), ("f32", [1, np.nan, 2])))


@pytest.mark.parametrize("element", PLAIN)
def test_places_of_extremes(element: str) -> None:
    x = np.array([[0, 1, 1], [1, 0, 1]])
    for op, first, last in ((nn.ArgMaxOp, [1, 0], [2, 2]), (nn.ArgMinOp, [0, 1], [0, 1])):
        assert run(lambda x, o=op: o(x, 1), (element, x)).tolist() == first
        assert run(lambda x, o=op: o(x, -1, True), (element, x)).tolist() == [[place] for place in first]
        assert run(lambda x, o=op: o(x, 1, False, True), (element, x)).tolist() == last
    assert run(lambda x: nn.ArgMaxOp(x, 1), (element, EMPTY)).shape == (0,)


def test_places_of_extremes_with_nan_and_in_i32() -> None:
    x = ("f32", [1, np.nan, 3])
    assert run(lambda x: nn.ArgMaxOp(x, 0), x).item() == run(lambda x: nn.ArgMinOp(x, 0), x).item() == 1
    assert run(lambda x: nn.ArgMaxOp(x, 0, element=ELEMENTS["i32"]), x).dtype == np.int32


@pytest.mark.parametrize("element", PLAIN)
@pytest.mark.parametrize("largest", [True, False])
def test_top_k(element: str, largest: bool) -> None:
    x = np.array([[1, 0, 1, 0], [0, 0, 1, 1]])
    places = [[0, 2, 1], [2, 3, 0]] if largest else [[1, 3, 0], [0, 1, 2]]
    values, found = run_all(lambda x: nn.TopKOp(x, 3, -1, largest), (element, x))
    assert found.tolist() == places
    np.testing.assert_array_equal(values, np.take_along_axis(x, np.array(places), 1))
    values, found = run_all(lambda x: nn.TopKOp(x, 3, 0, largest, False), (element, x.T))
    assert found.T.tolist() == places
    assert [part.shape for part in run_all(lambda x: nn.TopKOp(x, 0, 0), (element, x))] == [(0, 4)] * 2


@pytest.mark.parametrize("element", [*FLOATS, *INTEGERS])
@pytest.mark.parametrize(("op", "neutral"), [(nn.CumSumOp, 0), (nn.CumProdOp, 1)])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_totals(op: type[nn.CumSumOp | nn.CumProdOp], neutral: int, axis: int, element: str) -> None:
    x = X + 1
    for exclusive in (False, True):
        for reverse in (False, True):
            expected = np.empty(x.shape, object)
            for row in np.ndindex(*np.delete(x.shape, axis)):
                place: list[int | slice] = list(row)
                place.insert(axis % 3, slice(None))
                line = x[tuple(place)].tolist()[:: -1 if reverse else 1]
                totals, total = [], neutral
                for number in line:
                    before, total = total, total + number if op is nn.CumSumOp else total * number
                    totals.append(before if exclusive else total)
                expected[tuple(place)] = totals[:: -1 if reverse else 1]
            got = run(lambda x, e=exclusive, r=reverse: op(x, axis, e, r), (element, x))
            np.testing.assert_array_equal(got, expected.astype(np.int64))


def test_running_totals_of_nothing() -> None:
    assert run(lambda x: nn.CumSumOp(x, 0, True, True), ("f32", EMPTY)).shape == (0, 3)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_along_any_axis(axis: int) -> None:
    x = RNG.uniform(-3, 3, (2, 3, 4))
    powers = np.exp(x)
    expected = powers / powers.sum(axis, keepdims=True)
    np.testing.assert_allclose(run(lambda x: nn.SoftmaxOp(x, axis), ("f64", x)), expected, rtol=1e-12)
    np.testing.assert_allclose(run(lambda x: nn.SoftmaxOp(x, axis), ("f16", x)), expected, rtol=1e-5)


def test_softmax_of_nothing_and_of_large_numbers() -> None:
    assert run(lambda x: nn.SoftmaxOp(x, 0), ("f32", EMPTY)).shape == (0, 3)
    assert run(nn.SoftmaxOp, ("f32", [1e30, -np.inf, 1e30])).tolist() == [0.5, 0, 0.5]


# Moving data


@pytest.mark.parametrize("element", ELEMENTS)
def test_moves(element: str) -> None:
    x = X % 2
    moved: list[tuple[Callable[..., nn.NnOp], Array]] = [
        (lambda x: nn.ReshapeOp(x, [4, 6]), x.reshape(4, 6)),
        (lambda x: nn.TransposeOp(x, [2, 0, 1]), x.transpose(2, 0, 1)),
        (lambda x: nn.BroadcastToOp(x, [5, 2, 3, 4]), np.broadcast_to(x, (5, 2, 3, 4))),
        (lambda x: nn.ConcatOp([x, x], -1), np.concatenate([x, x], -1)),
        (lambda x: nn.SliceOp(x, [0, 2, 3], [2, -1, 0], [1, -1, -2]), x[0:2, ::-1, 3:0:-2]),
        (lambda x: nn.PadOp(x, [1, 0, 2], [0, 3, 1], "constant", 1.0), None),
    ]
    for build, expected in moved[:-1]:
        np.testing.assert_array_equal(run(build, (element, x)), expected)
    padded = np.pad(x, [(1, 0), (0, 3), (2, 1)], constant_values=1)
    np.testing.assert_array_equal(run(moved[-1][0], (element, x)), padded)


@pytest.mark.parametrize("element", ELEMENTS)
def test_moves_of_scalars_and_of_nothing(element: str) -> None:
    assert run(lambda x: nn.ReshapeOp(x, [1, 1]), (element, 1)).tolist() == [[1]]
    assert run(lambda x: nn.ReshapeOp(x, []), (element, [1])).item() == 1
    assert run(lambda x: nn.TransposeOp(x, []), (element, 1)).item() == 1
    assert run(lambda x: nn.SliceOp(x, [], []), (element, 1)).item() == 1
    assert run(lambda x: nn.PadOp(x, [], []), (element, 1)).item() == 1
    assert run(lambda x: nn.BroadcastToOp(x, [2]), (element, 1)).tolist() == [1, 1]
    assert run(lambda x: nn.BroadcastToOp(x, [0, 3]), (element, [[1]])).shape == (0, 3)
    assert run(lambda x: nn.ConcatOp([x, x], 1), (element, EMPTY)).shape == (0, 6)
    assert run(lambda x: nn.ReshapeOp(x, [5, 0]), (element, EMPTY)).shape == (5, 0)
    assert run(lambda x: nn.PadOp(x, [1, 0], [0, 0], "constant", 1.0), (element, EMPTY)).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("start", "stop", "step"),
    [(0, 5, 1), (1, 5, 2), (4, -1, -1), (4, 0, -2), (3, -1, -3), (2, 2, 1), (0, 0, 7), (2, 2, -1)],
)
def test_slices_in_their_canonical_form(start: int, stop: int, step: int) -> None:
    got = run(lambda x: nn.SliceOp(x, [start], [stop], [step]), ("i32", np.arange(5)))
    assert got.tolist() == list(range(start, stop, step))


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_pad_with_elements(mode: str) -> None:
    x = np.arange(6).reshape(2, 3)
    for low, high in (([1, 2], [0, 1]), ([3, 5], [4, 7]), ([0, 0], [0, 0])):
        sources = []
        for size, before, after in zip(x.shape, low, high, strict=True):
            places = range(-before, size + after)
            period = 2 * (size - 1)
            forms = {
                "reflect": lambda i, s=size, p=period: s - 1 - abs(s - 1 - i % p),
                "edge": lambda i, s=size: min(max(i, 0), s - 1),
                "wrap": lambda i, s=size: i % s,
            }
            sources.append([forms[mode](place) for place in places])
        got = run(lambda x, a=low, b=high: nn.PadOp(x, a, b, mode), ("i16", x))
        np.testing.assert_array_equal(got, x[np.ix_(*sources)])


def test_pad_with_odd_numbers() -> None:
    got = run(lambda x: nn.PadOp(x, [1], [1], "constant", -math.inf), ("f16", [1.0]))
    assert got.tolist() == [-math.inf, 1, -math.inf]
    assert np.isnan(run(lambda x: nn.PadOp(x, [1], [0], value=math.nan), ("f32", [])))
    assert run(lambda x: nn.PadOp(x, [1], [0], value=-7.0), ("i64", [1])).tolist() == [-7, 1]


# Products and norms


def test_products_of_integers_wrap() -> None:
    got = run(nn.MatmulOp, ("i8", np.full((1, 200), 127)), ("i8", np.ones((200, 1))))
    assert got.tolist() == [[(200 * 127 + 128) % 256 - 128]]
    big = run(nn.MatmulOp, ("i64", [[2**40, 1]]), ("i64", [[2**22], [3]]))
    assert big.tolist() == [[2**62 + 3]]


def test_products_without_elements() -> None:
    assert run(nn.MatmulOp, ("f32", np.zeros((2, 0))), ("f32", np.zeros((0, 3)))).tolist() == [[0] * 3] * 2
    assert run(nn.LinearOp, ("f32", np.zeros((2, 4, 0))), ("f32", np.zeros((3, 0)))).tolist() == [[[0] * 3] * 4] * 2
    assert run(nn.LinearOp, ("f32", np.zeros((0, 2))), ("f32", np.zeros((3, 2)))).shape == (0, 3)
    assert run(nn.LinearOp, ("f32", [1, 2]), ("f32", [[3, 4], [5, 6]])).tolist() == [11, 17]


@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_norms_compute_in_single_precision(precision: str) -> None:
    """Squares beyond the range of fp16."""
    x, one = ("f16", [[300.0, -300.0]]), ("f16", [1.0, 1.0])
    kind = "f16" if precision == "f16" else "f32"
    got = run(lambda x, w: nn.RmsNormOp(x, w, 1e-5), x, one, precision=kind)
    np.testing.assert_allclose(got, [[1, -1]], rtol=1e-3)
    got = run(lambda x, w: nn.LayerNormOp(x, w, None, 1e-5), x, one, precision=kind)
    np.testing.assert_allclose(got, [[1, -1]], rtol=1e-3)


def test_verifiers() -> None:
    x, i = value("f32", 4, 3), value("i64", 4, 3)
    cases: list[tuple[Callable[[], nn.NnOp], str]] = [
        (lambda: nn.ReduceMinOp(x, [2]), "nn.reduce_min axis 2 is out of range for rank 2"),
        (lambda: nn.ReduceProdOp(x, [0, -2]), "an axis is named twice"),
        (lambda: nn.TopKOp(x, 4), "nn.top_k: 4 of 3 elements"),
        (lambda: nn.TopKOp(x, -1), "nn.top_k indices must have a static shape"),
        (lambda: nn.TopKOp(x, 1, 2), "nn.top_k axis 2"),
        (lambda: nn.CumSumOp(x, 2), "nn.cum_sum axis 2 is out of range"),
        (lambda: nn.CumProdOp(value("f32"), 0), "nn.cum_prod axis 0 is out of range for rank 0"),
        (lambda: nn.PadOp(x, [0], [0, 0]), "low and high must have 2 numbers"),
        (lambda: nn.PadOp(x, [0, -1], [0, 0]), "a negative padding"),
        (lambda: nn.PadOp(x, [0, 0], [0, 0], "mirror"), "mode 'mirror' is not one of constant, reflect"),
        (lambda: nn.PadOp(value("f32", 1), [1], [0], "reflect"), "reflect of 1 elements"),
        (lambda: nn.PadOp(value("f32", 0), [1], [0], "edge"), "edge of 0 elements"),
        (lambda: nn.SliceOp(x, [0, 3], [4, 3], [1, -1]), "3:3:-1 is no slice of dimension 1 with 3 elements"),
        (lambda: nn.SliceOp(x, [0, 0], [4, 3], [1, 0]), "0:3:0 is no slice"),
        (lambda: nn.SliceOp(x, [0, -1], [4, 3]), "-1:3:1 is no slice"),
        (lambda: nn.SliceOp(x, [0, 2], [4, -2], [1, -1]), "2:-2:-1 is no slice"),
        (lambda: nn.MatmulOp(value("i1", 2, 2), value("i1", 2, 2)), "multiplies numbers, not i1"),
        (lambda: nn.MatmulOp(x, i), "element types differ"),
        (lambda: nn.SinOp(i), "nn.sin x must hold floats, holds i64"),
        (lambda: nn.IsNanOp(i), "nn.is_nan x must hold floats"),
        (lambda: nn.NegOp(value("i1", 2)), "nn.neg x must hold numbers, holds i1"),
        (lambda: nn.NotOp(i), "nn.not x must hold i1, holds i64"),
        (lambda: nn.BitNotOp(x), "nn.bit_not x must hold integers, holds f32"),
        (lambda: nn.AndOp(x, x), "nn.and works on integers and i1, not on f32"),
        (lambda: nn.ShiftLeftOp(x, x), "nn.shift_left works on integers"),
        *(
            (lambda o=op: o(value("i1", 2), value("i1", 2)), f"{op.name} works on numbers, not on i1")
            for op in (nn.SubOp, nn.DivOp, nn.ModOp, nn.PowOp, nn.ShiftLeftOp, nn.ShiftRightOp)
        ),
        (lambda: nn.ModOp(x, i), "nn.mod: element types differ"),
    ]
    for build, message in cases:
        with pytest.raises(VerifyException, match=message):
            build().verify()


def test_places_of_extremes_verify_when_built_or_read() -> None:
    with pytest.raises(VerifyException, match="dimension 0 is empty"):
        nn.ArgMaxOp(value("f32", 0, 3), 0).verify()
    with pytest.raises(VerifyException, match=r"nn\.arg_max axis 3 is out of range"):
        nn.ArgMaxOp(value("f32", 2, 3), 3).verify()
    with pytest.raises(VerifyException, match="dimension 0 is empty"):
        run(lambda x: nn.ArgMinOp(x, 0), ("f32", EMPTY))
