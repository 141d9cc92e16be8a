"""Reads and writes at computed indices against loops over all elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from one_operator import ELEMENTS, Array, run, value
from xdsl.utils.exceptions import VerifyException

from pimc.diagnostics import InputError
from pimc.ir import nn
from pimc.ir.nn.base import Value

RNG = np.random.default_rng(3)
X = RNG.integers(0, 100, (4, 3, 5))
NUMBERS = [name for name in ELEMENTS if name != "i1"]


def indices(size: int, *shape: int) -> Array:
    """Indices from the front and from the end."""
    return RNG.integers(-size, size, shape)


@pytest.mark.parametrize("element", NUMBERS)
def test_gather_of_every_type(element: str) -> None:
    places = [[3, -1], [0, -4]]
    np.testing.assert_array_equal(run(lambda x, i: nn.GatherOp(x, i, 0), (element, X), ("i64", places)), X[places])


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0,), (2, 0)])
def test_gather(axis: int, shape: tuple[int, ...]) -> None:
    places = indices(X.shape[axis], *shape)
    got = run(lambda x, i: nn.GatherOp(x, i, axis), ("f32", X), ("i32", places))
    np.testing.assert_array_equal(got, np.take(X, places, axis))


def test_indices_of_other_types() -> None:
    x = np.arange(300)
    got = run(lambda x, i: nn.GatherOp(x, i, 0), ("f32", x), ("ui8", [255, 0]))
    assert got.tolist() == [255, 0]
    assert run(lambda x, i: nn.GatherOp(x, i, 0), ("i1", [0, 1]), ("index", [-1])).tolist() == [True]


@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_gather_elements(axis: int) -> None:
    shape = [2, 3, 4]
    shape[axis] = 7
    places = indices(X.shape[axis], *shape)
    expected = np.empty(shape)
    for place in np.ndindex(*shape):
        source = list(place)
        source[axis] = places[place]
        expected[place] = X[tuple(source)]
    got = run(lambda x, i: nn.GatherElementsOp(x, i, axis), ("f16", X), ("i64", places))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("batch", "shape"), [(0, (2, 2)), (0, (3,)), (1, (4, 2, 1)), (2, (4, 3, 1)), (1, (4, 2))])
def test_gather_nd(batch: int, shape: tuple[int, ...]) -> None:
    depth = shape[-1]
    sizes = X.shape[batch : batch + depth]
    places = np.stack([indices(size, *shape[:-1]) for size in sizes], axis=-1)
    expected = np.empty((*shape[:-1], *X.shape[batch + depth :]))
    for place in np.ndindex(*shape[:-1]):
        expected[place] = X[(*place[:batch], *places[place])]
    got = run(lambda x, i: nn.GatherNdOp(x, i, batch), ("i64", X), ("i64", places))
    np.testing.assert_array_equal(got, expected)


COMBINE: dict[str, Callable[[float, float], float]] = {
    "none": lambda _, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": max,
    "min": min,
}


@pytest.mark.parametrize("element", ["f32", "f64", "i64", "ui16"])
@pytest.mark.parametrize("reduction", COMBINE)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_elements(axis: int, reduction: str, element: str) -> None:
    """Indices repeat: the updates are combined, and of ``none`` the last one stays."""
    x, shape = X % 5, (2, 2, 3)
    places, updates = indices(X.shape[axis], *shape), RNG.integers(1, 4, shape)
    expected = x.copy()
    for place in np.ndindex(*shape):
        target = list(place)
        target[axis] = places[place]
        expected[tuple(target)] = COMBINE[reduction](expected[tuple(target)], updates[place])
    got = run(
        lambda x, i, u: nn.ScatterElementsOp(x, i, u, axis, reduction),
        (element, x),
        ("i64", places),
        (element, updates),
    )
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("reduction", COMBINE)
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (6, 1), (2,), (0, 1)])
def test_scatter_nd(shape: tuple[int, ...], reduction: str) -> None:
    x, depth = X % 5, shape[-1]
    places = np.stack([indices(size, *shape[:-1]) for size in X.shape[:depth]], axis=-1)
    updates = RNG.integers(1, 4, (*shape[:-1], *X.shape[depth:]))
    expected = x.copy()
    for place in np.ndindex(*shape[:-1]):
        for inner in np.ndindex(*X.shape[depth:]):
            target = (*places[place], *inner)
            expected[target] = COMBINE[reduction](expected[target], updates[(*place, *inner)])
    got = run(lambda x, i, u: nn.ScatterNdOp(x, i, u, reduction), ("i32", x), ("i64", places), ("i32", updates))
    np.testing.assert_array_equal(got, expected)


def test_scatters_leave_their_operand_alone() -> None:
    x, places, updates = ("f32", [1.0, 2.0]), ("i64", [1]), ("f32", [9.0])

    def build(x: Value, i: Value, u: Value) -> nn.ScatterElementsOp:
        return nn.ScatterElementsOp(x, i, u, 0, "none")

    given = np.array(x[1], np.float32)
    assert run(build, ("f32", given), places, updates).tolist() == [1, 9]
    assert given.tolist() == [1, 2]
    assert run(build, x, ("i64", []), ("f32", [])).tolist() == [1, 2]


def test_scatter_of_truth_values() -> None:
    got = run(nn.ScatterNdOp, ("i1", [1, 1, 0]), ("i64", [[0], [-1]]), ("i1", [0, 1]))
    assert got.tolist() == [False, True, True]


def test_results_of_scatters_are_rounded_once() -> None:
    """Two updates below half a unit of fp16 each, together above it."""
    got = run(
        lambda x, i, u: nn.ScatterElementsOp(x, i, u, 0, "add"),
        ("f16", [1.0]),
        ("i64", [0, 0]),
        ("f16", [2.0**-12 * 1.5] * 2),
        precision="f16",
    )
    assert got.tolist() == [1 + 2.0**-10]


def test_an_index_outside_is_an_error() -> None:
    x = ("f32", X)
    for places in (4, -5):
        message = rf"nn.gather: index {places} is out of range \[-4, 4\)"
        with pytest.raises(InputError, match=message):
            run(lambda x, i: nn.GatherOp(x, i, 0), x, ("i64", [0, places]))
        with pytest.raises(InputError, match=r"nn\.gather_elements: index"):
            run(lambda x, i: nn.GatherElementsOp(x, i, 0), x, ("i64", [[[places]]]))
        with pytest.raises(InputError, match=r"nn\.scatter_elements: index"):
            run(lambda x, i: nn.ScatterElementsOp(x, i, x, 0), x, ("i64", np.full(X.shape, places)))
    with pytest.raises(InputError, match=r"nn.gather_nd: index 3 is out of range \[-3, 3\)"):
        run(nn.GatherNdOp, x, ("i64", [0, 3]))
    with pytest.raises(InputError, match=r"nn.scatter_nd: index 5 is out of range \[-5, 5\)"):
        run(nn.ScatterNdOp, x, ("i64", [[0, 0, 5]]), ("f32", [1]))


def test_verifiers() -> None:
    x, i, f = value("f32", 4, 3), value("i64", 2, 3), value("f32", 2, 3)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: nn.GatherOp(x, f), "indices must hold integers, holds f32"),
        (lambda: nn.GatherOp(x, i, 2), "axis 2 is out of range for rank 2"),
        (lambda: nn.GatherOp(value("f32"), i), "axis 0 is out of range for rank 0"),
        (lambda: nn.GatherElementsOp(x, f), "indices must hold integers"),
        (lambda: nn.GatherElementsOp(x, value("i64", 2)), "indices 2 do not fit 4x3"),
        (lambda: nn.GatherElementsOp(x, value("i64", 5, 4)), "indices 5x4 do not fit 4x3"),
        (lambda: nn.GatherElementsOp(x, i, -3), "axis -3"),
        (lambda: nn.GatherNdOp(x, f), "indices must hold integers"),
        (lambda: nn.GatherNdOp(x, i), "3 numbers index 4x3 with 0 batch dimensions"),
        (lambda: nn.GatherNdOp(x, i, 2), "2 batch dimensions of indices 2x3"),
        (lambda: nn.GatherNdOp(x, value("i64", 2, 1), 1), "batch dimensions of x and indices differ"),
        (lambda: nn.ScatterElementsOp(x, f, f), "indices must hold integers"),
        (lambda: nn.ScatterElementsOp(x, i, i), "element types differ, f32 and i64"),
        (lambda: nn.ScatterElementsOp(x, i, x), "updates must have shape 2x3, is 4x3"),
        (lambda: nn.ScatterElementsOp(x, value("i64", 2, 4), value("f32", 2, 4)), "do not fit"),
        (lambda: nn.ScatterElementsOp(x, i, f, 0, "mean"), "reduction 'mean' is not one of none, add"),
        (lambda: nn.ScatterNdOp(x, f, f), "indices must hold integers"),
        (lambda: nn.ScatterNdOp(x, i, f), "indices 2x3 do not index 4x3"),
        (lambda: nn.ScatterNdOp(x, value("i64", 2, 1), value("f32", 2)), "updates must have shape 2x3, is 2"),
        (lambda: nn.ScatterNdOp(x, value("i64", 2, 1), f, "sub"), "reduction 'sub'"),
        (lambda: nn.ScatterNdOp(x, value("i64", 2, 1), value("f16", 2, 3)), "element types differ"),
    ]
    for build, message in cases:
        with pytest.raises(VerifyException, match=message):
            build()
