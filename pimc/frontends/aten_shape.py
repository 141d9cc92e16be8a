"""ATen operators that move, cut, join, create or look up data -> `nn` primitives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from xdsl.dialects.builtin import f32, i1, i32
from xdsl.ir import SSAValue

from pimc.frontends.fx_values import CacheRef, Meaning, ParamRef, UnsupportedError, element_of, target_of
from pimc.frontends.graph import Converter, NodeContext
from pimc.ir import nn

if TYPE_CHECKING:
    import torch


def as_int(value: object, what: str) -> int:
    """``value`` as a plain integer; UnsupportedError where it is symbolic or a tensor."""
    if isinstance(value, int):
        return value
    raise UnsupportedError(f"{what} that is no constant")


def as_ints(value: object, what: str) -> list[int]:
    """``value`` as a list of plain integers (a single one becomes a list of one)."""
    return [as_int(item, what) for item in value] if isinstance(value, Sequence) else [as_int(value, what)]


def _same(context: NodeContext) -> Meaning:
    """The operand itself, converted if the element type differs."""
    argument = context.node.args[0]
    found = context.meaning(argument)
    if isinstance(found, ParamRef | CacheRef):
        return found
    return context.cast(context.value(argument), context.type.element_type)


def _reshape(context: NodeContext) -> Meaning:
    return context.reshape(context.value(context.node.args[0]), context.shape)


def _expand(context: NodeContext) -> Meaning:
    value = context.value(context.node.args[0])
    shape = nn.tensor_of(value).get_shape()
    if shape == context.shape:
        return value
    padded = (*(1,) * (len(context.shape) - len(shape)), *shape)
    return context.emit(nn.BroadcastToOp(context.reshape(value, padded), context.shape))


def _permuted(context: NodeContext, order: Sequence[int]) -> Meaning:
    found = context.meaning(context.node.args[0])
    if isinstance(found, ParamRef) and list(order) == [1, 0]:
        return found.transposed()
    value = context.value(context.node.args[0])
    return value if list(order) == sorted(order) else context.emit(nn.TransposeOp(value, order))


def _transpose(context: NodeContext) -> Meaning:
    rank = len(context.shape)
    order = list(range(rank))
    first, second = (as_int(context.arguments[name], "dimension") % rank for name in ("dim0", "dim1"))
    order[first], order[second] = order[second], order[first]
    return _permuted(context, order)


def _t(context: NodeContext) -> Meaning:
    return _permuted(context, list(range(len(context.shape)))[::-1])


def _permute(context: NodeContext) -> Meaning:
    rank = len(context.shape)
    return _permuted(context, [dim % rank for dim in as_ints(context.arguments["dims"], "dimension")])


def cut(context: NodeContext, value: SSAValue, dim: int, start: int, stop: int, step: int = 1) -> SSAValue:
    """``value[..., start:stop:step, ...]`` along ``dim``; the whole is the value itself."""
    shape = nn.tensor_of(value).get_shape()
    if (start, stop, step) == (0, shape[dim], 1):
        return value
    starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
    starts[dim], stops[dim], steps[dim] = start, stop, step
    return context.emit(nn.SliceOp(value, starts, stops, steps))


def _slice(context: NodeContext) -> Meaning:
    arguments = context.arguments
    found = context.meaning(arguments["self"])
    shape = found.shape if isinstance(found, ParamRef) else None
    value = None if isinstance(found, ParamRef) else context.value(arguments["self"])
    sizes = shape or nn.tensor_of(value or context.value(arguments["self"])).get_shape()
    dim = as_int(arguments["dim"], "dimension") % len(sizes)
    size = sizes[dim]
    start = 0 if arguments["start"] is None else as_int(arguments["start"], "start")
    stop = size if arguments["end"] is None else as_int(arguments["end"], "end")
    start, stop, _ = slice(start, stop).indices(size)
    step = as_int(arguments["step"], "step")
    if isinstance(found, ParamRef) and dim == 0 and step == 1:
        return found.rows(start, max(start, stop))
    return cut(context, value or context.value(arguments["self"]), dim, start, max(start, stop), step)


def _select(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    sizes = nn.tensor_of(value).get_shape()
    dim = as_int(context.arguments["dim"], "dimension") % len(sizes)
    index = as_int(context.arguments["index"], "index") % sizes[dim]
    return context.reshape(cut(context, value, dim, index, index + 1), context.shape)


def _split(context: NodeContext) -> Meaning:
    """Pieces of the sizes that the exporter found (split, split_with_sizes and chunk alike)."""
    value = context.value(context.node.args[0])
    rank = len(nn.tensor_of(value).get_shape())
    dim = as_int(context.arguments["dim"], "dimension") % rank
    pieces: list[SSAValue] = []
    start = 0
    for piece in context.node.meta["val"]:
        stop = start + as_int(piece.shape[dim], "size")
        pieces.append(cut(context, value, dim, start, stop))
        start = stop
    return pieces


def _getitem(context: NodeContext) -> Meaning:
    found = context.meaning(context.node.args[0])
    if not isinstance(found, list):
        raise UnsupportedError("an element of something that is no list")
    return found[as_int(context.node.args[1], "index")]


def _cat(context: NodeContext) -> Meaning:
    tensors = context.arguments["tensors"]
    assert isinstance(tensors, Sequence)
    values = [context.operand(item, context.type.element_type) for item in tensors]
    axis = as_int(context.arguments["dim"], "dimension") % len(context.shape)
    return values[0] if len(values) == 1 else context.emit(nn.ConcatOp(values, axis))


def _stack(context: NodeContext) -> Meaning:
    tensors = context.arguments["tensors"]
    assert isinstance(tensors, Sequence)
    axis = as_int(context.arguments["dim"], "dimension") % len(context.shape)
    piece = [1 if dim == axis else size for dim, size in enumerate(context.shape)]
    values = [context.reshape(context.value(item), piece) for item in tensors]
    return context.emit(nn.ConcatOp(values, axis))


def _arange(context: NodeContext) -> Meaning:
    arguments = context.arguments
    start = arguments.get("start", 0) or 0
    step = arguments.get("step", 1)
    if context.type.element_type != i32:
        raise UnsupportedError("a range of floats")
    value = context.emit(nn.IotaOp(context.type))
    if step != 1:
        value = context.emit(nn.MulOp(value, context.constant(as_int(step, "step"), i32)))
    if start != 0:
        value = context.emit(nn.AddOp(value, context.constant(as_int(start, "start"), i32)))
    return value


def _filled(context: NodeContext, number: object) -> Meaning:
    if not isinstance(number, bool | int | float):
        raise UnsupportedError("a fill value that is no constant")
    value = context.constant(number, context.type.element_type)
    if not context.shape:
        return value
    value = context.reshape(value, (1,) * len(context.shape))
    return context.emit(nn.BroadcastToOp(value, context.shape))


def _full(context: NodeContext) -> Meaning:
    return _filled(context, context.arguments.get("fill_value", context.arguments.get("value")))


def _scalar(context: NodeContext) -> Meaning:
    return _filled(context, context.arguments["s"])


def _index_select(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    axis = as_int(context.arguments["dim"], "dimension") % len(context.shape)
    return context.emit(nn.GatherOp(value, context.value(context.arguments["index"]), axis))


def _index(context: NodeContext) -> Meaning:
    """``x[:, i]``: one integer index tensor in one dimension."""
    indices = context.arguments["indices"]
    assert isinstance(indices, Sequence)
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) != 1:
        raise UnsupportedError("indexing by several tensors at once")
    axis, index = given[0]
    found = context.value(index)
    if nn.tensor_of(found).element_type == i1:
        raise UnsupportedError("indexing by a mask")
    return context.emit(nn.GatherOp(context.value(context.arguments["self"]), found, axis))


def _embedding(context: NodeContext) -> Meaning:
    """Rows of a table.  A constant added to ids that are positions is a view of the table instead (OPT adds
    2).
    """
    table, ids = context.meaning(context.arguments["weight"]), context.arguments["indices"]
    offset = _position_offset(context, ids)
    if isinstance(table, ParamRef) and offset is not None:
        ids, shift = offset
        table = table.rows(shift, table.shape[0])
    found = context.value(ids)
    if len(nn.tensor_of(found).get_shape()) == 1:
        found = context.reshape(found, (1, *nn.tensor_of(found).get_shape()))
    values = context.param(table) if isinstance(table, ParamRef) else context.value(context.arguments["weight"])
    return context.reshape(context.emit(nn.EmbeddingOp(values, found)), context.shape)


def _position_offset(context: NodeContext, ids: object) -> tuple[object, int] | None:
    """``(positions, c)`` where ``ids`` is ``positions + c`` and the positions depend on the input of that
    name alone.
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


