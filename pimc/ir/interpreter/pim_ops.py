"""Reference meaning of the `pim` operations: core by core as they are partitioned, through the bank layout.

The arithmetic is in :mod:`pimc.ir.pim.reference`.  What no core holds of a cut value is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import SSAValue

from pimc.diagnostics import InputError
from pimc.ir import nn, pim
from pimc.ir.interpreter.core import Frame, held_dtype
from pimc.ir.interpreter.cut_ops import slices, unowned
from pimc.ir.interpreter.nn_conv import convolve
from pimc.ir.interpreter.nn_ops import by_difference, full_attention
from pimc.ir.interpreter.table import Array, ImplementationTable, Value
from pimc.ir.locations import where
from pimc.ir.pim import reference

TABLE = ImplementationTable()


def _matrix(frame: Frame, op: pim.MatrixOp, args: Sequence[Any]) -> Sequence[Value]:
    count = len(op.weights)
    x, weights = args[0], args[1 : 1 + count]
    given = dict(zip(op.biases, args[1 + count :], strict=True))
    owners = [op.bias(index) for index in range(count)]
    biases = [None if owner is None else given[owner] for owner in owners]
    shards = [shard for output in op.outputs if (shard := pim.shard_of(output.type)) is not None]
    layout = None if op.layout is None else op.layout.layout
    return reference.matrix(_owned(x, op.x), weights, biases, shards, layout)


@TABLE.register(pim.GemvOp)
def _gemv(frame: Frame, op: pim.GemvOp, args: Sequence[Any]) -> Sequence[Value]:
    return _matrix(frame, op, args)


@TABLE.register(pim.GemmOp)
def _gemm(frame: Frame, op: pim.GemmOp, args: Sequence[Any]) -> Sequence[Value]:
    return _matrix(frame, op, args)


def _change(frame: Frame, op: pim.LayoutChangeOp, args: Sequence[Any]) -> Sequence[Value]:
    return (_owned(_owned(args[0], op.input), op.output),)


@TABLE.register(pim.EmptyOp, exact=True)
def _empty(frame: Frame, op: pim.EmptyOp, args: Sequence[Any]) -> Sequence[Value]:
    type_ = op.output.type
    return (unowned(type_.get_shape(), held_dtype(type_.element_type)),)


@TABLE.register(pim.ReadOp, exact=True)
def _read(frame: Frame, op: pim.ReadOp, args: Sequence[Any]) -> Sequence[Value]:
    whole, index = args
    taken = _block_rows(op, int(index), op.output)
    dim, size = op.dim.value.data, whole.shape[op.dim.value.data]
    tile = np.take(_owned(whole, op.input), np.minimum(taken, size - 1), axis=dim)
    tile[(slice(None),) * dim + (taken >= size,)] = 0  # the padding behind the last row of a cut
    return (_owned(tile, op.output),)


@TABLE.register(pim.WriteOp, exact=True)
def _write(frame: Frame, op: pim.WriteOp, args: Sequence[Any]) -> Sequence[Value]:
    tile, whole, index = args
    taken, dim = _block_rows(op, int(index), op.tile), op.dim.value.data
    inside, before = taken < whole.shape[dim], (slice(None),) * dim
    result = whole.copy()
    result[(*before, taken[inside])] = _owned(tile, op.tile)[(*before, inside)]
    return (_owned(result, op.output),)


def _block_rows(op: pim.ReadOp | pim.WriteOp, index: int, tile: SSAValue) -> NDArray[np.int64]:
    """The rows of a block, in the order of the tile."""
    groups, per_group = op.groups
    block = nn.tensor_of(tile).get_shape()[op.dim.value.data] // groups
    first = min(index, per_group - block)
    return (np.arange(groups)[:, None] * per_group + first + np.arange(block)).reshape(-1)


for _op_type in (pim.AllGatherOp, pim.AllToAllOp, pim.TakeOp, pim.SpillOp, pim.FillOp):
    TABLE.register(_op_type, exact=True)(_change)


@TABLE.register(pim.EmbeddingOp, exact=True)
def _embedding(frame: Frame, op: pim.EmbeddingOp, args: Sequence[Any]) -> Sequence[Value]:
    table, ids = args
    if op.wrap is not None:
        ids = np.where(ids < 0, ids + table.shape[0], ids)
    bad = ids[(ids < 0) | (ids >= table.shape[0])]
    if bad.size:
        raise InputError(f"{op.name}: id {int(bad.flat[0])} is out of range [0, {table.shape[0]})", where=where(op))
    return (_owned(table[ids], op.output),)


@TABLE.register(pim.SelectTokenOp, exact=True)
def _select_token(frame: Frame, op: pim.SelectTokenOp, args: Sequence[Any]) -> Sequence[Value]:
    x, length = args
    row = int(length[0]) - 1
    if not 0 <= row < x.shape[1]:
        raise InputError(f"{op.name}: row {row} is out of range [0, {x.shape[1]})", where=where(op))
    return (_owned(x, op.x)[:, row : row + 1],)


@TABLE.register(pim.KvAppendOp)
def _kv_append(frame: Frame, op: pim.KvAppendOp, args: Sequence[Any]) -> Sequence[Value]:
    keys, values, layer, position = args
    start = int(position[0])
    for symbol, new in ((op.k, keys), (op.v, values)):
        cache = frame.interpreter.state[symbol.root_reference.data]
        stop = start + new.shape[1]
        if not 0 <= start <= stop <= cache.shape[1]:
            raise InputError(
                f"{op.name}: positions {start} to {stop} are out of range [0, {cache.shape[1]})",
                where=where(op),
            )
        cache[layer, start:stop] = new[0].reshape(-1, *cache.shape[2:])
    return ()


@TABLE.register(pim.AttentionOp)
def _attention(frame: Frame, op: pim.AttentionOp, args: Sequence[Any]) -> Sequence[Value]:
    q, layer, position, *bias = args
    state = frame.interpreter.state
    keys, values = (state[symbol.root_reference.data][layer] for symbol in (op.k, op.v))
    shard = pim.shard_of(op.output.type)
    if shard is None:
        raise InputError("the result of pim.attention must be cut", where=where(op))
    result = reference.attention(
        q,
        keys,
        values,
        int(position[0]),
        op.scale.value.data,
        bool(op.causal.value.data),
        op.rounds.head_rounds,
        shard,
        None if op.slopes is None else op.slopes.get_values(),
        None if op.window is None else op.window.value.data,
        None if op.softcap is None else op.softcap.value.data,
        bias[0] if bias else None,
    )
    return (result,)


@TABLE.register(pim.AttentionFullOp)
def _attention_full(frame: Frame, op: pim.AttentionFullOp, args: Sequence[Any]) -> Sequence[Value]:
    owned = [_owned(array, value) for array, value in zip(args[:3], (op.q, op.k, op.v), strict=True)]
    sizes = (op.heads.value.data, op.kv_heads.value.data, op.head_dim.value.data)
    masks = args[3:] if op.relative is None else [by_difference(args[3], owned[0].shape[1], owned[1].shape[1])]
    whole = full_attention((*owned, *masks), sizes, op.scale.value.data, causal=bool(op.causal.value.data))
    return (_owned(whole, op.output),)


@TABLE.register(pim.ConvOp)
def _conv(frame: Frame, op: pim.ConvOp, args: Sequence[Any]) -> Sequence[Value]:
    x, weight, *bias = args
    layout, space, sizes = pim.layout_of(op.output.type), op.space(), x.shape[2:]
    assert layout is not None  # the verifier's
    result = unowned(op.output.type.get_shape(), x.dtype)
    boxes = [box for core in range(layout.cores) for box in layout.boxes(core, result.shape)]
    for images, *positions in dict.fromkeys((box[0], *box[2:]) for box in boxes):
        part = space.reads(0, {"b": images, **{f"y{dim}": own for dim, own in enumerate(positions)}})
        window = op.window.on_parts(sizes, weight.shape[2:], positions)
        own = x[slices((images, *part[1:]))]
        result[slices((images, range(len(weight)), *positions))] = convolve(
            own, weight, bias[0] if bias else None, window, op.groups.value.data
        )
    return (_owned(result, op.output),)


def _owned(array: Array, value: SSAValue) -> Array:
    """The parts of a cut value that some core holds, NaN (of integers the least) elsewhere; a whole value as it is."""
    layout = pim.layout_of(value.type)
    if layout is None:
        return array
    found = unowned(array.shape, array.dtype)
    for core in range(layout.cores):
        for box in layout.boxes(core, array.shape):
            place = slices(box)
            found[place] = array[place]
    return found


@TABLE.register(pim.AsyncOp, exact=True)
def _async(frame: Frame, op: pim.AsyncOp, args: Sequence[Any]) -> Sequence[Value]:
    return (0, *frame.run_region(op.body, ()))


@TABLE.register(pim.AwaitOp, exact=True)
def _await(frame: Frame, op: pim.AwaitOp, args: Sequence[Any]) -> Sequence[Value]:
    return ()
