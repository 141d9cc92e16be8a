"""Linear layers: on whole activations, one for each part that is used alone, with their bias; and the last
token.
"""

from __future__ import annotations

from typing import Final

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.rewriter import Rewriter

from pimc.ir import nn
from pimc.ir.nn.base import values_of
from pimc.passes.raise_match import Notes, Replacer, only_user, other_operand, producer, scalar, users
from pimc.passes.raise_views import shape_of

_PARTS: Final = "separate linear layers"
_BY_TOKEN: Final = (nn.LinearOp, nn.RmsNormOp, nn.LayerNormOp, nn.UnaryOp, nn.BinaryOp)
"""Operators whose result for a token depends on that token alone; tokens are in the first operand (or
both).
"""


def raise_rank(function: FuncOp, notes: Notes) -> None:
    """Operators that work on each token alone move from ``[M, F]`` to ``[1, M, F]``, the reshape to behind
    them.
    """
    for op in list(function.walk()):
        if isinstance(op, _BY_TOKEN) and len(shape_of(op.results[0])) == 2:
            _unflatten(op)


def _unflatten(op: nn.NnOp) -> None:
    """Move one operator if its tensors of tokens are all ``[1, M, F]`` reshaped."""
    shape = shape_of(op.results[0])
    tokens = (0, 1) if isinstance(op, nn.BinaryOp) else (0,)
    operands = list(op.operands)
    moved = False
    for index in tokens:
        flat = shape_of(operands[index])
        inner = producer(operands[index], nn.ReshapeOp)
        if len(flat) < 2:
            continue
        if inner is None or flat[0] != shape[0] or shape_of(inner.x) != (1, *flat):
            return
        operands[index] = inner.x
        moved = True
    if moved:
        type_ = TensorType(nn.tensor_of(op.results[0]).element_type, (1, *shape))
        whole = type(op).create(operands=operands, result_types=[type_], properties=dict(op.properties))
        Replacer.replace(op, whole, nn.ReshapeOp(whole, shape))


def raise_bias(function: FuncOp, notes: Notes) -> None:
    """A bias added after a linear layer becomes its operand."""
    for op in list(function.walk()):
        if isinstance(op, nn.LinearOp) and op.bias is None:
            _take_bias(op)


def _take_bias(op: nn.LinearOp) -> None:
    added = only_user(op.result, nn.AddOp)
    bias = other_operand(added, op.result) if added is not None else None
    if added is not None and bias is not None and producer(bias, nn.ParamOp) and len(shape_of(bias)) == 1:
        Replacer.replace(added, nn.LinearOp(op.x, op.weight, bias))


def raise_parts(function: FuncOp, notes: Notes) -> None:
    """A linear layer whose result is only used in slices becomes one layer a slice, with rows of the
    weight.
    """
    for op in list(function.walk()):
        if isinstance(op, nn.LinearOp) and not _split_heads(op):
            _split(op, notes)


def _split(op: nn.LinearOp, notes: Notes) -> None:
    weight = producer(op.weight, nn.ParamOp)
    bias = producer(op.bias, nn.ParamOp) if op.bias is not None else None
    parts = [user for user in users(op.result) if isinstance(user, nn.SliceOp)]
    if not parts:
        return
    if len(parts) != len(users(op.result)):
        notes.refuse(op, _PARTS, "the whole result is used too")
        return
    if weight is None or weight.layer is not None or (op.bias is not None and bias is None):
        notes.refuse(op, _PARTS, "the weight or the bias is computed")
        return
    shape = shape_of(op.result)
    for part in parts:
        start, stop = values_of(part.starts)[-1], values_of(part.stops)[-1]
        whole = shape_of(part.result)[:-1] == shape[:-1] and set(values_of(part.steps)) == {1}
        if not whole:
            notes.refuse(op, _PARTS, "a slice takes some tokens only")
            return
    for part in parts:
        start, stop = values_of(part.starts)[-1], values_of(part.stops)[-1]
        rows = Replacer.insert(part, _rows(weight, start, stop))
        some = Replacer.insert(part, _rows(bias, start, stop)) if bias is not None else None
        Replacer.replace(part, nn.LinearOp(op.x, rows, some))


def _rows(param: nn.ParamOp, start: int, stop: int, groups: int = 1) -> nn.ParamOp:
    """Rows start to stop-1 (of each of ``groups`` groups) of a weight, by a view suffix of its name
    (:mod:`pimc.frontends.weights`).
    """
    type_ = nn.tensor_of(param.result)
    shape = ((stop - start) * groups, *type_.get_shape()[1:])
    prefix = f"{groups}x" if groups > 1 else ""
    return nn.ParamOp(f"{param.weight_name.data}[{prefix}{start}:{stop}]", TensorType(type_.element_type, shape))


