"""The `nn` dialect: tensor operators as transformer models have them.

Activations are ``[batch, tokens, features]`` with the heads folded into the features; weights are `nn.param`
operators named as in the checkpoint; KV caches are `ml_program.global`.  Every operator verifies shapes and
element types, has a reference meaning in :mod:`pimc.ir.interpreter`, and a cost (:func:`cost`).
"""

from __future__ import annotations

from typing import TypeGuard

from xdsl.ir import Dialect, Operation

from pimc.ir.nn.attention import *
from pimc.ir.nn.base import *
from pimc.ir.nn.cache import *
from pimc.ir.nn.conv import *
from pimc.ir.nn.elementwise import *
from pimc.ir.nn.functions import *
from pimc.ir.nn.indexing import *
from pimc.ir.nn.linear import *
from pimc.ir.nn.norm import *
from pimc.ir.nn.search import *
from pimc.ir.nn.shape import *
from pimc.ir.nn.source import *


def _is_operator(found: object) -> TypeGuard[type[NnOp]]:
    return isinstance(found, type) and issubclass(found, NnOp) and "name" in vars(found)


OPERATIONS = sorted({op for op in globals().values() if _is_operator(op)}, key=lambda op: op.name)
"""Every operator: the classes with a name that the modules above define."""

Nn = Dialect("nn", list[type[Operation]](OPERATIONS), [])
