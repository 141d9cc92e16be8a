"""How an operator's operands and results are cut over the cores: what its iteration space allows.

A parallel dimension of the space may be cut; then every operand and result that has the dimension is cut alike along
it.  All other dimensions are whole, so that a core computes its part of the results from its parts of the operands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import LayoutAttr, ShardAttr, layout_of
from pimc.ir.nn.space import Access, Space


def cut_name(space: Space, access: Access, dim: int) -> str | None:
    """The dimension of the space that is cut where dimension ``dim`` of a tensor is; None if there is none."""
    index = access.indices[dim]
    if len(index.terms) != 1 or index.offset or index.terms[0][1] != 1:
        return None
    found = space.dim(index.terms[0][0])
    return found.name if found.kind == "parallel" and found.size == access.shape[dim] else None


def cuts_of(space: Space, operands: Sequence[Attribute], what: str) -> dict[str, ShardAttr]:
    """The dimensions of the space that operands of these types cut, and how.

    Raises VerifyException where an operand is cut along a dimension that has to be whole, or two differ.
    """
    cuts: dict[str, ShardAttr] = {}
    for number, (type_, access) in enumerate(zip(operands, space.operands, strict=True)):
        layout = layout_of(type_)
        for dim, shard in (layout.cuts if layout is not None else {}).items():
            name = None if access is None else cut_name(space, access, dim)
            if name is None:
                raise VerifyException(f"{what}: operand {number} is cut along dimension {dim}, which it needs whole")
            if cuts.setdefault(name, shard) != shard:
                raise VerifyException(f"{what}: operands are cut differently over the cores along dimension {dim}")
    return cuts


def layout_under(space: Space, access: Access | None, cuts: Mapping[str, ShardAttr]) -> LayoutAttr | None:
    """The layout of an operand or result of an operator whose space is cut so; None where it is whole."""
    found: dict[int, ShardAttr] = {}
    for dim in range(0 if access is None else len(access.shape)):
        name = None if access is None else cut_name(space, access, dim)
        if name is not None and name in cuts:
            found[dim] = cuts[name]
    return LayoutAttr.of(found) if found else None


def result_layouts(space: Space, operands: Sequence[Attribute], what: str) -> list[LayoutAttr | None]:
    """The layouts of the results of an operator on operands of these types.

    Raises VerifyException where the space does not allow the operands' layouts, or an operand is whole along a
    dimension that is cut.
    """
    cuts = cuts_of(space, operands, what)
    for number, (type_, access) in enumerate(zip(operands, space.operands, strict=True)):
        if isinstance(type_, TensorType) and layout_of(type_) != layout_under(space, access, cuts):
            raise VerifyException(f"{what}: operand {number} is whole, others are cut over the cores along a dimension")
    for access in space.operands + space.results:
        used = {name for index in (access.indices if access else ()) for name, _ in index.terms}
        named = {cut_name(space, access, dim) for dim in range(len(access.shape))} if access else set()
        if used & set(cuts) - named:
            raise VerifyException(f"{what}: a dimension that is cut over the cores is part of another index")
    return [layout_under(space, access, cuts) for access in space.results]
