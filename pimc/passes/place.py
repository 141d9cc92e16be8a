"""``place``: give every compute operation a domain (``pim.domain``) and the reason for it (``pim.reason``).

The compilation's policy chooses (:mod:`pimc.passes.policy`; ``--policy``); what can be chosen for an operation is in
:mod:`pimc.backends.lower.choices`, which the lowering reads too.  The module keeps the policy's name (``pim.policy``),
so that a dump is compiled on with the policy's options of later passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from typing_extensions import override
from xdsl.dialects.builtin import ModuleOp, StringAttr

from pimc.backends.lower.choices import DOMAIN, REASON, choice_of
from pimc.ir import nn
from pimc.ir.stages import Stage, is_compute
from pimc.passes.base import Pass, PassContext
from pimc.passes.machine import Machine

POLICY = "pim.policy"


@dataclass(frozen=True)
class PlacePass(Pass):
    """Choose the domain of every operation by the compilation's policy."""

    name = "place"
    produces = Stage.PLACED
    requires = Stage.ANNOTATED

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        machine = Machine(context.target)
        place = context.policy_in_force.place
        module.attributes[POLICY] = StringAttr(context.policy_in_force.name)
        for op in module.walk():
            if not isinstance(op, nn.NnOp) or not is_compute(op):
                continue
            placement = place(op, machine)
            machine.target.domain(placement.domain)  # an error that names the domains if there is no such
            op.attributes[DOMAIN] = StringAttr(placement.domain)
            op.attributes[REASON] = StringAttr(placement.reason)
            choice_of(op, machine.target)  # an error that names the domains that can if this one cannot
            context.explain(op, f"{placement.domain}: {placement.reason}")
