"""What a chain of views does, as sizes and strides: the same at any size, and for any spelling.

Position i of a chain's result, in row-major order, is written in digits, the last factor's first; the element is that
of the root at the offset plus the digits times the factors' strides.  Neighbours of which the left continues the right
are one factor, so that chains that do the same have the same factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from pimc.ir import nn

Shape: TypeAlias = tuple[int, ...]
Step: TypeAlias = tuple[str, tuple[int, ...]] | tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...]]
Steps: TypeAlias = tuple[Step, ...]
Factor: TypeAlias = tuple[int, int]
"""Size and stride."""


class NotStrided(Exception):  # noqa: N818 - a reason, not an error
    """The elements of a view do not lie at fixed strides."""


@dataclass(frozen=True)
class Strides:
    """Where the elements of a view are in its root: no factor has size 1, and no two neighbours are one."""

    offset: int
    factors: tuple[Factor, ...]


def strides_of(root: Shape, steps: Steps) -> Strides:
    """The strides of a chain of views over a root of shape ``root``.

    Raises:
        NotStrided: there are none.
    """
    shape, offset = root, 0
    factors = [(prod(root), 1)]
    for step in steps:
        if step[0] == "reshape":
            shape = step[1]
            continue
        dims = _by_dimension(factors, shape)
        if step[0] == "transpose":
            dims = [dims[axis] for axis in step[1]]
            shape = tuple(shape[axis] for axis in step[1])
        elif step[0] == "broadcast":
            dims = _broadcast(dims, shape, step[1])
            shape = step[1]
        else:
            assert len(step) == 4, "a slice has three bounds"
            for axis, (start, stop, stride) in enumerate(zip(*step[1:], strict=True)):
                moved, dims[axis] = _slice(dims[axis], range(shape[axis])[nn.python_slice(start, stop, stride)])
                offset += moved
            shape = tuple(prod(size for size, _ in dim) for dim in dims)
        factors = [factor for dim in dims for factor in dim]
    return Strides(offset, tuple(_joined(factors)))


def _joined(factors: list[Factor]) -> list[Factor]:
    """Neighbours that continue each other as one factor; nothing at all is one factor of size 0."""
    if any(size == 0 for size, _ in factors):
        return [(0, 0)]
    found: list[Factor] = []
    for size, stride in factors:
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return found


def _by_dimension(factors: list[Factor], shape: Shape) -> list[list[Factor]]:
    """The factors of each dimension of a view of that shape."""
    rest = _joined(factors)
    if 0 in shape:
        return [[(size, 0)] for size in shape]
    found: list[list[Factor]] = []
    for wanted in reversed(shape):
        dim: list[Factor] = []
        while wanted > 1:
            size, stride = rest.pop()
            if wanted % size == 0:
                dim.append((size, stride))
                wanted //= size
            elif size % wanted == 0:
                dim.append((wanted, stride))
                rest.append((size // wanted, stride * wanted))
                wanted = 1
            else:
                raise NotStrided
        found.append(dim[::-1])
    return found[::-1]


def _broadcast(dims: list[list[Factor]], shape: Shape, wanted: Shape) -> list[list[Factor]]:
    """The factors after broadcasting: what repeats has stride 0."""
    new = len(wanted) - len(shape)
    old = [*([1] * new), *shape]
    return [
        [(size, 0)] if before == 1 and size != 1 else dim
        for dim, before, size in zip([*([[]] * new), *dims], old, wanted, strict=True)
    ]


def _slice(dim: list[Factor], kept: range) -> tuple[int, list[Factor]]:
    """Those indices of a dimension: by how far the first one moves, and the factors."""
    if len(kept) == 0:
        return 0, [(0, 0)]
    joined = _joined(dim)
    if len(joined) < 2:
        stride = joined[0][1] if joined else 0
        return kept[0] * stride, [(len(kept), kept.step * stride)]
    (_, stride), inner = joined[0], joined[1:]
    size = prod(factor[0] for factor in inner)
    first, last = kept[0] // size, kept[-1] // size
    if first == last:
        moved, rest = _slice(inner, range(kept[0] - first * size, kept[-1] - first * size + kept.step, kept.step))
        return first * stride + moved, rest
    if kept.step == 1 and kept[0] % size == 0 and (kept[-1] + 1) % size == 0:
        return first * stride, [(last - first + 1, stride), *inner]
    raise NotStrided
