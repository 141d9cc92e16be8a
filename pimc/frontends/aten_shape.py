"""ATen operators that move, cut, join, repeat, pad or create data -> `nn` primitives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from xdsl.dialects.builtin import f32, i1, i32
from xdsl.ir import SSAValue

from pimc.frontends.fx_context import NodeContext
from pimc.frontends.fx_values import CacheRef, Meaning, ParamRef
from pimc.frontends.graph import Converter
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn


def as_int(value: object, what: str) -> int:
    """``value`` as a plain integer; UnsupportedError where it is symbolic or a tensor."""
    if isinstance(value, int):
        return value
    raise UnsupportedError(f"{what} that is no constant", "export with the sizes as plain numbers")


def as_ints(value: object, what: str) -> list[int]:
    """``value`` as a list of plain integers (a single one becomes a list of one)."""
    return [as_int(item, what) for item in value] if isinstance(value, Sequence) else [as_int(value, what)]


def _same(context: NodeContext) -> Meaning:
    """The operand itself, converted if the element type differs."""
    argument = context.node.args[0]
    found = context.meaning(argument)
    if isinstance(found, ParamRef | CacheRef) and context.type.element_type == f32:
        return found
    return context.cast(context.value(argument), context.type.element_type)


def _dropout(context: NodeContext) -> Meaning:
    rate, train = context.arguments.get("p"), context.arguments.get("train")
    if train and rate != 0:
        raise UnsupportedError("dropout in training", "model.eval() turns it off")
    return _same(context)


def _native_dropout(context: NodeContext) -> Meaning:
    if context.arguments.get("train") is not False:
        raise UnsupportedError("dropout in training", "model.eval() turns it off")
    return [context.meaning(context.arguments["input"])]


def _reshape(context: NodeContext) -> Meaning:
    return context.reshape(context.value(context.node.args[0]), context.shape)


def _expand(context: NodeContext) -> Meaning:
    return context.broadcast(context.value(context.node.args[0]), context.shape)


def _permuted(context: NodeContext, order: Sequence[int]) -> Meaning:
    found = context.meaning(context.node.args[0])
    if isinstance(found, ParamRef) and list(order) == [1, 0]:
        return found.transposed()
    return context.transpose(context.value(context.node.args[0]), order)


def _transpose(context: NodeContext) -> Meaning:
    rank = len(context.shape)
    if rank == 0:
        return context.value(context.node.args[0])
    order = list(range(rank))
    first, second = (as_int(context.arguments[name], "dimension") % rank for name in ("dim0", "dim1"))
    order[first], order[second] = order[second], order[first]
    return _permuted(context, order)


def _t(context: NodeContext) -> Meaning:
    return _permuted(context, list(range(len(context.shape)))[::-1])


def _permute(context: NodeContext) -> Meaning:
    rank = len(context.shape)
    return _permuted(context, [dim % rank for dim in as_ints(context.arguments["dims"], "dimension")])


def sizes_of(found: Meaning) -> tuple[int, ...]:
    """The shape of a weight or value."""
    if isinstance(found, ParamRef):
        return found.shape
    if isinstance(found, SSAValue):
        return nn.tensor_of(found).get_shape()
    raise UnsupportedError("a list of tensors where one is wanted")


def bounds(context: NodeContext, size: int) -> tuple[int, int, int]:
    """``start``, ``stop`` and ``step`` of a slice of a dimension of ``size`` elements."""
    arguments = context.arguments
    start = 0 if arguments["start"] is None else as_int(arguments["start"], "start")
    stop = size if arguments["end"] is None else as_int(arguments["end"], "end")
    start, stop, _ = slice(start, stop).indices(size)
    return start, max(start, stop), as_int(arguments["step"], "step")


def _slice(context: NodeContext) -> Meaning:
    argument = context.arguments["self"]
    found = context.meaning(argument)
    if isinstance(found, CacheRef):
        found = context.value(argument)
    sizes = sizes_of(found)
    dim = as_int(context.arguments["dim"], "dimension") % len(sizes)
    start, stop, step = bounds(context, sizes[dim])
    if isinstance(found, ParamRef) and dim == 0 and step == 1:
        return found.rows(start, stop)
    if isinstance(found, ParamRef) and (start, stop, step) == (0, sizes[dim], 1):
        return found
    return context.cut(context.value(argument), dim, start, stop, step)


def _select(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    sizes = nn.tensor_of(value).get_shape()
    dim = as_int(context.arguments["dim"], "dimension") % len(sizes)
    index = as_int(context.arguments["index"], "index") % sizes[dim]
    return context.reshape(context.cut(value, dim, index, index + 1), context.shape)


def _pieces(context: NodeContext, sizes: Sequence[int], dim: int) -> list[Meaning]:
    """Parts of the operand along ``dim``; of a weight cut in its first dimension views."""
    argument = context.node.args[0]
    found = context.meaning(argument)
    value = None if isinstance(found, ParamRef) and dim == 0 else context.value(argument)
    pieces: list[Meaning] = []
    start = 0
    for size in sizes:
        if value is None:
            assert isinstance(found, ParamRef)
            pieces.append(found.rows(start, start + size))
        else:
            pieces.append(context.cut(value, dim, start, start + size))
        start += size
    return pieces


def _dim_of_operand(context: NodeContext) -> int:
    rank = len(sizes_of(context.meaning(context.node.args[0])))
    return as_int(context.arguments["dim"], "dimension") % rank


def _split(context: NodeContext) -> Meaning:
    """Pieces of the sizes that the exporter found (split, split_with_sizes and chunk alike)."""
    dim = _dim_of_operand(context)
    return _pieces(context, [type_.get_shape()[dim] for type_ in context.types], dim)


def _unbind(context: NodeContext) -> Meaning:
    dim = _dim_of_operand(context)
    value = context.value(context.node.args[0])
    return [
        context.reshape(context.cut(value, dim, index, index + 1), type_.get_shape())
        for index, type_ in enumerate(context.types)
    ]


def _getitem(context: NodeContext) -> Meaning:
    found, index = context.meaning(context.node.args[0]), as_int(context.node.args[1], "index")
    if not isinstance(found, Sequence):
        raise UnsupportedError("an element of something that is no list")
    if not -len(found) <= index < len(found):
        raise UnsupportedError(f"result {index}, which only training needs")
    return found[index]


def _cat(context: NodeContext) -> Meaning:
    values = context.values(context.arguments["tensors"], context.type.element_type)
    # PyTorch lets an empty vector join tensors of any rank.
    values = [value for value in values if nn.tensor_of(value).get_shape() != (0,) or len(context.shape) == 1]
    return context.concat(values, as_int(context.arguments["dim"], "dimension") % len(context.shape))


def _stack(context: NodeContext) -> Meaning:
    axis = as_int(context.arguments["dim"], "dimension") % len(context.shape)
    piece = [1 if dim == axis else size for dim, size in enumerate(context.shape)]
    values = context.values(context.arguments["tensors"], context.type.element_type)
    return context.concat([context.reshape(value, piece) for value in values], axis)


def _flip(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    rank = len(context.shape)
    for dim in {axis % rank for axis in as_ints(context.arguments["dims"], "dimension")}:
        backwards = context.constant(np.arange(context.shape[dim])[::-1], i32)
        value = context.emit(nn.GatherOp(value, backwards, dim))
    return value


def _roll(context: NodeContext) -> Meaning:
    value = context.value(context.arguments["self"])
    shifts = as_ints(context.arguments["shifts"], "shift")
    dims = as_ints(context.arguments["dims"], "dimension")
    if not dims:
        flat = _rolled(context, context.reshape(value, (math.prod(context.shape),)), shifts[0], 0)
        return context.reshape(flat, context.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        value = _rolled(context, value, shift, dim % len(context.shape))
    return value


def _rolled(context: NodeContext, value: SSAValue, shift: int, dim: int) -> SSAValue:
    size = nn.tensor_of(value).get_shape()[dim]
    place = -shift % size if size else 0
    if place == 0:
        return value
    return context.concat([context.cut(value, dim, place, size), context.cut(value, dim, 0, place)], dim)


def _repeat(context: NodeContext) -> Meaning:
    """``[a, b]`` repeated (r, s) times: ``[r, a, s, b]`` with the copies broadcast, reshaped."""
    repeats = as_ints(context.arguments["repeats"], "repeats")
    value = context.value(context.arguments["self"])
    shape = nn.tensor_of(value).get_shape()
    shape = (*(1,) * (len(repeats) - len(shape)), *shape)
    spread = [size for dim in shape for size in (1, dim)]
    wanted = [size for count, dim in zip(repeats, shape, strict=True) for size in (count, dim)]
    return context.reshape(context.broadcast(context.reshape(value, spread), wanted), context.shape)


def _repeat_interleave(context: NodeContext) -> Meaning:
    value, dim = context.value(context.arguments["self"]), context.arguments["dim"]
    count = as_int(context.arguments["repeats"], "repeats")
    shape = nn.tensor_of(value).get_shape()
    if dim is None:
        shape, dim = (math.prod(shape),), 0
    axis = as_int(dim, "dimension") % len(shape)
    spread = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    wanted = (*shape[: axis + 1], count, *shape[axis + 1 :])
    return context.reshape(context.broadcast(context.reshape(value, spread), wanted), context.shape)


_MODES: Final = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def pad(context: NodeContext, value: SSAValue, pads: Sequence[int], mode: str, fill: float) -> SSAValue:
    """``pads`` as PyTorch gives them: low and high of the last dimension, then of the one before; negative ones cut."""
    shape = nn.tensor_of(value).get_shape()
    low, high = [0] * len(shape), [0] * len(shape)
    for index in range(len(pads) // 2):
        low[-1 - index], high[-1 - index] = pads[2 * index], pads[2 * index + 1]
    for dim, (before, after) in enumerate(zip(low, high, strict=True)):
        if mode == "edge" and min(before, after) < 0 < max(before, after):
            # What is repeated is the edge of the whole, not of what a cut on the other side leaves.
            places = np.arange(-before, shape[dim] + after).clip(0, shape[dim] - 1)
            value, low[dim], high[dim] = context.emit(nn.GatherOp(value, context.constant(places, i32), dim)), 0, 0
            continue
        value = context.cut(value, dim, max(0, -before), shape[dim] - max(0, -after))
    low, high = [max(0, size) for size in low], [max(0, size) for size in high]
    if not any(low) and not any(high):
        return value
    return context.emit(nn.PadOp(value, low, high, mode, fill))


def _pad(mode: str | None) -> Converter:
    """A pad of one mode, or of the mode in the arguments."""

    def convert(context: NodeContext) -> Meaning:
        arguments = context.arguments
        pads = as_ints(arguments.get("pad", arguments.get("padding")), "padding")
        fill = context.number(arguments.get("value") or 0, "fill value")
        kind = _MODES[mode or str(arguments["mode"])]
        return pad(context, context.value(arguments["self"]), pads, kind, float(fill))

    return convert


def _triangle(predicate: str) -> Converter:
    """What lies on one side of a diagonal: column - row ``predicate`` diagonal."""

    def convert(context: NodeContext) -> Meaning:
        value = context.value(context.arguments["self"])
        rows, columns = context.shape[-2:]
        diagonal = context.constant(as_int(context.arguments["diagonal"], "diagonal"), i32)
        limit = context.emit(nn.AddOp(context.iota((rows, 1), 0), diagonal))
        kept = context.emit(nn.CompareOp(context.iota((1, columns), 1), limit, predicate))
        if context.type.element_type == i1:
            return context.emit(nn.AndOp(value, context.broadcast(kept, context.shape)))
        return context.emit(nn.SelectOp(kept, value, context.constant(0, context.type.element_type)))

    return convert


def _eye(context: NodeContext) -> Meaning:
    rows, columns = context.shape
    same = context.emit(nn.CompareOp(context.iota((rows, 1), 0), context.iota((1, columns), 1), "eq"))
    return context.cast(same, context.type.element_type)


def _arange(context: NodeContext) -> Meaning:
    element = context.type.element_type
    start = context.number(context.arguments.get("start", 0) or 0, "start")
    step = context.number(context.arguments.get("step", 1), "step")
    value = context.cast(context.iota(context.shape), element)
    if step != 1:
        value = context.emit(nn.MulOp(value, context.constant(step, element)))
    if start != 0:
        value = context.emit(nn.AddOp(value, context.constant(start, element)))
    return value


def _filled(context: NodeContext, number: object) -> Meaning:
    element = context.type.element_type
    value = context.operand(number, element)
    return context.broadcast(context.reshape(value, ()), context.shape)


def _full(context: NodeContext) -> Meaning:
    return _filled(context, context.arguments.get("fill_value", context.arguments.get("value")))


def _scalar(context: NodeContext) -> Meaning:
    return _filled(context, context.arguments["s"])


def _zeros(context: NodeContext) -> Meaning:
    return _filled(context, 0)


def _ones(context: NodeContext) -> Meaning:
    return _filled(context, 1)


def _copy(context: NodeContext) -> Meaning:
    """What is left of ``x[...] = source`` in a functional program: the source in the shape of x."""
    return context.broadcast(context.operand(context.arguments["src"], context.type.element_type), context.shape)


def _nothing(context: NodeContext) -> Meaning:
    return []


def _names(form: str, *names: str) -> list[str]:
    return [f"aten.{name}.{form}" for name in names]


TABLE: Final[Mapping[str, Converter]] = {
    **dict.fromkeys(
        ("aten.squeeze.dim", "aten.squeeze.dims", "aten.flatten.using_ints", "aten.unflatten.int",
         *_names("default", "view", "reshape", "_unsafe_view", "unsqueeze", "squeeze", "view_as", "reshape_as",
                 "_reshape_copy", "view_copy", "squeeze_copy", "unsqueeze_copy")),
        _reshape,
    ),
    **dict.fromkeys(
        ("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten.to.other",
         *_names("default", "contiguous", "clone", "detach", "alias", "lift_fresh_copy", "detach_",
                 "_to_copy", "type_as", "lift_fresh", "positive")),
        _same,
    ),
    **dict.fromkeys(_names("default", "dropout", "feature_dropout"), _dropout),
    "aten.native_dropout.default": _native_dropout,
    **dict.fromkeys(_names("default", "expand", "expand_as", "broadcast_to", "expand_copy"), _expand),
    **dict.fromkeys(("aten.transpose.int", "aten.transpose_copy.int", "aten.swapaxes.default"), _transpose),
    "aten.t.default": _t,
    "aten.numpy_T.default": _t,
    **dict.fromkeys(_names("default", "permute", "permute_copy"), _permute),
    **dict.fromkeys(("aten.slice.Tensor", "aten.slice_copy.Tensor"), _slice),
    **dict.fromkeys(("aten.select.int", "aten.select_copy.int"), _select),
    **dict.fromkeys(
        ("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default", "aten.split.sizes",
         "aten.split_copy.Tensor", "aten.split_with_sizes_copy.default", "aten.unsafe_chunk.default",
         "aten.unsafe_split.Tensor"),
        _split,
    ),
    **dict.fromkeys(("aten.unbind.int", "aten.unbind_copy.int"), _unbind),
    "getitem": _getitem,
    "aten.cat.default": _cat,
    "aten.stack.default": _stack,
    "aten.flip.default": _flip,
    "aten.roll.default": _roll,
    "aten.repeat.default": _repeat,
    "aten.repeat_interleave.self_int": _repeat_interleave,
    "aten.pad.default": _pad(None),
    "aten.constant_pad_nd.default": _pad("constant"),
    **{f"aten.{kind}_pad{n}d.default": _pad(mode) for n in (1, 2, 3)
       for kind, mode in (("reflection", "reflect"), ("replication", "replicate"))},
    "aten.tril.default": _triangle("le"),
    "aten.triu.default": _triangle("ge"),
    **dict.fromkeys(("aten.eye.default", "aten.eye.m"), _eye),
    **dict.fromkeys(("aten.arange.default", "aten.arange.start", "aten.arange.start_step"), _arange),
    **dict.fromkeys([*_names("default", "full", "full_like", "new_full", "fill"), "aten.fill.Scalar"], _full),
    **dict.fromkeys(
        ["aten.empty.memory_format",
         *_names("default", "zeros", "zeros_like", "new_zeros", "empty_like", "new_empty")],
        _zeros,
    ),
    **dict.fromkeys(_names("default", "ones", "ones_like", "new_ones"), _ones),
    "aten.scalar_tensor.default": _scalar,
    "aten.copy.default": _copy,
    **dict.fromkeys(
        ["aten._assert_async.msg", *_names("default", "_assert_tensor_metadata", "_assert_scalar")], _nothing
    ),
}  # fmt: skip
"""Converters by the operator's name."""
