"""Table rows by token or position: the owner reads the row from its channels and multicasts it."""

from __future__ import annotations

from pimc.backends.lower.context import LoweringContext, rows_of, shape_of
from pimc.backends.lower.values import Strip, Tensor
from pimc.ir.pim.ops import EmbeddingOp


def lower_embedding(ctx: LoweringContext, op: EmbeddingOp) -> None:
    """A replicated table is read at consecutive positions; a cut one by the owner of each token's row."""
    rows, features = rows_of(op.output), shape_of(op.output)[-1]
    if op.replicated is not None:
        ctx.set(op.output, Tensor((_read_positions(ctx, op, rows, features),)))
        return
    core = ctx.core
    table = ctx.weight(op.table)
    region = ctx.memory.rows(table.name)
    tokens = ctx.integers(op.ids)
    per_core = op.rows_per_core.value.data
    row_bytes = region.row_bytes.data
    whole = ctx.strip("embedding", rows, features, remote=True)
    staging = ctx.alloc("embedding.row", row_bytes, memory="temp")
    semaphore = ctx.semaphores.take()
    first = core.const([per_core * number for number in range(ctx.cores)])
    group = {"group_base": core.const(0), "group_size": core.const(ctx.cores)}
    with ctx.each_row(rows) as row:
        place = core.address(tokens.buffer.value)
        if row is not None:
            place = core.add(place, core.slli(row, imm=2))
        row_number = core.lw(place, imm=0)
        if op.wrap is not None:
            from_end = core.and_(core.srai(row_number, imm=31), core.const(shape_of(op.table)[0]))
            row_number = core.add(row_number, from_end)
        local = core.sub(row_number, first)
        owned = core.sltu(local, core.const(per_core))
        with core.if_(owned, "ne", core.const(0)):
            source = core.add(core.const(region.region.base, table.name), core.mul(local, core.const(row_bytes)))
            core.hrd(core.address(staging.value), source, core.const(features * 2))
            core.nmcast(
                ctx.address(whole, row),
                core.address(staging.value),
                core.const(features * 2),
                sem=semaphore,
                **group,
            )
    core.wait(core.const(0), sem=semaphore, imm=rows)
    ctx.set(op.output, Tensor((whole,)))


def _read_positions(ctx: LoweringContext, op: EmbeddingOp, rows: int, features: int) -> Strip:
    """Rows of consecutive positions are consecutive bytes of the region: one transfer."""
    core = ctx.core
    positions = ctx.positions(op.ids)
    name = ctx.weight(op.table).name
    region = ctx.memory.replicated(name)
    row_bytes = region.row_bytes.data
    strip = Strip(ctx.alloc("rows", rows * row_bytes), rows, features, row_bytes)
    first = core.lw(core.address(positions.base.buffer.value), imm=0)
    if positions.first:
        first = core.addi(first, imm=positions.first)
    source = core.add(core.const(region.region.base, name), core.mul(first, core.const(row_bytes)))
    core.hrd(core.address(strip.buffer.value), source, core.const((rows - 1) * row_bytes + features * 2))
    return strip