def _split_heads(op: nn.LinearOp) -> bool:
    """Queries, keys and values of one head after the other (GPT-NeoX, Bloom): the result is cut into heads, and every
    use takes the same features of each.  One layer a use, with those rows of every head; whether that is the form.
    """
    weight = producer(op.weight, nn.ParamOp)
    bias = producer(op.bias, nn.ParamOp) if op.bias is not None else None
    heads = only_user(op.result, nn.ReshapeOp)
    if weight is None or weight.layer is not None or heads is None or (op.bias is not None and bias is None):
        return False
    x, split = shape_of(op.result), shape_of(heads.result)
    if len(x) != 3 or len(split) not in (4, 5) or split[:2] != x[:2] or split[2] < 2:
        return False
    turned = only_user(heads.result, nn.TransposeOp)
    order = values_of(turned.permutation) if turned is not None else tuple(range(len(split)))
    cut = turned.result if turned is not None else heads.result
    parts = [user for user in users(cut) if isinstance(user, nn.SliceOp)]
    axis = order.index(3)  # of what is cut: features of a head, or its parts where those have a dimension
    bounds = [_bounds(part, axis) for part in parts]
    if not parts or len(parts) != len(users(cut)) or None in bounds:
        return False
    unit = split[4] if len(split) == 5 else 1
    for part, found in zip(parts, bounds, strict=True):
        assert found is not None
        start, stop = found[0] * unit, found[1] * unit
        rows = Replacer.insert(part, _rows(weight, start, stop, split[2]))
        some = Replacer.insert(part, _rows(bias, start, stop, split[2])) if bias is not None else None
        linear = nn.LinearOp(op.x, rows, some)
        again = nn.ReshapeOp(linear, (*split[:3], found[1] - found[0], *split[4:]))
        views = [again] if turned is None else [again, nn.TransposeOp(again, order)]
        Replacer.replace(part, linear, *views)
    return True


def _bounds(part: nn.SliceOp, axis: int) -> tuple[int, int] | None:
    """Start and stop of a slice along ``axis`` alone; None for any other slice."""
    shape = shape_of(part.x)
    starts, stops = values_of(part.starts), values_of(part.stops)
    others = (index for index in range(len(shape)) if index != axis)
    whole = all((starts[index], stops[index]) == (0, shape[index]) for index in others)
    return (starts[axis], stops[axis]) if whole and set(values_of(part.steps)) == {1} else None


def raise_select_token(function: FuncOp, notes: Notes) -> None:
    """Row ``length - 1`` becomes `nn.select_token`, taken as early as rows are independent of each other."""
    for op in list(function.walk()):
        if isinstance(op, nn.GatherOp) and op.axis.value.data == 1:
            length = _length(op.indices)
            if length is None or len(shape_of(op.x)) != 3 or shape_of(op.x)[0] != 1:
                notes.refuse(op, "select_token", "the index is not a length less one")
                continue
            Replacer.replace(op, nn.SelectTokenOp(op.x, length))
            Rewriter.erase_op(op)
    for op in list(function.walk()):
        if isinstance(op, nn.SelectTokenOp):
            _move_up(op)


def _length(indices: SSAValue) -> SSAValue | None:
    """The length of ``length - 1``."""
    difference = producer(indices, nn.SubOp)
    if difference is not None and scalar(difference.rhs) == 1 and shape_of(difference.lhs) == (1,):
        return difference.lhs
    return None


def _move_up(select: nn.SelectTokenOp) -> None:
    """Before norms and linear layers that work on each token alone, so that they compute one row."""
    while True:
        inner = select.x.owner
        if not isinstance(inner, nn.RmsNormOp | nn.LayerNormOp | nn.LinearOp) or len(users(select.x)) != 1:
            return
        first = nn.SelectTokenOp(inner.x, select.length)
        one: nn.NnOp
        if isinstance(inner, nn.RmsNormOp):
            one = nn.RmsNormOp(first, inner.weight, inner.eps.value.data)
        elif isinstance(inner, nn.LayerNormOp):
            one = nn.LayerNormOp(first, inner.weight, inner.bias, inner.eps.value.data)
        else:
            one = nn.LinearOp(first, inner.weight, inner.bias)
        Replacer.insert(inner, first)
        Replacer.insert(inner, one)
        select.result.replace_all_uses_with(one.results[0])
        select = first
