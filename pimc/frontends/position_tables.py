"""Functions of the position alone become tables, in `nn` functions of any origin.

An ONNX decoder computes the rotary embedding's cosines and sines, or looks up a learned position embedding, from the
numbers of the tokens' positions.  The values depend on nothing else, so they are computed here for every position of
the cache and stored as weights; the function then looks up rows.  Cosines and the sines that belong to them share a
table ``rope_table`` ``[S, 2D]`` (cosines, then sines), as :mod:`pimc.frontends.tabulate` makes them for PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, TensorType, f32, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from pimc.diagnostics import InputError
from pimc.frontends.weights import ModelWeights
from pimc.ir import nn
from pimc.ir.interpreter import Interpreter
from pimc.ir.locations import set_location, where, with_location

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Column:
    """A value to tabulate: columns ``start`` to ``stop`` of weight ``table``, which has ``width``."""

    value: SSAValue
    table: str
    width: int
    start: int
    stop: int


def tabulate(function: FuncOp, position: SSAValue, weights: ModelWeights, slots: int) -> None:
    """Replace what depends on ``position`` (an argument, ``tensor<1xi32>``) alone by rows of tables.

    ``slots``: positions of the cache.  Tables that ``weights`` has already (from another entry) are used as they
    are.  InputError where such a value is not one row a token.
    """
    columns = _columns(_roots(function, position))
    missing = [column for column in columns if column.table not in weights]
    for name, table in _evaluate(function, position, missing, weights, slots).items():
        weights.add(name, table)
    for column in columns:
        _look_up(column, position, slots)


def _roots(function: FuncOp, position: SSAValue) -> list[SSAValue]:
    """Float values that depend on the position alone, and that something else uses."""
    fixed: set[SSAValue] = set()
    of_position: set[SSAValue] = {position}
    for op in function.body.block.ops:
        operands = set(op.operands)
        if isinstance(op, ReturnOp | nn.CacheReadOp | nn.CacheWriteOp):
            continue
        if operands <= fixed:
            fixed.update(op.results)
        elif operands <= fixed | of_position:
            of_position.update(op.results)
    roots: list[SSAValue] = []
    for value in of_position - {position}:
        outside = any(not set(use.operation.results) & of_position for use in value.uses)
        if outside and nn.tensor_of(value).element_type == f32:
            roots.append(value)
    order = {op: index for index, op in enumerate(function.body.block.ops)}
    return sorted(roots, key=lambda value: order[_owner(value)])


def _columns(roots: list[SSAValue]) -> list[_Column]:
    """Cosines paired with the sines that follow (or precede) them; anything else has a table of its own."""
    waves = {value: kind for value in roots if (kind := _wave(value)) is not None}
    columns: list[_Column] = []
    for number, value in enumerate(value for value in roots if value not in waves):
        width = nn.tensor_of(value).get_shape()[-1]
        columns.append(_Column(value, f"position_table_{number}" if number else "position_table", width, 0, width))
    cosines = [value for value, kind in waves.items() if kind is nn.CosOp]
    sines = [value for value, kind in waves.items() if kind is nn.SinOp]
    if len(cosines) != len(sines):
        owner = _owner(next(iter(waves)))
        raise InputError("cosines and sines of the positions do not come in pairs", where=where(owner))
    for number, (cosine, sine) in enumerate(zip(cosines, sines, strict=True)):
        sizes = [nn.tensor_of(value).get_shape()[-1] for value in (cosine, sine)]
        name = f"rope_table_{number}" if number else "rope_table"
        columns.append(_Column(cosine, name, sum(sizes), 0, sizes[0]))
        columns.append(_Column(sine, name, sum(sizes), sizes[0], sum(sizes)))
    return columns


def _wave(value: SSAValue) -> type[Operation] | None:
    """Whether a value is made of cosines or of sines; None for neither."""
    pending, kinds = [value], set[type[Operation]]()
    while pending:
        owner = pending.pop().owner
        if isinstance(owner, nn.CosOp | nn.SinOp):
            kinds.add(type(owner))
        elif isinstance(owner, Operation):
            pending.extend(owner.operands)
    return kinds.pop() if len(kinds) == 1 else None


def _evaluate(
    function: FuncOp, position: SSAValue, columns: list[_Column], weights: ModelWeights, slots: int
) -> dict[str, Rows]:
    """The tables of ``columns``, from runs of the part of ``function`` that computes them."""
    if not columns:
        return {}
    interpreter = Interpreter(_slice(function, position, [column.value for column in columns]), weights, "f32")
    tables = {column.table: np.zeros((slots, column.width), np.float32) for column in columns}
    count = prod(nn.tensor_of(columns[0].value).get_shape()[:-1])

    def rows(start: int) -> list[Rows]:
        values = interpreter.call("rows", {"position": np.array([start], np.int32)}).values()
        return [value.reshape(-1, value.shape[-1]) for value in values]

    for start in range(0, slots, count):
        for column, value in zip(columns, rows(start), strict=True):
            if len(value) != count:
                raise _not_a_row(column)
            tables[column.table][start : start + count, column.start : column.stop] = value[: slots - start]
    for column, value in zip(columns, rows(1), strict=True):
        known = tables[column.table][1 : 1 + count, column.start : column.stop]
        if not np.allclose(value[: len(known)], known, atol=1e-6):
            raise _not_a_row(column)
    return tables


def _not_a_row(column: _Column) -> InputError:
    return InputError(
        "a value depends on more than each token's own position",
        where=where(_owner(column.value)),
        hint="only tables with one row a position are supported",
    )


def _slice(function: FuncOp, position: SSAValue, values: list[SSAValue]) -> ModuleOp:
    """A module with the function ``rows(position) -> values``: the operations that ``values`` need."""
    needed: set[Operation] = set()
    pending = list(values)
    while pending:
        owner = pending.pop().owner
        if isinstance(owner, Operation) and owner not in needed:
            needed.add(owner)
            pending.extend(owner.operands)
    block = Block(arg_types=[position.type])
    mapping: dict[SSAValue, SSAValue] = {position: block.args[0]}
    for op in function.body.block.ops:
        if op in needed:
            block.add_op(with_location(op.clone(value_mapper=mapping), op))
    results = [mapping[value] for value in values]
    block.add_op(set_location(ReturnOp(*results), function.location))
    types = FunctionType.from_lists([position.type], [value.type for value in results])
    names = ArrayAttr([DictionaryAttr({"pimc.name": StringAttr("position")})])
    rows = FuncOp("rows", types, Region(block), arg_attrs=names)
    return ModuleOp([set_location(rows, function.location)])


def _look_up(column: _Column, position: SSAValue, slots: int) -> None:
    """Rows of the table in the place of the value; looked up before the first layer, as all layers share them."""
    shape = nn.tensor_of(column.value).get_shape()
    count = prod(shape[:-1])
    owner = _owner(column.value)
    block = owner.parent_block()
    assert block is not None
    iota = nn.IotaOp(TensorType(i32, (count,)))
    total = nn.AddOp(position, iota)
    positions = nn.ReshapeOp(total, (1, count))
    table = nn.ParamOp(column.table, TensorType(f32, (slots, column.width)))
    found = nn.EmbeddingOp(table, positions)
    part = nn.SliceOp(found, (0, 0, column.start), (1, count, column.stop))
    shaped = nn.ReshapeOp(part, shape)
    first = block.first_op
    assert first is not None
    block.insert_ops_before(
        [with_location(op, owner) for op in (iota, total, positions, table, found, part, shaped)], first
    )
    column.value.replace_all_uses_with(shaped.result)


def _owner(value: SSAValue) -> Operation:
    owner = value.owner
    assert isinstance(owner, Operation), "arguments are not tabulated"
    return owner


__all__ = ["tabulate"]
