"""``tile``: how much of an operation a core works on at a time, so that buffers fit its activation memory.

A GEMM multiplies blocks of rows, outputs and K (:mod:`pimc.passes.gemm_blocks`); attention takes queries in blocks of
rows that fill the unit, and keys and values in blocks of rows that its buffers hold
(:mod:`pimc.passes.attention_blocks`).  Buffers of a GEMM fit beside the values that are needed behind it, also by
callers, and those that ``schedule`` loads ahead; ``allocate`` checks that all does.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation

from pimc.diagnostics import InputError, UsageError
from pimc.ir.locations import where
from pimc.ir.pim.encoder import AttentionFullOp
from pimc.ir.pim.ops import AttentionOp, GemmOp
from pimc.ir.pim.tiling import AttentionTiling, GemmTiling
from pimc.ir.stages import Stage
from pimc.passes.attention_blocks import attention_tiling, full_tiling
from pimc.passes.base import Pass, PassContext
from pimc.passes.gemm_blocks import BUFFERS, gemm_tiling
from pimc.passes.held import Held, room_of
from pimc.passes.machine import Machine
from pimc.passes.schedule import ahead_of

REASON = "pim.tile"


@dataclass(frozen=True)
class TilePass(Pass):
    """Choose the blocks of every GEMM and attention.

    ``share``: percent of the activation memory for the buffers of one GEMM, at most; ``buffers``: for transfers of
    weights, at most; ``key_share``: percent for keys, values and scores of one attention.
    """

    name = "tile"
    produces = Stage.TILED
    requires = Stage.LAID_OUT
    share: int = 90
    buffers: int = BUFFERS
    key_share: int = 40

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        if not 0 < self.share <= 100 or not 0 < self.key_share <= 100 or self.buffers < 1:
            raise UsageError("tile needs shares of 1 to 100 percent and at least one buffer")
        machine, held = Machine(context.target), Held.of(module)
        for op in module.walk():
            found = self.choose(machine, held, op)
            if found is not None:
                blocks, reason = found
                blocks.attach(op)
                op.attributes[REASON] = StringAttr(reason)
                context.explain(op, reason)

    def choose(self, machine: Machine, held: Held, op: Operation) -> tuple[GemmTiling | AttentionTiling, str] | None:
        """The blocks of an operation, and why; None for one that is not tiled."""
        memory = machine.target.memory("activation").bytes
        match op:
            case AttentionOp():
                return attention_tiling(op, machine.target, memory * self.key_share // 100)
            case AttentionFullOp():
                free = room_of(machine.target) - held.bytes(op)
                return full_tiling(op, machine.target, memory * self.key_share // 100, free)
            case GemmOp():
                if op.layout is None:
                    raise InputError("pim.gemm has no layout", where=where(op), hint="run layout before tile")
                beside = held.bytes(op) + ahead_of(op, machine.target)
                budget = max(min(memory * self.share // 100, room_of(machine.target) - beside), 0)
                return gemm_tiling(machine, op, op.layout.layout, budget, self.buffers)
            case _:
                return None
