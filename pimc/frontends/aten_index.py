"""ATen operators that look up or write elements at computed places -> `nn` primitives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import i1, i32
from xdsl.ir import BlockArgument, SSAValue

from pimc.frontends.aten_shape import as_int, as_ints
from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import CacheRef, Meaning, ParamRef, static_shape, target_of
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn
from pimc.ir.nn.base import broadcast_shapes

if TYPE_CHECKING:
    import torch

_MASK_ADVICE: Final = "torch.where, or a multiplication with the mask: the shape must not depend on values"


def _embedding(context: NodeContext) -> Meaning:
    """Rows of a table.  A constant added to ids that are positions is a view of the table instead (OPT adds 2)."""
    table, ids = context.meaning(context.arguments["weight"]), context.arguments["indices"]
    offset = _position_offset(context, ids) if context.importer.prefix else None
    if isinstance(table, ParamRef) and offset is not None:
        ids, shift = offset
        table = table.rows(shift, table.shape[0])
    found = context.value(ids)
    shape = nn.tensor_of(found).get_shape()
    if len(shape) != 2:
        found = context.reshape(found, (1, math.prod(shape)))
    values = context.param(table) if isinstance(table, ParamRef) else context.value(context.arguments["weight"])
    return context.reshape(context.emit(nn.EmbeddingOp(values, found)), context.shape)


def _position_offset(context: NodeContext, ids: object) -> tuple[object, int] | None:
    """``(positions, c)`` where ``ids`` is ``positions + c`` and the positions depend on the input of that name
    alone.
    """
    if not hasattr(ids, "args") or target_of(ids) not in ("aten.add.Tensor", "aten.add.Scalar"):
        return None
    base, shift = ids.args[0], ids.args[1]
    if not isinstance(shift, int) or shift <= 0 or not _of_position(base):
        return None
    return base, shift


def _of_position(node: torch.fx.Node) -> bool:
    pending, seen = [node], set()
    leaves: set[str] = set()
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if current.op == "placeholder":
            leaves.add(current.name)
        pending.extend(current.all_input_nodes)
    return leaves == {"position"}


def _cache_write(context: NodeContext) -> Meaning:
    """A write of a chunk to a cache buffer at its own positions."""
    arguments = context.arguments
    cache = context.meaning(arguments["self"])
    if not isinstance(cache, CacheRef):
        raise UnsupportedError("an in-place write to something that is no cache")
    position = _first_position(context, context.value(arguments["index"]))
    source = context.value(arguments["source"])
    _, heads, tokens, size = nn.tensor_of(source).get_shape()
    by_token = context.emit(nn.TransposeOp(source, (0, 2, 1, 3)))
    folded = context.reshape(by_token, (1, tokens, heads * size))
    context.emit(nn.CacheWriteOp(cache.symbol, context.index(cache.layer), folded, position))
    return cache


def _first_position(context: NodeContext, index: SSAValue) -> SSAValue:
    """The position (``tensor<1xi32>``, an input) that ``position + 0, 1, 2, ...`` begins at; 0 for ``0, 1, 2, ...``."""
    if isinstance(index.owner, nn.IotaOp):
        return context.constant(np.zeros(1), i32)
    if isinstance(index.owner, nn.AddOp):
        for base, steps in (index.owner.operands, reversed(index.owner.operands)):
            while isinstance(base.owner, nn.ReshapeOp | nn.CastOp):
                base = base.owner.x
            if isinstance(steps.owner, nn.IotaOp) and isinstance(base, BlockArgument):
                return base
    raise UnsupportedError("a cache write at other positions than the chunk's own")


def _index_select(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    index = context.value(context.arguments["index"])
    rank = len(nn.tensor_of(value).get_shape())
    axis = as_int(context.arguments["dim"], "dimension") % max(1, rank)
    if rank == 0:
        value = context.reshape(value, (1,))
    return context.reshape(context.emit(nn.GatherOp(value, index, axis)), context.shape)


@dataclass(frozen=True)
class _Indexed:
    """``x[i, :, j]``: the indexed dimensions, the index tensors broadcast to one ``shape``, and where the result has
    that shape: at dimension ``place``, the first indexed one if they are neighbours, else in front.
    """

    axes: list[int]
    others: list[int]
    index: SSAValue
    shape: tuple[int, ...]
    place: int

    def order(self) -> list[int]:
        """Dimensions of ``[*shape, *others]`` in the order of the result."""
        width = len(self.shape)
        rest = [width + i for i in range(len(self.others))]
        return [*rest[: self.place], *range(width), *rest[self.place :]]


def _indexed(context: NodeContext, rank: int) -> _Indexed:
    indices = context.arguments["indices"]
    assert isinstance(indices, Sequence)
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    found = [context.value(indices[axis]) for axis in axes]
    if any(nn.tensor_of(value).element_type == i1 for value in found):
        raise UnsupportedError("indexing by a mask", _MASK_ADVICE)
    shape = broadcast_shapes([nn.tensor_of(value).get_shape() for value in found])
    columns = [context.reshape(context.broadcast(value, shape), (*shape, 1)) for value in found]
    neighbours = axes == list(range(axes[0], axes[0] + len(axes)))
    others = [axis for axis in range(rank) if axis not in axes]
    return _Indexed(axes, others, context.concat(columns, len(shape)), shape, axes[0] if neighbours else 0)


def _known_places(context: NodeContext, shape: tuple[int, ...]) -> npt.NDArray[np.int64] | None:
    """Of ``x[i, j]`` with indices known at import: the number of each element of the result in x; else None."""
    indices = context.arguments["indices"]
    assert isinstance(indices, Sequence)
    arrays = [None if index is None else context.known(index) for index in indices]
    if any(index is not None and array is None for index, array in zip(indices, arrays, strict=True)):
        return None
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers[tuple(slice(None) if array is None else array for array in arrays)]


def _taken(context: NodeContext, x: SSAValue, places: npt.NDArray[np.int64]) -> SSAValue:
    """Elements of x by number; all in order are a reshape."""
    count = math.prod(nn.tensor_of(x).get_shape())
    if places.size == count and bool((places.reshape(-1) == np.arange(count)).all()):
        return context.reshape(x, places.shape)
    if places.size == 0:
        return context.empty()
    return context.emit(nn.GatherOp(context.reshape(x, (count,)), context.constant(places, i32), 0))


def _picked(context: NodeContext, x: SSAValue, places: npt.NDArray[np.int64]) -> SSAValue:
    """``x[i, j]`` with known indices: one dimension that is picked from is a gather along it."""
    shape = nn.tensor_of(x).get_shape()
    given = [axis for axis, index in enumerate(context.node.args[1]) if index is not None]
    known = context.known(context.node.args[1][given[0]])
    in_order = bool((places.reshape(-1) == np.arange(places.size)).all()) and places.size == math.prod(shape)
    if len(given) == 1 and known is not None and known.dtype != np.bool_ and not in_order and places.size:
        return context.emit(nn.GatherOp(x, context.constant(known % shape[given[0]], i32), given[0]))
    return _taken(context, x, places)


def _index(context: NodeContext) -> Meaning:
    """``x[:, i]`` is a gather along a dimension, ``x[i, j]`` one of points."""
    x = context.value(context.arguments["self"])
    places = _known_places(context, nn.tensor_of(x).get_shape())
    if places is not None:
        return _picked(context, x, places)
    rank = len(nn.tensor_of(x).get_shape())
    indexed = _indexed(context, rank)
    if len(indexed.axes) == 1:
        index = context.reshape(indexed.index, indexed.shape)
        return context.emit(nn.GatherOp(x, index, indexed.axes[0]))
    points = nn.GatherNdOp(context.transpose(x, [*indexed.axes, *indexed.others]), indexed.index, 0)
    return context.transpose(context.emit(points), indexed.order())


def _index_put(context: NodeContext) -> Meaning:
    """``x[i, j] = values``, added where ``accumulate`` is set."""
    arguments = context.arguments
    x = context.value(arguments["self"])
    shape = nn.tensor_of(x).get_shape()
    values = context.operand(arguments["values"], context.type.element_type)
    masked = _masked_put(context, x, values)
    if masked is not None:
        return masked
    indexed = _indexed(context, len(shape))
    wanted = [*indexed.shape, *(shape[axis] for axis in indexed.others)]
    order = indexed.order()
    spread = context.broadcast(values, [wanted[dim] for dim in order])
    updates = context.transpose(spread, [int(dim) for dim in np.argsort(order)])
    moved = [*indexed.axes, *indexed.others]
    reduction = "add" if arguments["accumulate"] else "none"
    written = nn.ScatterNdOp(context.transpose(x, moved), indexed.index, updates, reduction)
    return context.transpose(context.emit(written), [int(dim) for dim in np.argsort(moved)])


def _masked_put(context: NodeContext, x: SSAValue, values: SSAValue) -> SSAValue | None:
    """``x[mask] = values`` with the same values at every place of the mask; None for another form."""
    indices = context.arguments["indices"]
    assert isinstance(indices, Sequence)
    given = [axis for axis, index in enumerate(indices) if index is not None]
    mask = context.value(indices[given[0]]) if len(given) == 1 else None
    if mask is None or nn.tensor_of(mask).element_type != i1:
        return None
    sizes = nn.tensor_of(mask).get_shape()
    lead, rest = given[0], len(context.shape) - given[0] - len(sizes)
    have = nn.tensor_of(values).get_shape()
    # The values have one dimension for all places of the mask, and may lack the first ones.
    full = (*(1,) * (lead + 1 + rest - len(have)), *have)
    if len(full) != lead + 1 + rest or full[lead] != 1:
        return None
    column = context.reshape(mask, (*(1,) * lead, *sizes, *(1,) * rest))
    spread = context.reshape(values, (*full[:lead], *(1,) * len(sizes), *full[lead + 1 :]))
    if context.arguments["accumulate"]:
        spread = context.emit(nn.AddOp(x, context.broadcast(spread, context.shape)))
    return context.broadcast(context.emit(nn.SelectOp(column, spread, x)), context.shape)


def axis_and_index(context: NodeContext, x: SSAValue) -> tuple[int, SSAValue, SSAValue, tuple[int, ...]]:
    """The dimension that the index is along, the operand, the index and its shape; scalars as vectors of one."""
    index = context.value(context.arguments["index"])
    x, index = (context.reshape(value, nn.tensor_of(value).get_shape() or (1,)) for value in (x, index))
    axis = as_int(context.arguments["dim"], "dimension") % len(nn.tensor_of(x).get_shape())
    return axis, x, index, nn.tensor_of(index).get_shape()


def _gather(context: NodeContext) -> Meaning:
    """One element of x an element of the index, along a dimension; in the others the index may be shorter."""
    x = context.value(context.arguments["self"])
    axis, x, index, sizes = axis_and_index(context, x)
    if 0 in sizes:
        return context.empty()
    for dim, size in enumerate(sizes):
        if dim != axis:
            x = context.cut(x, dim, 0, size)
    return context.reshape(context.emit(nn.GatherElementsOp(x, index, axis)), context.shape)


def _as_strided(context: NodeContext) -> Meaning:
    """Elements of the operand by their addresses, from the layout that the exporter knows it to have."""
    arguments = context.arguments
    source = context.node.args[0].meta["val"]
    shape, strides = static_shape(source.shape), static_shape(source.stride())
    offset = arguments["storage_offset"]
    offset = source.storage_offset() if offset is None else as_int(offset, "offset")
    steps = [as_int(step, "stride") for step in as_ints(arguments["stride"], "stride")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    held = _addresses(shape, strides, as_int(source.storage_offset(), "offset"))
    wanted = _addresses(context.shape, steps, offset)
    table = np.full(max(int(held.max(initial=0)), int(wanted.max(initial=0))) + 1, -1)
    table[held] = numbers
    places = table[wanted]
    if bool((places < 0).any()):
        raise UnsupportedError("a view of memory beyond its operand", "a view of the whole tensor")
    return _taken(context, context.value(arguments["self"]), places)


def _addresses(shape: Sequence[int], strides: Sequence[int], offset: int) -> npt.NDArray[np.int64]:
    """Where each element of a strided tensor lies."""
    found = np.full(tuple(shape), offset, dtype=np.int64)
    for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
        found += (np.arange(size) * stride).reshape([-1 if dim == axis else 1 for dim in range(len(shape))])
    return found


def _one_hot(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    column = context.reshape(value, (*nn.tensor_of(value).get_shape(), 1))
    classes = context.iota(context.shape[-1:])
    return context.cast(context.emit(nn.CompareOp(column, classes, "eq")), i32)


TABLE: Final[Mapping[str, Converter]] = {
    "aten.embedding.default": _embedding,
    "aten.index_copy_.default": _cache_write,
    "aten.index_select.default": _index_select,
    **dict.fromkeys(("aten.index.Tensor", "aten._unsafe_index.Tensor"), _index),
    **dict.fromkeys(("aten.index_put.default", "aten._unsafe_index_put.default"), _index_put),
    "aten.gather.default": _gather,
    "aten.as_strided.default": _as_strided,
    "aten.one_hot.default": _one_hot,
}
"""Converters by the operator's name."""
