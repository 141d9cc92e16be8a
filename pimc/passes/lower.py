"""``lower``: scheduled entry functions become programs of the cores and streams of the controllers."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp

from pimc.backends.lower.context import LoweringOptions
from pimc.backends.lower.entry import lower_module
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class LowerPass(Pass):
    """One ``sram.program`` and one ``hbm.program`` an entry; see :mod:`pimc.backends.lower`.

    ``result_blocks``: up to so many blocks of result registers, a GEMV's results are taken block by block.
    """

    name = "lower"
    produces = Stage.LOWERED
    requires = Stage.SCHEDULED
    result_blocks: int = 8

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        lower_module(module, context.target, LoweringOptions(self.result_blocks))
