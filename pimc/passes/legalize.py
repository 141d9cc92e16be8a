"""``legalize``: operators that the hardware has no lowering for become ones that have one.

Rewrites are a table by operator; each gives new operations, which are looked at again.  Operators on constants are
computed.  What is still not supported behind this pass, ``lower`` refuses, all at once and with the reason of each.
A decoder over KV caches has none of these operators and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import cast

import numpy as np
import numpy.typing as npt
from typing_extensions import override
from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType, i1
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.traits import Pure
from xdsl.transforms.dead_code_elimination import is_trivially_dead

from pimc.ir import nn
from pimc.ir.constants import LARGEST_HALF
from pimc.ir.interpreter.core import Frame, Interpreter, dense_values, held_dtype
from pimc.ir.locations import with_location
from pimc.ir.nn.base import shape_of, values_of
from pimc.ir.nn.source import Element
from pimc.ir.weights import WeightStore
from pimc.passes.base import Pass, PassContext
from pimc.passes.fusion import partitionable, weight_param
from pimc.passes.raise_views import apply_steps, chain

#: Elements up to which a result of constants is computed here.
FOLD_LIMIT = 1 << 20


@dataclass(frozen=True)
class LegalizePass(Pass):
    """Rewrite operators without a lowering; ``fold``: compute what depends on constants only."""

    name = "legalize"
    fold: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        folder = Interpreter(ModuleOp([]), None, "f32")
        for function in [op for op in module.ops if isinstance(op, func.FuncOp) and op.body.blocks]:
            work = [op for op in function.walk() if isinstance(op, nn.NnOp)]
            for op in work:
                if op.parent is None:
                    continue
                folded = fold(op, folder) if self.fold else None
                if folded is not None:
                    Rewriter.replace_op(op, folded)
                    continue
                rewrite = REWRITES.get(type(op))
                emit = Emitter(op, context.weights)
                result = rewrite(emit, op) if rewrite is not None else None
                if result is not None:
                    context.explain(op, f"becomes {', '.join(dict.fromkeys(new.name for new in emit.made))}")
                    op.results[0].replace_all_uses_with(result)
                    Rewriter.erase_op(op)
                    work.extend(emit.made)
            _remove_dead(function)


def _remove_dead(function: func.FuncOp) -> None:
    for op in reversed(list(function.walk())):
        if is_trivially_dead(op) and op.parent is not None:
            Rewriter.erase_op(op)


def fold(op: nn.NnOp, interpreter: Interpreter) -> Operation | None:
    """The constant that ``op`` computes from constants (or from nothing); None if it does not, or if it is large."""
    if len(op.results) != 1 or isinstance(op, nn.ConstantOp | nn.ParamOp) or not op.has_trait(Pure):
        return None
    type_ = nn.tensor_of(op.results[0])
    constants = [value.owner for value in op.operands]
    if prod(type_.get_shape()) > FOLD_LIMIT or not all(isinstance(owner, nn.ConstantOp) for owner in constants):
        return None
    values = [
        dense_values(owner.value).astype(held_dtype(owner.value.get_element_type()))
        for owner in constants
        if isinstance(owner, nn.ConstantOp)
    ]
    with np.errstate(all="ignore"):
        (result,) = interpreter.table.lookup(op).run(Frame(interpreter), op, values)
    array = np.asarray(interpreter.round(result, type_)).reshape(type_.get_shape())
    return with_location(nn.ConstantOp.from_array(array, cast(Element, type_.element_type)), op)


class Emitter:
    """Puts operations in front of the one that is rewritten, with its location."""

    def __init__(self, before: Operation, weights: WeightStore | None) -> None:
        self.before = before
        self.weights = weights
        self.made: list[nn.NnOp] = []

    def __call__(self, op: nn.NnOp) -> SSAValue:
        """Insert ``op``; its (first) result."""
        block = self.before.parent
        assert block is not None  # it is in a function
        block.insert_op_before(with_location(op, self.before), self.before)
        self.made.append(op)
        return op.results[0]

    def constant(self, values: npt.ArrayLike, like: SSAValue) -> SSAValue:
        """A constant of the element type of ``like``."""
        return self(nn.ConstantOp.from_array(values, cast(Element, nn.tensor_of(like).element_type)))

    def reshape(self, x: SSAValue, *shape: int) -> SSAValue:
        """x in another shape; x itself if it has that."""
        return x if shape_of(x) == shape else self(nn.ReshapeOp(x, shape))


def _linear(emit: Emitter, op: nn.LinearOp) -> SSAValue | None:
    """A weight in memory is a matrix operation; a computed one, or a computed bias, is a product and a sum."""
    if 0 in shape_of(op.weight):
        product = _zeros(emit, op.result)
        return product if op.bias is None else emit(nn.AddOp(product, op.bias))
    if partitionable(op):
        return None
    if weight_param(op.weight) is not None:
        product = emit(nn.LinearOp(op.x, op.weight))
    else:
        x = emit.reshape(op.x, *(shape_of(op.x) if len(shape_of(op.x)) > 1 else (1, *shape_of(op.x))))
        product = emit(nn.MatmulOp(x, emit(nn.TransposeOp(op.weight, (1, 0)))))
        product = emit.reshape(product, *shape_of(op.result))
    return product if op.bias is None else emit(nn.AddOp(product, op.bias))


def _zeros(emit: Emitter, like: SSAValue) -> SSAValue:
    """The sums of nothing: what a product is over a dimension without elements."""
    return emit(nn.BroadcastToOp(emit.constant(0.0, like), shape_of(like)))


def _matmul(emit: Emitter, op: nn.MatmulOp) -> SSAValue | None:
    """A stored matrix on the right is a linear layer on its transpose, where the store has that view."""
    if 0 in shape_of(op.b):
        return _zeros(emit, op.results[0])
    param = weight_param(op.b)
    if param is None or param.layer is not None or len(shape_of(op.b)) != 2 or emit.weights is None:
        return None
    view = f"{param.weight_name.data}^T"
    if view not in emit.weights:
        return None
    weight = emit(nn.ParamOp(view, TensorType(nn.tensor_of(op.b).element_type, shape_of(op.b)[::-1])))
    return emit(nn.LinearOp(op.a, weight))


def _embedding(emit: Emitter, op: nn.EmbeddingOp) -> SSAValue | None:
    """Rows of a computed table."""
    return None if weight_param(op.table) is not None else emit(nn.GatherOp(op.table, op.ids, 0))


def _attention_full(emit: Emitter, op: nn.AttentionFullOp) -> SSAValue | None:
    """A mask that says something is a number for each key, to be added."""
    if op.relative is not None:
        return None
    said = _said(emit, op.mask)
    if said is not op.mask:
        return emit(_with_mask(op, said))
    bias = _by_difference(emit, op)
    return _float_mask(emit, op) if bias is None else emit(_with_mask(op, bias, relative=True))


def _by_difference(emit: Emitter, op: nn.AttentionFullOp) -> SSAValue | None:
    """A mask that is a view of rows of a table, chosen by the difference of key and query (T5's bias), by difference:
    ``[1, H, 1, M + N - 1]``; None for any other.
    """
    queries, keys, heads = shape_of(op.q)[1], shape_of(op.k)[1], op.heads.value.data
    if op.mask is None or shape_of(op.mask) != (1, heads, queries, keys) or queries + keys < 3:
        return None
    source, steps = list(chain(op.mask))[-1]
    lookup = source.owner
    if not isinstance(lookup, nn.EmbeddingOp) or not isinstance(lookup.ids.owner, nn.ConstantOp):
        return None
    ids = np.asarray(lookup.ids.owner.value.get_values()).reshape(shape_of(lookup.ids))
    features = shape_of(lookup.table)[1]
    numbers = apply_steps(ids[..., None] * features + np.arange(features), steps)[0]
    apart = np.concatenate([numbers[:, :, 0][:, ::-1], numbers[:, 0, 1:]], axis=1)  # [H, M + N - 1]
    index = np.arange(keys)[None, :] - np.arange(queries)[:, None] + queries - 1
    heads_alike = np.array_equal(apart % features, np.broadcast_to(np.arange(heads)[:, None], apart.shape))
    if features != heads or not heads_alike or not np.array_equal(apart[:, index], numbers):
        return None
    rows = emit(nn.EmbeddingOp(lookup.table, emit.constant(apart[:1] // features, lookup.ids)))
    return emit.reshape(emit(nn.TransposeOp(rows, (0, 2, 1))), 1, heads, 1, apart.shape[1])


def _float_mask(emit: Emitter, op: nn.AttentionFullOp) -> SSAValue | None:
    """A mask of booleans, or of fewer numbers than keys, as one number for each key."""
    if op.mask is None:
        return None
    mask, keys = op.mask, shape_of(op.k)[1]
    if nn.tensor_of(mask).element_type == i1:
        visible, hidden = (emit.constant(np.float64(value), op.q) for value in (0.0, -np.inf))
        mask = emit(nn.SelectOp(mask, visible, hidden))
    if shape_of(mask)[-1:] != (keys,):
        mask = emit(nn.BroadcastToOp(mask, (*shape_of(mask)[:-1], keys)))
    if mask is op.mask:
        return None
    return emit(_with_mask(op, mask))


def _select(emit: Emitter, op: nn.SelectOp) -> SSAValue | None:
    """One of two by a constant that is the same everywhere."""
    owner = op.condition.owner
    if not isinstance(owner, nn.ConstantOp):
        return None
    values = np.asarray(owner.value.get_values()) != 0
    found = op.a if values.all() else op.b if not values.any() else None
    return found if found is not None and found.type == op.result.type else None


def _with_mask(op: nn.AttentionFullOp, mask: SSAValue | None, *, relative: bool = False) -> nn.AttentionFullOp:
    """The same attention with another mask."""
    sizes = {name: getattr(op, name).value.data for name in ("heads", "kv_heads", "head_dim", "scale")}
    return nn.AttentionFullOp(op.q, op.k, op.v, mask, **sizes, causal=bool(op.causal.value.data), relative=relative)


def _said(emit: Emitter, mask: SSAValue | None) -> SSAValue | None:
    """What a constant mask says: none if it hides nothing; one index of each dimension along which it repeats."""
    owner = None if mask is None else mask.owner
    if not isinstance(owner, nn.ConstantOp) or mask is None:
        return mask
    values = np.asarray(owner.value.get_values()).reshape(shape_of(mask))
    if np.all(values == (nn.tensor_of(mask).element_type == i1)):
        return None
    for axis in range(values.ndim - 1):
        first = values.take([0], axis)
        values = first if np.array_equal(np.broadcast_to(first, values.shape), values, equal_nan=True) else values
    if values.shape == shape_of(mask):
        return mask
    return emit.constant(values, mask)


def _identity(emit: Emitter, op: nn.ReshapeOp | nn.CastOp | nn.BroadcastToOp) -> SSAValue | None:
    """A view or conversion that changes nothing."""
    return op.x if op.x.type == op.result.type else None


def _cast(emit: Emitter, op: nn.CastOp) -> SSAValue | None:
    """A conversion to i1 is a comparison with zero."""
    if op.x.type != op.result.type and nn.tensor_of(op.result).element_type == i1:
        return emit(nn.CompareOp(op.x, emit.constant(np.float64(0.0), op.x), "ne"))
    return _identity(emit, op)


def _log(emit: Emitter, op: nn.LogOp) -> SSAValue | None:
    """``log(sum(exp(x)))`` as ``m + log(sum(exp(x - m)))`` with the largest element m: fp16 ends at exp(11.09).

    m is kept finite, so that infinite elements give what they gave.
    """
    total = op.x.owner
    if not isinstance(total, nn.ReduceSumOp) or not isinstance(total.x.owner, nn.ExpOp):
        return None
    x, axes = total.x.owner.x, values_of(total.axes)
    if isinstance(x.owner, nn.SubOp) or not axes or 0 in shape_of(x):  # shifted by something already, or a trivial sum
        return None
    low, high = emit.constant(-LARGEST_HALF, x), emit.constant(LARGEST_HALF, x)
    largest = emit(nn.MinimumOp(emit(nn.MaximumOp(emit(nn.ReduceMaxOp(x, axes, keepdims=True)), low)), high))
    shifted = emit(nn.ExpOp(emit(nn.SubOp(x, largest))))
    rest = emit(nn.LogOp(emit(nn.ReduceSumOp(shifted, axes, keepdims=bool(total.keepdims.value.data)))))
    return emit(nn.AddOp(rest, emit.reshape(largest, *shape_of(op.result))))


Rewrite = Callable[[Emitter, nn.NnOp], SSAValue | None]

#: What each operator becomes: a function that gives the value in its place, None to leave it.
REWRITES: Mapping[type[Operation], Rewrite] = MappingProxyType(
    {
        nn.LinearOp: cast(Rewrite, _linear),
        nn.MatmulOp: cast(Rewrite, _matmul),
        nn.EmbeddingOp: cast(Rewrite, _embedding),
        nn.AttentionFullOp: cast(Rewrite, _attention_full),
        nn.SelectOp: cast(Rewrite, _select),
        nn.ReshapeOp: cast(Rewrite, _identity),
        nn.BroadcastToOp: cast(Rewrite, _identity),
        nn.CastOp: cast(Rewrite, _cast),
        nn.LogOp: cast(Rewrite, _log),
    }
)