def _index_copy(context: NodeContext) -> Meaning:
    """A write of a chunk to a cache buffer at its own positions."""
    arguments = context.arguments
    cache = context.meaning(arguments["self"])
    if not isinstance(cache, CacheRef):
        raise UnsupportedError("an in-place write to something that is no cache")
    index = context.value(arguments["index"])
    position = index.owner
    if not isinstance(position, nn.AddOp) or not isinstance(position.rhs.owner, nn.IotaOp):
        raise UnsupportedError("a cache write at other positions than the chunk's own")
    source = context.value(arguments["source"])
    _, heads, tokens, size = nn.tensor_of(source).get_shape()
    by_token = context.emit(nn.TransposeOp(source, (0, 2, 1, 3)))
    folded = context.reshape(by_token, (1, tokens, heads * size))
    context.emit(nn.CacheWriteOp(cache.symbol, context.index(cache.layer), folded, position.lhs))
    return context.read_cache(cache, context.node)


def _nothing(context: NodeContext) -> Meaning:
    return []


def _to(context: NodeContext) -> Meaning:
    element_of(context.node.meta["val"].dtype)
    return _same(context)


def _zeros(context: NodeContext) -> Meaning:
    return _filled(context, 0)


def _ones(context: NodeContext) -> Meaning:
    return _filled(context, 1)


