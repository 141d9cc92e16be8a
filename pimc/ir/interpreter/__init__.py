"""Reference interpreter of the IR on numpy arrays.

A dialect adds its operations in a module of this package with a ``TABLE`` of implementations (see
:mod:`pimc.ir.interpreter.table`), listed in :mod:`pimc.ir.interpreter.tables`.
"""

from __future__ import annotations

from pimc.ir.interpreter.core import Frame, Interpreter, Precision
from pimc.ir.interpreter.table import Array, ImplementationTable, Value

__all__ = ["Array", "Frame", "ImplementationTable", "Interpreter", "Precision", "Value"]
