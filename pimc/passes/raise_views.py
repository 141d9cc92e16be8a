"""Chains of views, compared by what they do rather than by how they are written.

A *view* moves no arithmetic: reshape, transpose, broadcast, slice.  A chain of them is a function from result positions
to positions of its root, so two chains are equal when they have the same strides (:mod:`pimc.passes.view_strides`).
The raising patterns state the arrangement they need ("heads split from the features") as a chain of their own
and compare; any spelling of the same arrangement matches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from pimc.ir import nn
from pimc.ir.nn.base import values_of
from pimc.passes.raise_match import Replacer
from pimc.passes.view_strides import NotStrided, Shape, Step, Steps, strides_of

ScalarT = TypeVar("ScalarT", bound=np.generic)
ViewOp: TypeAlias = nn.ReshapeOp | nn.TransposeOp | nn.BroadcastToOp | nn.SliceOp


def shape_of(value: SSAValue) -> Shape:
    """Shape of a tensor value."""
    return nn.tensor_of(value).get_shape()


def step_of(op: ViewOp) -> Step:
    """A view as data: its name and numbers."""
    if isinstance(op, nn.TransposeOp):
        return ("transpose", values_of(op.permutation))
    if isinstance(op, nn.SliceOp):
        return ("slice", values_of(op.starts), values_of(op.stops), values_of(op.steps))
    return ("reshape" if isinstance(op, nn.ReshapeOp) else "broadcast", shape_of(op.result))


def chain(value: SSAValue) -> Iterator[tuple[SSAValue, Steps]]:
    """``value`` and everything it is a view of, nearest first, each with the steps that lead from it to
    ``value``.
    """
    steps: Steps = ()
    yield value, steps
    while isinstance(op := value.owner, nn.ReshapeOp | nn.TransposeOp | nn.BroadcastToOp | nn.SliceOp):
        value, steps = op.x, (step_of(op), *steps)
        yield value, steps


def apply_steps(array: npt.NDArray[ScalarT], steps: Steps) -> npt.NDArray[ScalarT]:
    """The array after the steps."""
    for step in steps:
        if step[0] == "transpose":
            array = array.transpose(step[1])
        elif step[0] == "broadcast":
            array = np.broadcast_to(array, step[1])
        elif len(step) == 4:
            array = array[tuple(nn.python_slice(*bounds) for bounds in zip(*step[1:], strict=True))]
        else:
            array = array.reshape(step[1])
    return array


@lru_cache(maxsize=4096)
def same_view(root: Shape, steps: Steps, expected: Steps, broadcast: Shape | None = None) -> bool:
    """Whether two chains over a root of shape ``root`` give the same elements in the same row-major order.

    ``broadcast`` is a shape that the first chain's result is broadcast to before the comparison.  A chain whose
    elements do not lie at fixed strides is the same as none.
    """
    if broadcast is not None:
        steps = (*steps, ("broadcast", broadcast))
    try:
        have, want = strides_of(root, steps), strides_of(root, expected)
    except NotStrided:
        return False
    return have == want


def fold_identities(function: FuncOp) -> None:
    """Remove views that give back one of their sources unchanged, reshapes of reshapes, and empty parts of joins."""
    for op in list(function.walk()):
        if isinstance(op, nn.ConcatOp):
            parts = [value for value in op.inputs if 0 not in shape_of(value)]
            if len(parts) == 1:
                op.result.replace_all_uses_with(parts[0])
            elif 0 < len(parts) < len(op.inputs):
                Replacer.replace(op, nn.ConcatOp(parts, op.axis.value.data))
            continue
        if not isinstance(op, nn.ReshapeOp | nn.TransposeOp | nn.BroadcastToOp | nn.SliceOp):
            continue
        shape = shape_of(op.result)
        found: SSAValue | None = None
        for source, steps in chain(op.result):
            if steps and shape_of(source) == shape and same_view(shape, steps, ()):
                found = source
        if found is not None:
            op.result.replace_all_uses_with(found)
        elif isinstance(op, nn.ReshapeOp) and isinstance(inner := op.x.owner, nn.ReshapeOp):
            Replacer.replace(op, nn.ReshapeOp(inner.x, shape))


def heads_split(tokens: int, heads: int, size: int, batch: int = 1) -> Steps:
    """``[B, M, H*D]`` -> ``[B, H, M, D]``."""
    return (("reshape", (batch, tokens, heads, size)), ("transpose", (0, 2, 1, 3)))


def heads_repeated(tokens: int, heads: int, kv_heads: int, size: int, batch: int = 1) -> Steps:
    """``[B, N, Hkv*D]`` or ``[B, N, Hkv, D]`` -> ``[B, H, N, D]``, query head h from key/value head ``h //
    (H/Hkv)``.
    """
    group = heads // kv_heads
    return (
        ("reshape", (batch, tokens, kv_heads, 1, size)),
        ("broadcast", (batch, tokens, kv_heads, group, size)),
        ("reshape", (batch, tokens, heads, size)),
        ("transpose", (0, 2, 1, 3)),
    )
