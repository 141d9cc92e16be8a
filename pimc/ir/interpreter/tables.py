"""The tables of all dialects, merged."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache

from pimc.ir.interpreter.table import ImplementationTable

_MODULES = ("builtin_ops", "nn_ops", "nn_conv", "nn_shape", "nn_indexing", "pim_ops")


@cache
def default_table() -> ImplementationTable:
    """Implementations of the builtin, nn and (where present) pim dialects."""
    tables: list[ImplementationTable] = []
    for name in _MODULES:
        module = f"pimc.ir.interpreter.{name}"
        if importlib.util.find_spec(module) is not None:
            tables.append(importlib.import_module(module).TABLE)
    return ImplementationTable.merged(tables)
