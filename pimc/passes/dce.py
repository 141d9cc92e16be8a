"""``dce``: xDSL's dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp
from xdsl.transforms.dead_code_elimination import DeadCodeElimination

from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class DcePass(Pass):
    """Remove operations whose results nobody uses."""

    name = "dce"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        """Remove dead operations."""
        DeadCodeElimination().apply(context.ir, module)
