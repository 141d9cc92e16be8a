"""``cse``: xDSL's common subexpression elimination."""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp
from xdsl.transforms.common_subexpression_elimination import CommonSubexpressionElimination

from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class CsePass(Pass):
    """Compute equal expressions once."""

    name = "cse"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        """Replace an operation by an equal one before it."""
        CommonSubexpressionElimination().apply(context.ir, module)
