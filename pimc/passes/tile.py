"""``tile``: how much of an operation a core works on at a time, so that buffers fit its activation memory.

A GEMM streams its weights from the banks in tiles of whole result slots through ``buffers`` buffers, so that one tile's
transfer hides under another's multiplication.  The share of the activation memory that weights may take is an option;
what the activations need is checked by ``allocate``.

Attention takes queries in blocks of rows that fill the unit, and keys and values in blocks of rows that its buffers
hold: neither depends on how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp, StringAttr

from pimc.diagnostics import InputError, UsageError
from pimc.ir.bank_layout import GemvLayout
from pimc.ir.locations import where
from pimc.ir.pim.ops import AttentionOp, GemmOp
from pimc.ir.pim.tiling import GemmTiling
from pimc.ir.stages import Stage
from pimc.passes.attention_blocks import attention_tiling
from pimc.passes.base import Pass, PassContext

REASON = "pim.tile"


@dataclass(frozen=True)
class TilePass(Pass):
    """Choose the weight tiles of every ``pim.gemm`` and the blocks of every attention.

    ``weight_share``: percent of the activation memory for the weight buffers of one GEMM; ``buffers``: how many;
    ``key_share``: percent for keys, values and scores of one attention.
    """

    name = "tile"
    produces = Stage.TILED
    requires = Stage.LAID_OUT
    weight_share: int = 33
    buffers: int = 2
    key_share: int = 33

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        if not 0 < self.weight_share <= 100 or not 0 < self.key_share <= 100 or self.buffers < 1:
            raise UsageError("tile needs shares of 1 to 100 percent and at least one buffer")
        memory = context.target.memory("activation").bytes
        for op in module.walk():
            if isinstance(op, AttentionOp):
                blocks, reason = attention_tiling(op, context.target, memory * self.key_share // 100)
                blocks.attach(op)
                op.attributes[REASON] = StringAttr(reason)
                context.explain(op, reason)
            elif isinstance(op, GemmOp):
                if op.layout is None:
                    raise InputError("pim.gemm has no layout", where=where(op), hint="run layout before tile")
                tiling = choose(op.layout.layout, memory * self.weight_share // 100, self.buffers)
                if slot_bytes(op.layout.layout) > memory:
                    raise InputError(
                        f"one slot of weights ({slot_bytes(op.layout.layout)} bytes) exceeds the activation memory",
                        where=where(op),
                        hint="a layout with a larger ksplit has smaller slots",
                    )
                tiling.attach(op)


def slot_bytes(layout: GemvLayout) -> int:
    """Bytes of the weights of one result slot of a tile."""
    return layout.outputs_per_slot * layout.padded_k * 2


def choose(layout: GemvLayout, budget: int, buffers: int) -> GemmTiling:
    """The largest tiles of which ``buffers`` fit ``budget`` bytes; at least one slot, with fewer buffers if need be."""
    size = slot_bytes(layout)
    slots = budget // (buffers * size)
    if slots == 0:
        return GemmTiling(1, max(1, min(buffers, budget // size)))
    slots = min(slots, layout.slots)
    tiles = -(-layout.slots // slots)
    return GemmTiling(-(-layout.slots // tiles), min(buffers, tiles))
