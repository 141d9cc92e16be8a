"""Iteration spaces: how the results of an operator depend on its operands, said once for each operator.

A space has named dimensions, and for each operand and result the index of each of its dimensions.  So from a part of
the results (a *box*) follow the parts of the operands that it needs, and its work: cuts over cores, tiles, halos and
costs are all asked of the space.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["parallel", "reduced", "whole"]
Box: TypeAlias = Mapping[str, range]
"""Part of a space: indices (without steps) of each dimension; one that is not named is taken in full."""


@dataclass(frozen=True)
class Dim:
    """A dimension of a space.

    ``parallel``: each index gives results of its own.  ``reduced``: results combine all indices, and partial results
    of some of them combine by ``combine`` (sum, mean, prod, max, min, softmax).  ``whole``: every result needs
    operands at all indices, and nothing partial can be combined.
    """

    name: str
    size: int
    kind: Kind = "parallel"
    combine: str = ""

    def __str__(self) -> str:
        return {"parallel": self.name, "reduced": f"{self.name}: {self.combine}", "whole": f"{self.name}: whole"}[
            self.kind
        ]


@dataclass(frozen=True)
class Index:
    """``offset`` plus the sum of dimensions with factors: where a point of the space reads or writes."""

    terms: tuple[tuple[str, int], ...] = ()
    offset: int = 0

    def hull(self, box: Box) -> range:
        """The least range with the indices of a box; empty if the box is."""
        if any(len(box[name]) == 0 for name, _ in self.terms):
            return range(0)
        ends = [sorted((factor * box[name][0], factor * box[name][-1])) for name, factor in self.terms]
        return range(self.offset + sum(low for low, _ in ends), self.offset + sum(high for _, high in ends) + 1)

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{factor}*{name}" for name, factor in self.terms]
        if self.offset or not parts:
            parts.append(str(self.offset))
        return " + ".join(parts).replace("+ -", "- ")


@dataclass(frozen=True)
class Access:
    """What a tensor of ``shape`` is to a space: an index for each of its dimensions."""

    shape: tuple[int, ...]
    indices: tuple[Index, ...]

    def __str__(self) -> str:
        return f"[{', '.join(map(str, self.indices))}]"

    def hull(self, box: Box) -> tuple[range, ...]:
        """The least part of the tensor with all that a box reads or writes; what lies outside the tensor does not count
        (it is padding, or another operand's).
        """
        found: list[range] = []
        for index, size in zip(self.indices, self.shape, strict=True):
            hull = index.hull(box)
            found.append(range(min(max(hull.start, 0), size), max(min(hull.stop, size), 0)))
        return tuple(found)


@dataclass(frozen=True)
class Work:
    """Floating point operations for each point of some of the dimensions (all, if None)."""

    flops: int
    dims: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Space:
    """The iteration space of an operator; ``operands`` in their order, None for one that is no tensor."""

    dims: tuple[Dim, ...]
    operands: tuple[Access | None, ...]
    results: tuple[Access, ...]
    work: tuple[Work, ...] = ()

    def __post_init__(self) -> None:
        names = {dim.name for dim in self.dims}
        if len(names) != len(self.dims):
            raise ValueError(f"a space names a dimension twice: {self}")
        accesses = [access for access in (*self.operands, *self.results) if access is not None]
        used = {name for access in accesses for index in access.indices for name, _ in index.terms}
        used |= {name for work in self.work for name in work.dims or ()}
        if not used <= names:
            raise ValueError(f"a space has no dimension {', '.join(sorted(used - names))}: {self}")

    def __str__(self) -> str:
        operands = ", ".join("-" if access is None else str(access) for access in self.operands)
        return f"({', '.join(map(str, self.dims))}) : {operands} -> {', '.join(map(str, self.results))}"

    def dim(self, name: str) -> Dim:
        """The dimension of a name; KeyError if there is none."""
        for dim in self.dims:
            if dim.name == name:
                return dim
        raise KeyError(name)

    def full(self, box: Box | None = None) -> dict[str, range]:
        """``box`` with the dimensions that it does not name."""
        return {dim.name: (box or {}).get(dim.name, range(dim.size)) for dim in self.dims}

    def reads(self, operand: int, box: Box) -> tuple[range, ...]:
        """The part of an operand that the results in ``box`` need: complete along whole dimensions.

        Raises ValueError for an operand that is no tensor.
        """
        access = self.operands[operand]
        if access is None:
            raise ValueError(f"operand {operand} is no tensor")
        needed = {
            dim.name: range(dim.size) if dim.kind == "whole" else indices
            for dim, indices in zip(self.dims, self.full(box).values(), strict=True)
        }
        return access.hull(needed)

    def writes(self, result: int, box: Box) -> tuple[range, ...]:
        """The part of a result that ``box`` gives."""
        return self.results[result].hull(self.full(box))

    def flops(self, box: Box | None = None) -> int:
        """Floating point operations of the points in ``box``."""
        sizes = {name: len(indices) for name, indices in self.full(box).items()}
        return sum(
            work.flops * prod(sizes[name] for name in (sizes if work.dims is None else work.dims)) for work in self.work
        )


# -- making spaces ----------------------------------------------------------------------------------------------------


def dims_of(shape: Sequence[int], letter: str = "i") -> tuple[Dim, ...]:
    """Parallel dimensions ``i0, i1, ...`` of these sizes."""
    return tuple(Dim(f"{letter}{place}", size) for place, size in enumerate(shape))


def at(*names: str | int) -> tuple[Index, ...]:
    """Indices that are each one dimension, or a number."""
    return tuple(Index((), name) if isinstance(name, int) else Index(((name, 1),)) for name in names)


def access(shape: Sequence[int], dims: Iterable[Dim]) -> Access:
    """A tensor whose dimensions are those."""
    return Access(tuple(shape), at(*(dim.name for dim in dims)))


def broadcast(shape: Sequence[int], dims: Sequence[Dim]) -> Access:
    """A tensor that broadcasts to ``dims`` as numpy does: aligned at the end, index 0 where its size is 1."""
    aligned = dims[len(dims) - len(shape) :]
    indices = (0 if size == 1 else dim.name for size, dim in zip(shape, aligned, strict=True))
    return Access(tuple(shape), at(*indices))


def pointwise(operands: Sequence[Sequence[int] | None], result: Sequence[int], flops: int = 0) -> Space:
    """A function of single elements; operands broadcast to the result."""
    dims = dims_of(result)
    accesses = tuple(None if shape is None else broadcast(shape, dims) for shape in operands)
    return Space(dims, accesses, (access(result, dims),), (Work(flops),) if flops else ())


def whole_at(shape: Sequence[int], axis: int) -> tuple[Dim, ...]:
    """Parallel dimensions of these sizes but for ``axis``, which is whole."""
    return tuple(replace(dim, kind="whole") if place == axis else dim for place, dim in enumerate(dims_of(shape)))


def along(shape: Sequence[int], axis: int, flops: int, vectors: int = 0) -> Space:
    """A function of all that lies along ``axis``, of the same shape; ``vectors`` further operands lie along it too."""
    dims = whole_at(shape, axis)
    x, vector = access(shape, dims), access((shape[axis],), (dims[axis],))
    return Space(dims, (x, *([vector] * vectors)), (x,), (Work(flops),))


def made(shape: Sequence[int], scalars: int = 0) -> Space:
    """A tensor made of nothing but ``scalars`` operands that are no tensors."""
    dims = dims_of(shape)
    return Space(dims, (None,) * scalars, (access(shape, dims),))


def reshaped(shape: Sequence[int], result: Sequence[int]) -> Space:
    """The same elements in another shape: dimensions are those that both shapes are made of.

    Where the sizes have no common parts ([4, 6] to [3, 8]), everything in between is whole.
    """
    dims: list[Dim] = []
    read: list[Index] = []
    written: list[Index] = []
    for place, (left, right) in enumerate(_groups(shape, result)):
        parts = _common_parts(left, right)
        if parts is None:
            old, new = dims_of(left, f"w{place}_"), dims_of(right, f"r{place}_")
            dims += [*(Dim(dim.name, dim.size, "whole") for dim in old), *new]
            read += at(*(dim.name for dim in old))
            written += at(*(dim.name for dim in new))
            continue
        made = dims_of(parts, f"p{place}_")
        dims += made
        read += _composed(left, made)
        written += _composed(right, made)
    operand, output = Access(tuple(shape), tuple(read)), Access(tuple(result), tuple(written))
    return Space(tuple(dims), (operand,), (output,))


def _groups(shape: Sequence[int], result: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Runs of dimensions of both shapes with the same number of elements, as short as they get."""
    left, right = list(shape), list(result)
    if 0 in left:
        return [(left, right)]
    groups: list[tuple[list[int], list[int]]] = []
    while left or right:
        a, b = ([left.pop(0)] if left else []), ([right.pop(0)] if right else [])
        while prod(a) != prod(b):
            if prod(a) < prod(b):
                a.append(left.pop(0))
            else:
                b.append(right.pop(0))
        groups.append((a, b))
    return groups


def _common_parts(left: Sequence[int], right: Sequence[int]) -> list[int] | None:
    """Factors such that each size of both is a product of consecutive ones; None if there are none."""
    if 0 in left:
        return None
    parts: list[int] = []
    a, b = [size for size in left if size > 1], [size for size in right if size > 1]
    while a and b:
        part = gcd(a[-1], b[-1])
        if part != min(a[-1], b[-1]):
            return None
        parts.insert(0, part)
        for sizes in (a, b):
            sizes[-1] //= part
            if sizes[-1] == 1:
                sizes.pop()
    return parts


def _composed(sizes: Sequence[int], parts: Sequence[Dim]) -> tuple[Index, ...]:
    """Indices of dimensions of ``sizes`` in terms of their parts."""
    left = list(parts)
    found: list[Index] = []
    for size in sizes:
        terms: list[tuple[str, int]] = []
        rest = size
        while rest > 1:
            part = left.pop(0)
            rest //= part.size
            terms.append((part.name, rest))
        found.append(Index(tuple(terms)))
    return tuple(found)