def _reduce_axes(context: NodeContext) -> tuple[SSAValue, list[int], bool]:
    value = context.operand(context.arguments["self"], f32)
    rank = len(nn.tensor_of(value).get_shape())
    dims = context.arguments.get("dim")
    axes = list(range(rank)) if dims in (None, []) else [axis % rank for axis in as_ints(dims, "dimension")]
    return value, axes, bool(context.arguments.get("keepdim", False))


def _mean(context: NodeContext) -> Meaning:
    return context.emit(nn.ReduceMeanOp(*_reduce_axes(context)))


def _sum(context: NodeContext) -> Meaning:
    return context.emit(nn.ReduceSumOp(*_reduce_axes(context)))


def _amax(context: NodeContext) -> Meaning:
    return context.emit(nn.ReduceMaxOp(*_reduce_axes(context)))


SHAPE_CONVERTERS: Final[Mapping[str, Converter]] = {
    **dict.fromkeys(
        ("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.unsqueeze.default",
         "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.flatten.using_ints",
         "aten.view_as.default", "aten.unflatten.int"),
        _reshape,
    ),
    **dict.fromkeys(
        ("aten.contiguous.default", "aten.clone.default", "aten.detach.default", "aten.alias.default",
         "aten.dropout.default", "aten.lift_fresh_copy.default", "aten.detach_.default"),
        _same,
    ),
    **dict.fromkeys(
        ("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten._to_copy.default", "aten.type_as.default"),
        _to,
    ),
    **dict.fromkeys(("aten.expand.default", "aten.expand_as.default"), _expand),
    "aten.transpose.int": _transpose,
    "aten.t.default": _t,
    "aten.permute.default": _permute,
    "aten.slice.Tensor": _slice,
    "aten.select.int": _select,
    **dict.fromkeys(("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default"), _split),
    "getitem": _getitem,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    **dict.fromkeys(("aten.arange.default", "aten.arange.start", "aten.arange.start_step"), _arange),
    **dict.fromkeys(("aten.full.default", "aten.full_like.default", "aten.new_full.default"), _full),
    **dict.fromkeys(("aten.zeros.default", "aten.zeros_like.default", "aten.new_zeros.default"), _zeros),
    **dict.fromkeys(("aten.ones.default", "aten.ones_like.default", "aten.new_ones.default"), _ones),
    "aten.scalar_tensor.default": _scalar,
    "aten.index_select.default": _index_select,
    "aten.index.Tensor": _index,
    "aten.embedding.default": _embedding,
    "aten.index_copy_.default": _index_copy,
    "aten._assert_tensor_metadata.default": _nothing,
    "aten.mean.dim": _mean,
    "aten.sum.dim_IntList": _sum,
    "aten.amax.default": _amax,
}  # fmt: skip
"""Converters by the operator's name."""
