"""``lower``: scheduled entry functions become programs of the cores and streams of the controllers."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from pimc.backends.lower.entry import lower_module
from pimc.targets import load_target


@dataclass(frozen=True)
class LowerPass(ModulePass):
    """One ``sram.program`` and one ``hbm.program`` an entry; see :mod:`pimc.backends.lower`."""

    name = "lower"
    target: str = "hpim"
    set: tuple[str, ...] = ()

    @override
    def apply(self, ctx: Context, op: ModuleOp) -> None:
        lower_module(op, load_target(self.target, self.set))
