"""Table rows by token or position: the owner reads the row from its channels and sends it to those that want it.

Where the tokens are cut over the cores, that is the core that has the token; else all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext, rows_of, shape_of, whole_shape_of
from pimc.backends.lower.index import Indices
from pimc.backends.lower.parts import Cut, Part, clear_padding, fresh_parts, own_indices, parts_of, set_parts
from pimc.backends.lower.values import Positions, Strip, Tensor
from pimc.backends.lower.views import View
from pimc.ir.layout import layout_of
from pimc.ir.pim.ops import EmbeddingOp, SelectTokenOp


def lower_embedding(ctx: LoweringContext, op: EmbeddingOp) -> None:
    """A replicated table is read at consecutive positions; a cut one by the owner of each token's row."""
    if op.replicated is not None:
        ctx.set(op.output, Tensor((_read_positions(ctx, op),)))
        return
    core, features = ctx.core, shape_of(op.output)[-1]
    table = ctx.weight(op.table)
    region = ctx.memory.rows(table.name)
    per_core = op.rows_per_core.value.data
    row_bytes = region.row_bytes.data
    (result,) = fresh_parts(ctx, op.output, "embedding", remote=True)
    staging = ctx.alloc("embedding.row", row_bytes, memory="temp")
    semaphore = ctx.semaphores.take()
    first = core.const([per_core * number for number in range(ctx.cores)])
    ids = whole_shape_of(op.ids)
    with ctx.each_row(prod(ids)) as row:
        row_number = _id(ctx, op.ids, row)
        if op.wrap is not None:
            from_end = core.and_(core.srai(row_number, imm=31), core.const(shape_of(op.table)[0]))
            row_number = core.add(row_number, from_end)
        local = core.sub(row_number, first)
        owned = core.sltu(local, core.const(per_core))
        with core.if_(owned, "ne", core.const(0)):
            source = core.add(core.const(region.region.base, table.name), core.mul(local, core.const(row_bytes)))
            core.hrd(core.address(staging.value), source, core.const(features * 2))
            _send_row(ctx, result, ids, row, core.address(staging.value), features * 2, semaphore)
    core.wait(core.const(held_rows(ctx, result, ids)), sem=semaphore)
    clear_padding(ctx, result, whole_shape_of(op.output))
    set_parts(ctx, op.output, [result])


def _id(ctx: LoweringContext, ids: SSAValue, row: SSAValue | None) -> SSAValue:
    """A register with id ``row`` (None: the only one): of integers in local memory, or of consecutive positions."""
    core, lowered = ctx.core, ctx.local(ids)
    if isinstance(lowered, Positions):
        number = core.lw(core.address(lowered.base.buffer.value), imm=0)
        if lowered.first:
            number = core.addi(number, imm=lowered.first)
        return number if row is None else core.add(number, row)
    place = core.address(ctx.integers(ids).buffer.value)
    return core.lw(place if row is None else core.add(place, core.slli(row, imm=2)), imm=0)


def _send_row(
    ctx: LoweringContext,
    to: Part,
    ids: Sequence[int],
    row: SSAValue | None,
    source: SSAValue,
    size: int,
    semaphore: int,
) -> None:
    """Send a row from ``source`` to its place: on all cores, or on the one that has it."""
    core, x = ctx.core, Indices(ctx.core)
    place = core.address(to.view.buffer.value, to.view.offset)
    if to.is_whole or row is None:
        if row is not None:
            place = core.add(place, core.mul(row, core.const(size)))
        group = {"group_base": core.const(0), "group_size": core.const(ctx.cores)}
        core.nmcast(place, source, core.const(size), sem=semaphore, **group)
        return
    dim, rows = to.cut.dim, to.cut.round.per_core
    inner = prod(ids[dim + 1 :])
    outer, index = (0, x.div(row, inner)) if prod(ids[:dim]) == 1 else x.split(x.div(row, inner), (1, ids[dim]))
    local = x.add(x.mul(x.add(x.mul(outer, rows), x.mod(index, rows)), inner), x.mod(row, inner))
    core.nsend(core.add(place, x.mul(local, size)), source, core.const(size), x.div(index, rows), sem=semaphore)


def held_rows(ctx: LoweringContext, part: Part, ids: Sequence[int]) -> list[int]:
    """How many rows of those of ``ids`` each core has."""
    if part.is_whole:
        return [prod(ids)] * ctx.cores
    dim = part.cut.dim
    return [count * (prod(ids) // ids[dim]) for count in part.cut.own(ids[dim], ctx.cores)[1]]


def lower_row_of_a_core(ctx: LoweringContext, op: SelectTokenOp) -> None:
    """The core that has row ``length - 1`` sends it to all, of every sequence."""
    core = ctx.core
    (source,) = parts_of(ctx, op.x)
    sequences, _, features = shape_of(op.x)
    result = ctx.strip("last", sequences, features, remote=True)
    semaphore = ctx.semaphores.take()
    row, rows = core.addi(ctx.scalar(op.length), imm=-1), core.const(source.cut.round.per_core)
    with core.if_(core.divu(row, rows), "eq", core.cid()):
        skipped = core.mul(core.remu(row, rows), core.const(source.view.strides[-2]))
        at = core.add(core.address(source.view.buffer.value, source.view.offset), skipped)
        group = {"group_base": core.const(0), "group_size": core.const(ctx.cores)}
        to, size = ctx.address(result), core.const(result.width * 2)
        if sequences == 1:
            core.nmcast(to, at, size, sem=semaphore, **group)
        else:
            core.nmcast2(
                to, at, size, sem=semaphore, **group, message_rows=core.const(sequences),
                message_src_stride=core.const(source.view.strides[0]), message_dst_stride=core.const(result.pitch),
            )  # fmt: skip
    core.wait(core.const(1), sem=semaphore)
    ctx.set(op.output, Tensor((result,)))


def _read_positions(ctx: LoweringContext, op: EmbeddingOp) -> Strip:
    """Rows of consecutive positions are consecutive bytes of the region: one transfer, of a core's rows."""
    core = ctx.core
    rows, features = rows_of(op.output), shape_of(op.output)[-1]
    positions = ctx.positions(op.ids)
    name = ctx.weight(op.table).name
    region = ctx.memory.replicated(name)
    row_bytes = region.row_bytes.data
    strip = Strip(ctx.alloc("rows", rows * row_bytes), rows, features, row_bytes)
    first = core.lw(core.address(positions.base.buffer.value), imm=0)
    if positions.first:
        first = core.addi(first, imm=positions.first)
    part = Part(View(strip.buffer, (rows, features), (row_bytes, 2), strip.offset))
    layout, tokens = layout_of(op.output.type), prod(whole_shape_of(op.ids))
    held = [rows] * ctx.cores
    if layout is not None:
        ((_, shard),) = layout.cuts.items()
        starts, held = own_indices(shard, 0, tokens, ctx.cores)
        first = core.add(first, core.const(starts))
        part = replace(part, cuts=(Cut(0, shard),))
    source = core.add(core.const(region.region.base, name), core.mul(first, core.const(row_bytes)))
    size = [(count - 1) * row_bytes + features * 2 if count else 0 for count in held]
    core.hrd(core.address(strip.buffer.value), source, core.const(size))
    clear_padding(ctx, part, (tokens, features))
    return strip
