"""How an operator's operands and results are cut over the cores: what its iteration space allows.

A parallel dimension of the space may be cut; then every operand and result that has the dimension is cut along it:
alike where its index is the dimension alone, else so that a core has all that its part needs (``2*y + u - 1``: parts
that overlap, :meth:`ShardAttr.slid`).  All other dimensions are whole, so that a core computes its part of the results
from its parts of the operands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import LayoutAttr, ShardAttr, ShardRound, layout_of
from pimc.ir.nn.space import Access, Space


@dataclass(frozen=True)
class Slide:
    """Index ``i`` of dimension ``name`` of a space meets ``factor * i + low .. high`` of a tensor's dimension."""

    name: str
    factor: int
    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether each index of the tensor is met by one index of the space."""
        return (self.low, self.high) == (0, self.factor - 1)

    def indices(self, box: range, extent: int) -> range:
        """The indices of a tensor's dimension of ``extent`` that a part of the space meets."""
        if not box:
            return range(0)
        start, stop = self.factor * box[0] + self.low, self.factor * box[-1] + self.high + 1
        return range(min(max(start, 0), extent), max(min(stop, extent), 0))

    def inverse(self, shard: ShardAttr) -> ShardAttr:
        """The cut of the space that asks for this cut of a tensor; VerifyException if none does."""
        if (self.factor, self.low, self.high) == (1, 0, 0):
            return shard
        r, *more = shard.shard_rounds
        if not more and self.factor <= r.distance:
            start, size = (r.start - self.low) // self.factor, r.distance // self.factor
            own = ShardAttr.of([ShardRound(start, r.first_core, r.cores, size, r.share, r.repeats)])
            if own.slid(self.factor, self.low, self.high) == shard:
                return own
        raise VerifyException(f"a cut {shard} is not what indices {self.factor} * i + {self.low} .. {self.high} need")


def slide(space: Space, access: Access, dim: int) -> Slide | None:
    """How dimension ``dim`` of a tensor is cut with a dimension of the space; None if with none.

    Of several dimensions in one index the outermost parallel one counts.
    """
    index = access.indices[dim]
    parallel = [term for term in index.terms if space.dim(term[0]).kind == "parallel"]
    outer = max(parallel, key=lambda term: term[1], default=None)
    if outer is None or outer[1] < 1:
        return None
    name, factor = outer
    reach = [f * (space.dim(other).size - 1) for other, f in index.terms if other != name]
    low, high = sum(min(0, far) for far in reach), sum(max(0, far) for far in reach)
    return Slide(name, factor, index.offset + low, index.offset + high)


def cuts_of(space: Space, operands: Sequence[Attribute], what: str) -> dict[str, ShardAttr]:
    """The dimensions of the space that operands of these types cut, and how.

    Raises VerifyException where an operand is cut along a dimension that has to be whole, or two differ.
    """
    cuts: dict[str, ShardAttr] = {}
    for number, (type_, access) in enumerate(zip(operands, space.operands, strict=True)):
        layout = layout_of(type_)
        if layout is not None and not layout.is_local:
            raise VerifyException(f"{what}: operand {number} is in {layout.memory.data}, not in local memory")
        for dim, shard in (layout.cuts if layout is not None else {}).items():
            found = None if access is None else slide(space, access, dim)
            if found is None:
                raise VerifyException(f"{what}: operand {number} is cut along dimension {dim}, which it needs whole")
            own = found.inverse(shard)
            if cuts.setdefault(found.name, own) != own:
                raise VerifyException(f"{what}: operands are cut differently over the cores along dimension {dim}")
    return cuts


def layout_under(space: Space, access: Access | None, cuts: Mapping[str, ShardAttr]) -> LayoutAttr | None:
    """The layout of an operand or result of an operator whose space is cut so; None where it is whole.

    Raises VerifyException where no layout gives the cores what they need.
    """
    found: dict[int, ShardAttr] = {}
    for dim in range(0 if access is None else len(access.shape)):
        along = None if access is None else slide(space, access, dim)
        if along is not None and along.name in cuts:
            shard = cuts[along.name].slid(along.factor, along.low, along.high)
            if shard is None:
                raise VerifyException(f"no cut has the indices that a cut of {along.name} needs of dimension {dim}")
            found[dim] = shard
    return LayoutAttr.of(found) if found else None


def result_layouts(space: Space, operands: Sequence[Attribute], what: str) -> list[LayoutAttr | None]:
    """The layouts of the results of an operator on operands of these types.

    Raises VerifyException where the space does not allow the operands' layouts, or an operand is whole along a
    dimension that is cut.
    """
    cuts = cuts_of(space, operands, what)
    check_cuts(space, cuts, what)
    for number, (type_, access) in enumerate(zip(operands, space.operands, strict=True)):
        if isinstance(type_, TensorType) and layout_of(type_) != layout_under(space, access, cuts):
            raise VerifyException(f"{what}: operand {number} is whole, others are cut over the cores along a dimension")
    return [layout_under(space, access, cuts) for access in space.results]


def check_cuts(space: Space, cuts: Mapping[str, ShardAttr], what: str) -> None:
    """Raise VerifyException where a dimension cannot be cut: it is not the outermost one of an index, or results of
    several parts fall together.
    """
    read = [access for access in space.operands if access is not None]
    for number, access in enumerate((*read, *space.results)):
        for dim, index in enumerate(access.indices):
            along = slide(space, access, dim)
            named = {name for name, _ in index.terms} & set(cuts)
            if named - {along.name if along else ""}:
                raise VerifyException(f"{what}: a dimension that is cut over the cores is part of another index")
            if named and along is not None and number >= len(read) and not along.exact:
                raise VerifyException(f"{what}: parts of results overlap")
