"""A placement pass of a user's own: the LM head on the SRAM-PIM cores' tensor units instead of in the HBM-PIM banks.

    pimc compile MODEL -o out.pimx --plugin examples/custom_pass/lm_head_on_cores.py \\
        -p '...,place,lm-head-on-cores,...'

The head's weights are then streamed from the banks into the cores for every token; README.md beside this file says
what that costs.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, StringAttr

from pimc.ir import nn
from pimc.passes.base import Pass, PassContext


@dataclass(frozen=True)
class LmHeadOnCores(Pass):
    """Place every linear layer whose result an entry returns on ``domain``."""

    name = "lm-head-on-cores"
    domain: str = "tcu"

    def run(self, module: ModuleOp, context: PassContext) -> None:
        """Overwrite what ``place`` chose; ``--explain lm_head`` shows the domain and the reason."""
        context.target.domain(self.domain)  # an error if the target has none of this name
        for op in module.walk():
            if isinstance(op, nn.LinearOp) and any(isinstance(use.operation, func.ReturnOp) for use in op.result.uses):
                reason = f"lm-head-on-cores: the result leaves the entry, so {self.domain} computes it"
                op.attributes["pim.domain"] = StringAttr(self.domain)
                op.attributes["pim.reason"] = StringAttr(reason)
