"""Activations from their arithmetic, recognised by their values.
 Models spell GELU in many ways.  Where elementwise operations compute a function of one tensor, the function
is evaluated at sample points and compared with those the dialect has; the order of operations does not
matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import AnyFloat
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from pimc.ir import nn
from pimc.ir.nn.numeric import gelu, sigmoid
from pimc.passes.raise_match import Notes, Replacer, scalar, users
from pimc.passes.raise_views import shape_of

Samples: TypeAlias = npt.NDArray[np.float64]

_SAMPLES: Final[Samples] = np.linspace(-6.0, 6.0, 97)
_TOLERANCE: Final = 1e-4
"""Between the two forms of GELU lie 4.7e-4; constants rounded to fp16 move a value by less than 1e-4."""
_DEPTH: Final = 8

_ARITHMETIC: Final = (
    nn.TanhOp, nn.ErfOp, nn.SigmoidOp, nn.ExpOp, nn.NegOp, nn.RecipOp, nn.AbsOp,
    nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp, nn.PowOp, nn.MaximumOp,
)  # fmt: skip
"""What an activation may be written with."""
_JOINS: Final = (nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp, nn.PowOp, nn.MaximumOp)
"""Those of two operands."""
_ANCHORS: Final = (nn.TanhOp, nn.ErfOp, nn.SigmoidOp, nn.ExpOp, nn.MaximumOp)

_FUNCTIONS: Final[tuple[tuple[Samples, Callable[[SSAValue], nn.NnOp]], ...]] = (
    (_SAMPLES * sigmoid(_SAMPLES), nn.SiluOp),
    (gelu(_SAMPLES, "none"), lambda x: nn.GeluOp(x, "none")),
    (gelu(_SAMPLES, "tanh"), lambda x: nn.GeluOp(x, "tanh")),
    (np.maximum(_SAMPLES, 0.0), nn.ReluOp),
)


def raise_activations(function: FuncOp, notes: Notes) -> None:
    """Replace arithmetic that computes silu, gelu (either form) or relu."""
    for op in list(function.walk()):
        if isinstance(op, _ANCHORS) and isinstance(nn.tensor_of(op.results[0]).element_type, AnyFloat):
            _raise_activation(op, notes)


def _raise_activation(anchor: Operation, notes: Notes) -> None:
    for source in _backward(anchor):
        for result in _forward(anchor):
            values = _evaluate(result.results[0], source)
            if values is None or shape_of(source) != shape_of(result.results[0]):
                continue
            errors = [float(np.max(np.abs(values - wanted))) for wanted, _ in _FUNCTIONS]
            best = int(np.argmin(errors))
            if errors[best] < _TOLERANCE:
                Replacer.replace(result, _FUNCTIONS[best][1](source))
                return
    if isinstance(anchor, nn.ErfOp):
        notes.refuse(anchor, "activation", "the arithmetic around erf is no GELU")


def _backward(anchor: Operation) -> Iterator[SSAValue]:
    """Values that ``anchor`` is a function of, nearest first."""
    level = [value for value in anchor.operands if scalar(value) is None]
    for _ in range(_DEPTH):
        yield from dict.fromkeys(level)
        level = [
            operand
            for value in level
            if isinstance(value.owner, _ARITHMETIC)
            for operand in _owner(value).operands
            if scalar(operand) is None
        ]


def _owner(value: SSAValue) -> Operation:
    owner = value.owner
    assert isinstance(owner, Operation)
    return owner


def _forward(anchor: Operation) -> Iterator[Operation]:
    """``anchor`` and the elementwise operations that follow from it, nearest first."""
    level = [anchor]
    for _ in range(_DEPTH):
        yield from level
        level = [op for before in level for op in users(before.results[0]) if isinstance(op, _JOINS)]


def _evaluate(value: SSAValue, source: SSAValue, depth: int = 2 * _DEPTH) -> Samples | None:
    """``value`` as a function of ``source`` at the sample points; None if it depends on anything else."""
    if value is source:
        return _SAMPLES
    number = scalar(value)
    if number is not None:
        return np.full_like(_SAMPLES, number)
    op = value.owner
    if depth == 0 or not isinstance(op, _ARITHMETIC):
        return None
    inputs = [_evaluate(operand, source, depth - 1) for operand in op.operands]
    known = [values for values in inputs if values is not None]
    if len(known) != len(inputs):
        return None
    with np.errstate(all="ignore"):
        return op.evaluate(*known)
