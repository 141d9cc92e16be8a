"""Rules that write an ATen operator in terms of others which have converters.

PyTorch has rules of its own for most composed operators; these are for those that it implements as one kernel, or whose
rule ends in a primitive without a converter.  A rule has the operator's parameters and is traced as plain PyTorch code;
``NotImplemented`` leaves the operator as it is, to be refused.  One is added by a function and a line of its module's
``RULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from pimc.frontends.decompositions import elementwise, fused, gamma, indexing, losses, products, samples, search
from pimc.frontends.tables import merged

ROOMS = (fused, elementwise, gamma, search, indexing, products, samples, losses)


@cache
def rules() -> Mapping[str, Callable[..., object]]:
    """The rules by the operator's name as ``str`` of it gives it."""
    # A name of two parts is one of ATen's.
    return {
        name if name.count(".") == 2 else f"aten.{name}": rule
        for name, rule in merged((room, room.RULES) for room in ROOMS).items()
    }
