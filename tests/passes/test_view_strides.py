"""Chains of views as strides, against numpy on an array of indices."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from pimc.passes.raise_views import apply_steps, same_view
from pimc.passes.view_strides import NotStrided, Shape, Step, Steps, Strides, strides_of

SIZES = st.integers(1, 6)


def factorings(size: int) -> st.SearchStrategy[Shape]:
    """Shapes of that many elements."""
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    return st.sampled_from(divisors).flatmap(
        lambda first: st.just((first,)) if first == size else factorings(size // first).map(lambda rest: (first, *rest))
    )


@st.composite
def chains(draw: st.DrawFn) -> tuple[Shape, Steps]:
    """A root's shape and steps that fit it."""
    root = shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
    steps: list[Step] = []
    for kind in draw(st.lists(st.sampled_from(("reshape", "transpose", "broadcast", "slice")), max_size=5)):
        step: Step
        if kind == "reshape":
            step = (kind, draw(factorings(prod(shape))))
        elif kind == "transpose":
            step = (kind, tuple(draw(st.permutations(range(len(shape))))))
        elif kind == "broadcast":
            wide = tuple(draw(st.integers(1, 3)) if size == 1 else size for size in shape)
            step = (kind, (*draw(st.lists(st.integers(1, 2), max_size=1)), *wide))
        else:
            starts = tuple(draw(st.integers(0, size - 1)) for size in shape)
            stops = tuple(draw(st.integers(start + 1, size)) for start, size in zip(starts, shape, strict=True))
            step = (kind, starts, stops, tuple(draw(st.integers(1, 2)) for _ in shape))
        steps.append(step)
        shape = apply_steps(np.empty(shape), (step,)).shape
        assume(len(shape) < 9)
    return root, tuple(steps)


def elements(root: Shape, strides: Strides) -> list[int]:
    """The indices of the root, in the view's order."""
    found = np.array(strides.offset)
    for size, stride in strides.factors:
        found = found[..., None] + np.arange(size) * stride
    return list(found.reshape(-1))


@given(chains())
def test_the_strides_are_those_of_numpy(chain: tuple[Shape, Steps]) -> None:
    root, steps = chain
    expected = apply_steps(np.arange(prod(root)).reshape(root), steps).reshape(-1)
    try:
        assert elements(root, strides_of(root, steps)) == list(expected)
    except NotStrided:
        assert len(set(np.diff(expected))) > 1


@given(chains(), st.data())
def test_another_spelling_is_the_same(chain: tuple[Shape, Steps], data: st.DataObject) -> None:
    root, steps = chain
    shape = apply_steps(np.empty(root), steps).shape
    other = data.draw(factorings(prod(shape)))
    order = data.draw(st.permutations(range(len(shape))))
    back = tuple(int(axis) for axis in np.argsort(order))
    there_and_back: Steps = (*steps, ("transpose", tuple(order)), ("transpose", back))
    try:
        strides_of(root, there_and_back)
    except NotStrided:
        return
    assert same_view(root, (*steps, ("reshape", other)), steps)
    assert same_view(root, there_and_back, steps)


def test_a_reversed_dimension() -> None:
    assert elements((2, 3), strides_of((2, 3), (("slice", (0, 2), (2, -1), (1, -1)),))) == [2, 1, 0, 5, 4, 3]


def test_sizes_cost_nothing() -> None:
    root = (1, 1 << 20, 8, 128)
    split: Steps = (("reshape", (1, 1 << 20, 8, 1, 128)), ("broadcast", (1, 1 << 20, 8, 5, 128)))
    heads: Steps = (*split, ("reshape", (1, 1 << 20, 40, 128)), ("transpose", (0, 2, 1, 3)))
    repeated: Steps = (
        ("transpose", (0, 2, 1, 3)),
        ("reshape", (1, 8, 1, 1 << 20, 128)),
        ("broadcast", (1, 8, 5, 1 << 20, 128)),
        ("reshape", (1, 40, 1 << 20, 128)),
    )
    assert same_view(root, heads, repeated)
    assert not same_view(root, heads, (*repeated, ("transpose", (0, 2, 1, 3))))
