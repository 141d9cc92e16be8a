"""``place``: give every compute operation a domain (``pim.domain``) and the reason for it (``pim.reason``).

``policy`` is one of the registered policies (:mod:`pimc.passes.placement`) or ``module:function``.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp, StringAttr

from pimc.ir import nn
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.passes.machine import Machine
from pimc.passes.placement import find_policy

DOMAIN, REASON = "pim.domain", "pim.reason"


@dataclass(frozen=True)
class PlacePass(Pass):
    """Choose the domain of every operation by a policy."""

    name = "place"
    produces = Stage.PLACED
    requires = Stage.ANNOTATED
    policy: str = "paper"

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        machine = Machine(context.target)
        policy = find_policy(self.policy)
        for inner in module.walk():
            if not isinstance(inner, nn.NnOp) or isinstance(inner, nn.ParamOp | nn.ConstantOp):
                continue
            placement = policy(inner, machine)
            machine.target.domain(placement.domain)  # an error that names the domains if there is no such
            inner.attributes[DOMAIN] = StringAttr(placement.domain)
            inner.attributes[REASON] = StringAttr(placement.reason)
            context.explain(inner, f"{placement.domain}: {placement.reason}")
