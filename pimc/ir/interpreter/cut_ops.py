"""`nn` operators on values that are cut over the cores: run core by core, each on the parts that the core holds.

A cut value is held as a whole array in which what no core holds is NaN (of integers the least number, of truth values
false), so that a wrong cut shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Block, Operation

from pimc.diagnostics import InternalError
from pimc.ir.interpreter.table import Array, Entry, Value
from pimc.ir.layout import ShardAttr, layout_of
from pimc.ir.nn.base import NnOp
from pimc.ir.nn.layouts import cuts_of, slide
from pimc.ir.nn.space import Access

if TYPE_CHECKING:
    from pimc.ir.interpreter.core import Frame


def slices(box: Sequence[range]) -> tuple[slice, ...]:
    """The ranges of a box as numpy slices."""
    return tuple(slice(indices.start, indices.stop) for indices in box)


def unowned(shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
    """An array that no core holds anything of."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.full(shape, np.nan, kind)
    return np.full(shape, 0 if kind.kind == "b" else np.iinfo(kind).min, kind)


def is_cut(op: Operation) -> TypeGuard[NnOp]:
    """Whether ``op`` is an `nn` operator with an operand that is cut."""
    return isinstance(op, NnOp) and any(layout_of(value.type) is not None for value in op.operands)


def run_by_core(frame: Frame, entry: Entry, op: NnOp, args: Sequence[Any]) -> list[Value]:
    """The results of an operator on cut operands, from the same operator on each core's parts."""
    space = op.space()
    cuts = cuts_of(space, [value.type for value in op.operands], op.name)
    if any(access is None for access in space.operands):
        raise InternalError(f"{op.name} has an operand that is no tensor beside one that is cut")
    operands = [access for access in space.operands if access is not None]
    results: list[Array | None] = [None] * len(op.results)
    for parts in _parts(cuts, {dim.name: dim.size for dim in space.dims}):
        boxes = [_box(op, access, parts) for access in operands]
        own = [np.asarray(array)[slices(box)] for array, box in zip(args, boxes, strict=True)]
        places = [_box(op, access, parts) for access in space.results]
        local = _local(op, [array.shape for array in own], [tuple(map(len, place)) for place in places], parts)
        for number, (value, place) in enumerate(zip(entry.run(frame, local, own), places, strict=True)):
            array = np.asarray(value)
            whole = results[number]
            if whole is None:
                whole = results[number] = unowned(space.results[number].shape, array.dtype)
            whole[slices(place)] = array
    return [array for array in results if array is not None]


def _parts(cuts: dict[str, ShardAttr], sizes: dict[str, int]) -> list[dict[str, range]]:
    """The ranges of the cut dimensions that the cores hold, without repetition."""
    found: dict[tuple[tuple[str, range], ...], None] = {}
    for core in range(min(shard.cores for shard in cuts.values())):
        pieces = [
            [(name, range(piece.start, piece.stop)) for piece in shard.pieces(core, sizes[name])]
            for name, shard in cuts.items()
        ]
        found |= dict.fromkeys(product(*pieces))
    return [dict(part) for part in found]


def _box(op: NnOp, access: Access, parts: dict[str, range]) -> list[range]:
    """The part of an operand or result where the cut dimensions have these ranges."""
    space = op.space()
    found: list[range] = []
    for dim, size in enumerate(access.shape):
        along = slide(space, access, dim)
        found.append(along.indices(parts[along.name], size) if along and along.name in parts else range(size))
    return found


def _local(
    op: NnOp, operands: Sequence[tuple[int, ...]], results: Sequence[tuple[int, ...]], parts: dict[str, range]
) -> NnOp:
    """The operator on parts of these shapes."""
    block = Block(arg_types=[_shaped(value.type, shape) for value, shape in zip(op.operands, operands, strict=True)])
    types = [_shaped(value.type, shape) for value, shape in zip(op.results, results, strict=True)]
    local = type(op).create(operands=block.args, result_types=types, properties=op.on_parts(parts))
    local.location = op.location
    return local


def _shaped(type_: Attribute, shape: tuple[int, ...]) -> Attribute:
    return TensorType(type_.element_type, shape) if isinstance(type_, TensorType) else type_
