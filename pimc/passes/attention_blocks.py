"""Blocks of an attention: how many query rows at a time, and how many keys and values for each.

Both follow from the units and memories of the target, never from the longest sequence.
"""

from __future__ import annotations

from pimc.backends.lower.choices import choice_of
from pimc.backends.lower.matrix_unit import block_of
from pimc.diagnostics import TargetError
from pimc.ir import nn
from pimc.ir.layout import is_local
from pimc.ir.locations import where
from pimc.ir.pim.encoder import AttentionFullOp, AttentionGrid
from pimc.ir.pim.ops import AttentionOp
from pimc.ir.pim.tiling import AttentionTiling
from pimc.ir.pim.values import areas_of
from pimc.targets.target import Target

#: Buffers of keys, and of values: a block is read under the work on the one before.
BUFFERS = 2


def attention_tiling(op: AttentionOp, target: Target, budget: int) -> tuple[AttentionTiling, str]:
    """The blocks of a cached attention whose keys, values and scores take at most ``budget`` bytes, and why.

    Raises TargetError where not even one slot fits.
    """
    share, dim = op.heads.value.data // op.kv_heads.value.data, op.head_dim.value.data
    column = target.hbm.column_bytes
    slot = 2 * BUFFERS * (-(-2 * dim // column) * column)  # of keys and values
    kind = choice_of(op, target).unit
    if kind == "sram_pim":  # one token
        unit = target.array
        rows, keys, why = 1, unit.lanes, "the lanes of the SRAM-PIM unit"
        each = slot + 2 * share
        parts = -(-dim // unit.lanes)
        while keys > 1 and parts * keys + dim > unit.rows:
            keys, why = keys // 2, "the rows of the SRAM-PIM unit's array"
        fits = parts * keys + dim <= unit.rows
    else:
        tokens = nn.tensor_of(op.q).get_shape()[1]
        most = block_of(target, kind).rows // share
        rows, keys, why = 1 if tokens == 1 else max(1, most), 1, "local memory"
        each = slot + 2 * rows * share
        while 2 * keys * each <= budget:
            keys, why = 2 * keys, "local memory"
        fits = True
    while keys > 1 and keys * each > budget:
        keys, why = keys // 2, "local memory"
    if not fits or keys * each > budget:
        raise TargetError(
            f"attention with heads of {dim} does not fit: one slot's keys, values and scores take {each} bytes, "
            f"they may take {budget}",
            where=where(op),
            hint="a larger key_share of the pass tile, or a target with more local memory",
        )
    reason = (
        f"{rows} x {share} query rows and {keys} slots at a time ({why}); keys and values in {BUFFERS} "
        f"buffers each: {keys * each} of {budget} bytes"
    )
    return AttentionTiling(rows, keys), reason


def full_tiling(op: AttentionFullOp, target: Target, share: int, free: int) -> tuple[AttentionTiling, str]:
    """The blocks of an attention without a cache, and why: query rows that fill the unit in equal blocks, and
    keys whose buffers and scores take at most ``share`` bytes, and ``free`` with the state of all query rows.
    """
    grid, total = AttentionGrid.of(op), nn.tensor_of(op.k).get_shape()[1]
    queries, dim = op.heads.value.data // op.kv_heads.value.data, op.head_dim.value.data
    most = max(1, block_of(target, choice_of(op, target).unit).rows // queries)
    rows = -(-grid.rows // -(-grid.rows // most))
    state = -(-grid.rows // rows) * rows * queries * (4 * dim + 8)
    state += rows * queries * (4 * dim + 12) + 64 * dim  # queries, products and statistics of a block
    one, budget = 4 * dim + 2 * rows * queries, min(share, free - state)
    for value in (op.k, op.v):
        if not is_local(value.type):  # a block of what a core has passes through local memory
            one += sum(area.strides[1] for area in areas_of(nn.tensor_of(value), target.hbm.column_bytes))
    if total * one <= budget and grid.sequences * grid.heads == 1:
        keys, why = total, "all, in one buffer"
    else:
        keys, one, why = 1, one + 4 * dim, f"in {BUFFERS} buffers"
        while keys < total and 2 * keys * one <= budget:
            keys *= 2
    reason = (
        f"{rows} x {queries} query rows and {min(keys, total)} keys at a time ({why}): keys, values and scores take "
        f"{keys * one} of {budget} bytes"
    )
    return AttentionTiling(rows, keys), reason
