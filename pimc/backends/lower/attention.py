"""Attention over the cached slots, head-wise on groups of cores with intra-head parallelism over positions.

Each round gives every core one KV head and the slots ``p % n == rank`` of it (``n`` cores a head).
A core computes scores, a local softmax and a locally normalised output for the query heads of its KV head; the group
exchanges maxima and sums (the paper's All-Gather of the softmax, Fig. 9), scales the outputs, and adds them in slices.
Decode runs on the PIM unit (K and transposed V written into the array), prefill on the tensor unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects.builtin import SymbolRefAttr
from xdsl.ir import SSAValue

from pimc.backends.lower.alibi import Alibi
from pimc.backends.lower.attention_exchange import send_slices, send_statistics, sum_slices
from pimc.backends.lower.context import F32_BYTES, LoweringContext
from pimc.backends.lower.heads import HeadGroup, Partial, Shape, groups_of
from pimc.backends.lower.values import Buffer, Strip, Tensor
from pimc.ir.pim.ops import AttentionOp, KvAppendOp


def slot_address(ctx: LoweringContext, cache: SymbolRefAttr, group: HeadGroup, layer: SSAValue) -> SSAValue:
    """A register with the HBM address of the first slot of a layer in a round of a cache."""
    name = cache.string_value()
    region = ctx.memory.cache(name, group.index)
    core = ctx.core
    base = core.const(region.region.base, f"{name}.{group.index}")
    stride = core.const(region.region.layer_stride, f"{name}.{group.index}.layer")
    return core.add(base, core.mul(layer, stride))


def lower_kv_append(ctx: LoweringContext, op: KvAppendOp) -> None:
    """The core that owns a position writes the token's key and value rows to their slot."""
    core = ctx.core
    keys, values = ctx.tensor(op.keys).whole, ctx.tensor(op.values).whole
    layer = ctx.scalar(op.layer)
    head_bytes = keys.width * 2 // sum(round_.heads for round_ in op.rounds.head_rounds)
    for group in groups_of(ctx, op.rounds):
        slot_bytes = _slot_bytes(ctx, op.k, group)
        with ctx.each_row(keys.rows) as row:
            position = ctx.scalar(op.position)
            if row is not None:
                position = core.add(position, row)
            owner = core.andi(position, imm=group.cores - 1)
            with core.if_(owner, "eq", core.const(group.rank)):
                slot = core.mul(core.srli(position, imm=group.shift), core.const(slot_bytes))
                for source, cache in ((keys, op.k), (values, op.v)):
                    to = core.add(slot_address(ctx, cache, group, layer), slot)
                    head = core.add(ctx.address(source, row), core.const([h * head_bytes for h in group.heads]))
                    if head_bytes < slot_bytes:
                        head = _filled(ctx, head, head_bytes, slot_bytes)
                    core.hwr(head, to, core.const(slot_bytes))


def _slot_bytes(ctx: LoweringContext, cache: SymbolRefAttr, group: HeadGroup) -> int:
    """Bytes of a slot: a head's features, up to whole columns."""
    return ctx.memory.cache(cache.string_value(), group.index).row_bytes.data


