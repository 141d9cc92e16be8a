"""Which values the integer inputs of an entry may have, as far as its operations say.

An input that indexes a table, a cache or a dimension must stay inside it.  The range is derived from the operations
that take the input's elements, followed through what only moves them (reshapes, casts, calls ...); an index that the
program computes, or takes from a part of an input, is the program's own business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerType, SymbolRefAttr, TensorType
from xdsl.ir import Operation, SSAValue, Use

from pimc.ir import nn, pim
from pimc.ir.nn.base import shape_of

#: The least and the greatest value.
Range: TypeAlias = tuple[int, int]
#: Operations whose result has exactly the elements of each operand, in another order or form.
_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.BroadcastToOp, nn.ConcatOp)


def input_ranges(function: func.FuncOp, functions: Mapping[str, func.FuncOp]) -> list[Range | None]:
    """The range of each argument of ``function``; None where nothing bounds it.

    ``functions`` are those that may be called, by name.
    """
    return [_range_of(argument, functions) for argument in function.body.block.args]


def _range_of(value: SSAValue, functions: Mapping[str, func.FuncOp]) -> Range | None:
    type_ = value.type
    if not isinstance(type_, TensorType) or not _is_integer(type_) or 0 in type_.get_shape():
        return None
    bounds = [bound for use in value.uses for bound in _bounds(use, functions)]
    if not bounds:
        return None
    low, high = max(low for low, _ in bounds), min(high for _, high in bounds)
    return (low, high) if low <= high else None


def _is_integer(type_: TensorType) -> bool:
    element = type_.element_type
    return isinstance(element, IntegerType) and element.width.data > 1


def _bounds(use: Use, functions: Mapping[str, func.FuncOp]) -> Iterator[Range]:
    """What one use of a value asks of its elements."""
    op = use.operation
    passed = _passed_to(use, functions)
    if passed is not None:
        found = _range_of(passed, functions)
        if found is not None:
            yield found
        return
    if isinstance(op, nn.PositionsOp):
        found = _range_of(op.result, functions)
        if found is not None:
            yield found[0], found[1] - (op.count.value.data - 1)
        return
    yield from _index_bounds(op, use.index)


def _passed_to(use: Use, functions: Mapping[str, func.FuncOp]) -> SSAValue | None:
    """The value that has the elements of the used one, unchanged; None where the use does more than moving them."""
    op = use.operation
    if isinstance(op, _MOVES):
        return op.results[0]
    if isinstance(op, nn.CastOp):
        type_ = op.results[0].type
        return op.results[0] if isinstance(type_, TensorType) and _is_integer(type_) else None
    if isinstance(op, func.CallOp):
        callee = functions.get(op.callee.string_value())
        return callee.body.block.args[use.index] if callee is not None and callee.body.blocks else None
    return None


def _index_bounds(op: Operation, operand: int) -> Iterator[Range]:
    """The range of the elements of operand number ``operand``, if they are indices."""
    value = op.operands[operand]
    match op:
        case nn.EmbeddingOp() | pim.EmbeddingOp() if value is op.ids:
            rows = shape_of(op.table)[0]
            wraps = isinstance(op, pim.EmbeddingOp) and op.wrap is not None
            yield (-rows if wraps else 0), rows - 1
        case nn.GatherOp() | nn.GatherElementsOp() | nn.ScatterElementsOp() if value is op.indices:
            size = shape_of(op.x)[op.axis.value.data]
            yield -size, size - 1
        case nn.GatherNdOp() | nn.ScatterNdOp() if value is op.indices:
            first = op.batch_dims.value.data if isinstance(op, nn.GatherNdOp) else 0
            # The numbers of a tuple index dimensions of different sizes: what the greatest one allows.
            size = max(shape_of(op.x)[first : first + shape_of(op.indices)[-1]])
            yield -size, size - 1
        case nn.SelectTokenOp() | pim.SelectTokenOp() if value is op.length:
            yield 1, shape_of(op.x)[1]
        case nn.CacheWriteOp() if value is op.position:
            yield from _slots(op, op.cache, shape_of(op.x)[1])
        case pim.KvAppendOp() if value is op.position:
            yield from _slots(op, op.k, shape_of(op.keys)[1])
        case nn.AttentionOp() | pim.AttentionOp() if value is op.position:
            yield from _slots(op, op.k, shape_of(op.q)[1])
        case _:
            return


def _slots(op: Operation, cache: SymbolRefAttr, tokens: int) -> Iterator[Range]:
    """Positions from which ``tokens`` tokens fit a cache."""
    type_ = nn.cache_type(op, cache)
    if type_ is not None:
        yield 0, type_.get_shape()[1] - tokens
