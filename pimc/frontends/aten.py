"""ATen operators -> `nn` primitives: the table of all converters.

A converter gets a :class:`~pimc.frontends.fx_context.NodeContext` and returns what the node stands for.  An operator
is added by writing one function and one line of the table of its module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pimc.frontends import (
    aten_cached,
    aten_conv,
    aten_index,
    aten_math,
    aten_norm,
    aten_pool,
    aten_product,
    aten_reduce,
    aten_scatter,
    aten_shape,
    aten_window,
)
from pimc.frontends.graph import Converter
from pimc.frontends.tables import merged

_ROOMS: Final = (
    aten_math, aten_product, aten_norm, aten_reduce, aten_shape, aten_index, aten_scatter, aten_conv, aten_window,
    aten_pool, aten_cached,
)  # fmt: skip

CONVERTERS: Final[Mapping[str, Converter]] = merged((module, module.TABLE) for module in _ROOMS)
"""Converters by the operator's name as ``str(node.target)`` gives it."""