def _filled(ctx: LoweringContext, head: SSAValue, head_bytes: int, slot_bytes: int) -> SSAValue:
    """The address of a copy of a head's features with zeros behind them, a slot in all."""
    core = ctx.core
    slot = ctx.alloc("kv_append.slot", slot_bytes)
    at, tail = core.address(slot.value), core.address(slot.value, head_bytes)
    core.vmov_h(at, head, core.const(head_bytes // 2))
    core.vfill_h(tail, tail, ctx.f32(0.0), core.const((slot_bytes - head_bytes) // 2))
    return at


def lower_attention(ctx: LoweringContext, op: AttentionOp) -> None:
    """Partial attention of every round, then the exchange."""
    q = ctx.tensor(op.q).whole
    groups = groups_of(ctx, op.rounds)
    for group in groups:
        if group.cores & (group.cores - 1):  # slots are dealt out by shifts and masks
            raise ctx.unsupported(f"round {group.index}: a group has a power of two of cores, not {group.cores}")
    shape = Shape(op.heads.value.data // op.kv_heads.value.data, op.head_dim.value.data, q.rows)
    core = ctx.core
    scaled = ctx.strip("attention.query", q.rows, q.width)
    core.vmuls_h(ctx.address(scaled), ctx.address(q), ctx.f32(op.scale.value.data), core.const(q.elements))
    run = _decode_partial if q.rows == 1 else _prefill_partial
    partials = [run(ctx, op, group, scaled, shape) for group in groups]
    exchanged = [send_statistics(ctx, partial, shape) if partial.group.cores > 1 else None for partial in partials]
    sent = [
        send_slices(ctx, partial, statistics, shape) if statistics is not None else None
        for partial, statistics in zip(partials, exchanged, strict=True)
    ]
    strips: list[Strip] = []
    for partial, slices in zip(partials, sent, strict=True):
        strip = sum_slices(ctx, partial, slices, shape) if slices is not None else partial.out
        strips.extend([strip] * partial.group.cuts(shape))
    ctx.set(op.output, Tensor(tuple(strips)))


def _outputs(ctx: LoweringContext, group: HeadGroup, shape: Shape) -> Strip:
    """A strip for the outputs of a KV head's queries, zeros behind them up to whole slices of the group's cores."""
    core = ctx.core
    out = ctx.strip("attention.out", shape.rows, group.slice(shape) * group.cores)
    rest = out.width - shape.width
    if rest:
        with ctx.each_row(shape.rows) as row:
            tail = core.add(ctx.address(out, row), core.const(shape.width * 2))
            core.vfill_h(tail, tail, ctx.f32(0.0), core.const(rest))
    return out


def _visible(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, last: int) -> SSAValue:
    """Local slots that hold positions up to ``position + last``: ((position + last - rank) >> shift) + 1."""
    core = ctx.core
    position = ctx.scalar(op.position)
    if last:
        position = core.addi(position, imm=last)
    ahead = core.sub(position, core.const(group.rank))
    return core.addi(core.srai(ahead, imm=group.shift), imm=1)


def _head_address(ctx: LoweringContext, strip: Strip, group: HeadGroup, shape: Shape, head: int) -> SSAValue:
    """Address of query head ``head`` of the core's KV head in the first row of a replicated query."""
    offsets = [strip.offset + (kv * shape.width + head * shape.dim) * 2 for kv in group.heads]
    return ctx.core.address(strip.buffer.value, offsets)


# -- decode: one query on the PIM unit --------------------------------------------------------------------------------


def _decode_partial(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, q: Strip, shape: Shape) -> Partial:
    core = ctx.core
    lanes, slots = ctx.target.pim_unit.lanes, ctx.memory.cache(op.k.string_value(), group.index).rows.data
    blocks, parts = -(-slots // lanes), -(-shape.dim // lanes)
    if slots * parts + blocks * shape.dim > ctx.target.pim_unit.rows:
        raise ctx.unsupported(
            f"{slots} slots a core do not fit the {ctx.target.pim_unit.rows} rows of the PIM unit; reduce max_seq"
        )
    visible = _visible(ctx, op, group, 0)
    starts = _array_rows(ctx, group, slots, parts)
    _load_array(ctx, op, group, visible, shape, min(slots, lanes), starts)
    out = _outputs(ctx, group, shape)
    maxima = ctx.alloc("attention.max", shape.share * F32_BYTES)
    sums = ctx.alloc("attention.sum", shape.share * F32_BYTES)
    alibi = Alibi.of(ctx, op, group, visible)
    for head in range(shape.share):
        scores = ctx.alloc("attention.scores", slots * 2)
        at = core.address(scores.value)
        top, total = (core.address(b.value, head * F32_BYTES) for b in (maxima, sums))
        _decode_scores(ctx, at, _head_address(ctx, q, group, shape, head), visible, shape, starts)
        if alibi is not None:
            alibi.add(ctx, head, at, ctx.scalar(op.position), visible)
        _softmax_row(ctx, at, top, total, visible)
        _weigh_values(ctx, at, core.address(out.buffer.value, head * shape.dim * 2), visible, shape, starts[-1])
    return Partial(group, out, maxima, sums)


def _array_rows(ctx: LoweringContext, group: HeadGroup, slots: int, parts: int) -> list[SSAValue]:
    """The array rows where each part of the keys (as many features as there are lanes) and the values begin."""
    core = ctx.core
    starts = [core.const(0), core.const(slots, group.slots)]
    while len(starts) <= parts:
        starts.append(core.add(starts[-1], starts[1]))
    return starts


def _decode_scores(
    ctx: LoweringContext, to: SSAValue, query: SSAValue, visible: SSAValue, shape: Shape, starts: list[SSAValue]
) -> None:
    """to[slot] = query . k[slot], part by part in the accumulators."""
    core, lanes = ctx.core, ctx.target.pim_unit.lanes
    for part, (at, start) in enumerate(zip(range(0, shape.dim, lanes), starts, strict=False)):
        last = at + lanes >= shape.dim
        name = f"pimmv_{'a' if part else 'c'}{'w' if last else ''}"
        x = core.add(query, core.const(at * 2)) if part else query
        core.emit(name, to, x, start, visible, depth=core.const(min(lanes, shape.dim - at)))


def _softmax_row(ctx: LoweringContext, at: SSAValue, top: SSAValue, total: SSAValue, count: SSAValue) -> None:
    """exp(x - max) / sum in place; the maximum and the sum (f32) are kept.  Nothing to do for no elements."""
    core = ctx.core
    core.vrmax_h(top, at, count)
    core.vexps_h(at, at, top, count)
    core.vrsum_h(total, at, count)
    core.vdivs_h(at, at, total, count)


def _load_array(
    ctx: LoweringContext,
    op: AttentionOp,
    group: HeadGroup,
    visible: SSAValue,
    shape: Shape,
    room: int,
    starts: list[SSAValue],
) -> None:
    """K into array rows, a slot a row in each part; V transposed behind, ``dim`` rows a block of ``lanes`` slots.

    Both pass through local memory, ``room`` slots at a time.
    """
    core, lanes = ctx.core, ctx.target.pim_unit.lanes
    layer = ctx.scalar(op.layer)
    pitch = _slot_bytes(ctx, op.k, group)
    zero = core.const(0)
    keys, values = (slot_address(ctx, cache, group, layer) for cache in (op.k, op.v))
    staged_k, staged_v = ctx.alloc("attention.k", room * pitch), ctx.alloc("attention.v", room * pitch)
    turned = ctx.alloc("attention.vt", shape.dim * lanes * 2)
    with core.loop(zero, visible, lanes) as first:
        count = core.min(core.sub(visible, first), core.const(lanes))
        size = core.mul(count, core.const(pitch))
        skip = core.mul(first, core.const(pitch))
        at_k, at_v = core.address(staged_k.value), core.address(staged_v.value)
        core.hrd(at_k, core.add(keys, skip), size)
        core.hrd(at_v, core.add(values, skip), size)
        dim = core.const(shape.dim)
        for at, start in zip(range(0, shape.dim, lanes), starts, strict=False):
            row = core.add(first, start) if at else first
            part = core.add(at_k, core.const(at * 2)) if at else at_k
            width = core.const(min(lanes, shape.dim - at))
            core.pimld(row, part, count, depth=width, lane=zero, stride_a=core.const(pitch))
        at_t = core.address(turned.value)
        core.trans(
            at_t, at_v, rows=count, cols=dim, stride_a=core.const(pitch), stride_b=core.const(lanes * 2)
        )  # fmt: skip
        block = core.srli(first, imm=lanes.bit_length() - 1)
        row = core.add(core.mul(block, dim), starts[-1])
        core.pimld(row, at_t, dim, depth=count, lane=zero, stride_a=core.const(lanes * 2))


def _weigh_values(
    ctx: LoweringContext, scores: SSAValue, to: SSAValue, visible: SSAValue, shape: Shape, behind: SSAValue
) -> None:
    """to[0:dim] = sum over slots of score * value, block by block in the accumulators."""
    core, lanes = ctx.core, ctx.target.pim_unit.lanes
    dim, step = core.const(shape.dim), core.const(lanes)
    core.pimmv_cw(to, scores, behind, dim, depth=core.min(visible, step))
    with core.loop(step, visible, lanes) as first:
        count = core.min(core.sub(visible, first), step)
        block = core.srli(first, imm=lanes.bit_length() - 1)
        row = core.add(core.mul(block, dim), behind)
        core.pimmv_aw(to, core.add(scores, core.slli(first, imm=1)), row, dim, depth=count)


# -- prefill: several queries on the tensor unit ----------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Scores of the queries of one head, a row a query: address of the first, and bytes from row to row."""

    at: SSAValue
    pitch: SSAValue


def _prefill_partial(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, q: Strip, shape: Shape) -> Partial:
    core = ctx.core
    slots = ctx.memory.cache(op.k.string_value(), group.index).rows.data
    if shape.rows > ctx.target.tcu.rows:
        raise ctx.unsupported(f"{shape.rows} tokens at once; the tensor unit has {ctx.target.tcu.rows} rows")
    pitch, layer = _slot_bytes(ctx, op.k, group), ctx.scalar(op.layer)
    every = _visible(ctx, op, group, shape.rows - 1)
    keys, values = ctx.alloc("attention.k", slots * pitch), ctx.alloc("attention.v", slots * pitch)
    size = core.mul(every, core.const(pitch))
    for buffer, cache in ((keys, op.k), (values, op.v)):
        core.hrd(core.address(buffer.value), slot_address(ctx, cache, group, layer), size)
    out = _outputs(ctx, group, shape)
    maxima = ctx.alloc("attention.max", shape.share * shape.rows * F32_BYTES)
    sums = ctx.alloc("attention.sum", shape.share * shape.rows * F32_BYTES)
    strip = ctx.strip("attention.scores", shape.rows, slots)
    scores = Scores(ctx.address(strip), core.const(strip.pitch, f"scores.{group.index}.pitch"))
    alibi = Alibi.of(ctx, op, group, every)
    for head in range(shape.share):
        _prefill_scores(ctx, _head_address(ctx, q, group, shape, head), q, keys, pitch, every, scores, shape)
        with ctx.each_row(shape.rows) as row:
            assert row is not None  # prefill has several rows
            statistic = core.addi(core.slli(row, imm=2), imm=head * shape.rows * F32_BYTES)
            _prefill_softmax(ctx, op, group, alibi, head, row, every, scores, maxima, sums, statistic)
        _prefill_values(ctx, scores, values, pitch, every, out, head, shape)
    return Partial(group, out, maxima, sums)


def _prefill_scores(
    ctx: LoweringContext,
    head: SSAValue,
    q: Strip,
    keys: Buffer,
    pitch: int,
    every: SSAValue,
    scores: Scores,
    shape: Shape,
) -> None:
    """scores[m][slot] = q[m] . k[slot], in blocks of the tensor unit's columns."""
    core, width = ctx.core, ctx.target.tcu.columns
    rows = core.const(shape.rows)
    with core.loop(core.const(0), every, width) as first:
        cols = core.min(core.sub(every, first), core.const(width))
        b = core.add(core.address(keys.value), core.mul(first, core.const(pitch)))
        core.tmmc_nk(
            head, b, rows=rows, cols=cols, depth=core.const(shape.dim),
            stride_a=core.const(q.pitch), stride_b=core.const(pitch),
        )  # fmt: skip
        to = core.add(scores.at, core.slli(first, imm=1))
        core.twb(to, rows=rows, cols=cols, stride_c=scores.pitch)


def _prefill_softmax(
    ctx: LoweringContext,
    op: AttentionOp,
    group: HeadGroup,
    alibi: Alibi | None,
    head: int,
    row: SSAValue,
    every: SSAValue,
    scores: Scores,
    maxima: Buffer,
    sums: Buffer,
    statistic: SSAValue,
) -> None:
    """Causal softmax of one query: the slots it sees, zeros behind them."""
    core = ctx.core
    position = core.add(ctx.scalar(op.position), row)
    ahead = core.sub(position, core.const(group.rank))
    visible = core.addi(core.srai(ahead, imm=group.shift), imm=1)
    at = core.add(scores.at, core.mul(row, scores.pitch))
    top = core.add(core.address(maxima.value), statistic)
    total = core.add(core.address(sums.value), statistic)
    if alibi is not None:
        alibi.add(ctx, head, at, position, visible)
    _softmax_row(ctx, at, top, total, visible)
    hidden = core.add(at, core.slli(visible, imm=1))
    core.vfill_h(hidden, hidden, ctx.f32(0.0), core.sub(every, visible))


def _prefill_values(
    ctx: LoweringContext,
    scores: Scores,
    values: Buffer,
    pitch: int,
    every: SSAValue,
    out: Strip,
    head: int,
    shape: Shape,
) -> None:
    """out[m][head] = sum over slots of scores[m][slot] * v[slot]."""
    core, width = ctx.core, ctx.target.tcu.columns
    rows = core.const(shape.rows)
    for column in range(0, shape.dim, width):
        cols = core.const(min(width, shape.dim - column))
        core.tmmc_kn(
            scores.at, core.address(values.value, column * 2), rows=rows, cols=cols, depth=every,
            stride_a=scores.pitch, stride_b=core.const(pitch),
        )  # fmt: skip
        to = core.address(out.buffer.value, (head * shape.dim + column) * 2)
        core.twb(to, rows=rows, cols=cols, stride_c=core.const(out.pitch))
