"""Lowerings of reads and writes at computed indices: the simulated program against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import compare, executable, floats, ids, module_of

from pimc.ir import nn


@pytest.mark.parametrize(
    ("shape", "axis", "count"),
    [((5, 3), 0, (4,)), ((2, 5, 3), 1, (2, 2)), ((4, 7), 1, (3,)), ((6,), 0, ()), ((2, 3, 4), -1, (1, 3))],
)
def test_gather(shape: tuple[int, ...], axis: int, count: tuple[int, ...]) -> None:
    extent = shape[axis]
    compare([floats(*shape), ids(-extent, extent, *count)], lambda x, i: [nn.GatherOp(x, i, axis).result])


def test_gather_of_integers() -> None:
    compare([ids(-(10**6), 10**6, 5, 2), ids(-5, 5, 3)], lambda x, i: [nn.GatherOp(x, i, 0).result])


def test_an_index_outside_is_the_nearest() -> None:
    x = floats(4)
    doubled = [x, ids(0, 1, 3)]  # an index that is an input is checked at the door: this one is computed
    module = module_of(doubled, lambda x, i: [nn.GatherOp(x, nn.AddOp(i, i).result, 0).result])
    (got,) = executable(module).run(x, np.array([9, -9, -1])).outputs.values()
    np.testing.assert_allclose(got, x[[3, 0, 2]], rtol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_elements(axis: int) -> None:
    x = floats(4, 3, 5)
    compare([x, ids(-3, 3, 4, 3, 5)], lambda x, i: [nn.GatherElementsOp(x, i, axis).result])


@pytest.mark.parametrize(
    ("shape", "indices", "batch"),
    [((4, 5, 3), (6, 2), 0), ((4, 5, 3), (2, 3, 1), 0), ((2, 4, 3), (2, 3, 1), 1), ((2, 2), (3, 2), 0)],
)
def test_gather_nd(shape: tuple[int, ...], indices: tuple[int, ...], batch: int) -> None:
    compare([floats(*shape), ids(-2, 2, *indices)], lambda x, i: [nn.GatherNdOp(x, i, batch).result])


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_elements(reduction: str) -> None:
    indices = np.array([[0, 2, -1], [1, 0, 2]])  # each element of the result at most once a column
    updates = floats(2, 3)
    compare(
        [floats(4, 3), indices, updates],
        lambda x, i, u: [nn.ScatterElementsOp(x, i, u, 0, reduction).result],
    )


def test_scatter_elements_of_integers() -> None:
    arrays = [ids(-100, 100, 5), np.array([1, 1, -1]), ids(-100, 100, 3)]
    for reduction in ("add", "mul", "max", "min"):
        compare(arrays, lambda x, i, u, r=reduction: [nn.ScatterElementsOp(x, i, u, 0, r).result])


@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_scatter_nd(reduction: str) -> None:
    arrays = [floats(4, 5, 3), np.array([[0, 1], [-1, 4], [2, 2]]), floats(3, 3)]
    compare(arrays, lambda x, i, u: [nn.ScatterNdOp(x, i, u, reduction).result])


TIES = np.array([[3, 1, 3, -2], [0, 0, 0, 0], [-5, 4, 1, 4]], np.float32)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("op", [nn.ArgMaxOp, nn.ArgMinOp])
def test_arg(op: type[nn.ArgMaxOp | nn.ArgMinOp], last: bool) -> None:
    compare([TIES, floats(2, 5, 3)], lambda x, y: [op(x, 1, last, last).result, op(y, 1, not last, last).result])


def test_arg_of_integers_and_scalars() -> None:
    compare([ids(-(10**6), 10**6, 4, 3), floats(1)], lambda x, y: [nn.ArgMaxOp(x, 0).result, nn.ArgMinOp(y, 0).result])


@pytest.mark.parametrize(
    ("shape", "k", "axis", "largest"), [((7,), 3, 0, True), ((2, 6, 3), 6, 1, False), ((3, 4), 1, -1, True)]
)
def test_top_k(shape: tuple[int, ...], k: int, axis: int, largest: bool) -> None:
    compare([floats(*shape)], lambda x: list(nn.TopKOp(x, k, axis, largest).results))


def test_top_k_of_ties_infinities_and_integers() -> None:
    infinite = np.array([-np.inf, 1, -np.inf, np.inf, 0], np.float32)
    compare(
        [TIES, infinite, ids(-1000, 1000, 9)], lambda x, y, z: [r for v in (x, y, z) for r in nn.TopKOp(v, 4).results]
    )
