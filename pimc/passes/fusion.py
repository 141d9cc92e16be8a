"""Which linear layers become one matrix operation: those that share their input, placement and block.

Prefill and decode store each weight once, so a set of weights is fused only if every function that uses one
of them fuses the same set in the same order; otherwise each stays alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.lower.choices import DOMAIN
from pimc.ir import nn


@dataclass
class LinearGroup:
    """Linear layers of one matrix operation, in program order."""

    members: list[nn.LinearOp] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The weights' names."""
        return tuple(weight_name(op) or "" for op in self.members)


def weight_param(value: SSAValue | None) -> nn.ParamOp | None:
    """The parameter that defines ``value``, if one does."""
    if value is None or not isinstance(value.owner, nn.ParamOp):
        return None
    return value.owner


def weight_name(op: nn.LinearOp) -> str | None:
    """Name of the stored weight of ``op``; None where the weight is computed."""
    param = weight_param(op.weight)
    return None if param is None else param.weight_name.data


def partitionable(op: Operation) -> bool:
    """Whether ``op`` is a linear layer over stored weights (and a stored bias)."""
    if not isinstance(op, nn.LinearOp) or weight_name(op) is None:
        return False
    return op.bias is None or weight_param(op.bias) is not None


def find_groups(module: ModuleOp) -> dict[nn.LinearOp, LinearGroup]:
    """The group of every linear layer over stored weights."""
    groups = list(_candidate_groups(module))
    users: dict[str, set[tuple[str, ...]]] = {}
    for group in groups:
        for name in group.names:
            users.setdefault(name, set()).add(group.names)
    found: dict[nn.LinearOp, LinearGroup] = {}
    for group in groups:
        same = all(len(users[name]) == 1 for name in group.names) and len(set(group.names)) == len(group.names)
        for op in group.members:
            found[op] = group if same else LinearGroup([op])
    return found


def _candidate_groups(module: ModuleOp) -> Iterator[LinearGroup]:
    by_key: dict[tuple[Block | None, SSAValue, str], LinearGroup] = {}
    for op in module.walk():
        if not isinstance(op, nn.LinearOp) or not partitionable(op):
            continue
        domain = op.attributes.get(DOMAIN)
        key = (op.parent_block(), op.x, domain.data if isinstance(domain, StringAttr) else "")
        by_key.setdefault(key, LinearGroup()).members.append(op)
    yield from by_key.values()
