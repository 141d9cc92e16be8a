"""Rules that write an ATen operator in terms of others which have converters.

PyTorch has rules of its own for most composed operators; these are for those that it implements as one kernel, or whose
rule ends in a primitive without a converter.  A rule has the operator's parameters and is traced as plain PyTorch code;
``NotImplemented`` leaves the operator as it is, to be refused.  One is added by a function and a line of its module's
``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from pimc.frontends.decompositions import elementwise, fused, gamma, indexing, products, samples, search
from pimc.frontends.tables import merged

ROOMS = (fused, elementwise, gamma, search, indexing, products, samples)


@cache
def rules() -> Mapping[object, Callable[..., object]]:
    """The rules by operator."""
    from torch import ops

    found: dict[object, Callable[..., object]] = {}
    for name, rule in merged((room, room.RULES) for room in ROOMS).items():
        operator, overload = name.split(".")
        found[getattr(getattr(ops.aten, operator), overload)] = rule
    return found
