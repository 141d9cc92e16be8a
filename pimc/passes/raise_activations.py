"""Activations from their arithmetic, recognised by their values.
 Models spell GELU in many ways.  Where elementwise operations compute a function of one tensor, the function
is evaluated at sample points and compared with those the dialect has; the order of operations does not
matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import AnyFloat
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from pimc.ir import nn
from pimc.passes.raise_match import Notes, Replacer, scalar, users
from pimc.passes.raise_views import shape_of

Samples: TypeAlias = npt.NDArray[np.float64]

_SAMPLES: Final[Samples] = np.linspace(-6.0, 6.0, 97)
_TOLERANCE: Final = 1e-4
"""Between the two forms of GELU lie 4.7e-4; constants rounded to fp16 move a value by less than 1e-4."""
_DEPTH: Final = 8


def _erf(x: Samples) -> Samples:
    return np.asarray([math.erf(value) for value in x])


def _sigmoid(x: Samples) -> Samples:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


_UNARY: Final[Mapping[type[Operation], Callable[[Samples], Samples]]] = {
    nn.TanhOp: np.tanh,
    nn.ErfOp: _erf,
    nn.SigmoidOp: _sigmoid,
    nn.ExpOp: np.exp,
    nn.NegOp: np.negative,
    nn.RecipOp: np.reciprocal,
    nn.AbsOp: np.abs,
}
_BINARY: Final[Mapping[type[Operation], Callable[[Samples, Samples], Samples]]] = {
    nn.AddOp: np.add,
    nn.SubOp: np.subtract,
    nn.MulOp: np.multiply,
    nn.DivOp: np.divide,
    nn.PowOp: np.power,
    nn.MaximumOp: np.maximum,
}
_ANCHORS: Final = (nn.TanhOp, nn.ErfOp, nn.SigmoidOp, nn.ExpOp, nn.MaximumOp)

_GELU: Final = _SAMPLES * (1.0 + _erf(_SAMPLES / math.sqrt(2.0))) / 2.0
_INNER: Final = math.sqrt(2.0 / math.pi) * (_SAMPLES + 0.044715 * _SAMPLES**3)
_FUNCTIONS: Final[tuple[tuple[Samples, Callable[[SSAValue], nn.NnOp]], ...]] = (
    (_SAMPLES * _sigmoid(_SAMPLES), nn.SiluOp),
    (_GELU, lambda x: nn.GeluOp(x, "none")),
    (_SAMPLES * (1.0 + np.tanh(_INNER)) / 2.0, lambda x: nn.GeluOp(x, "tanh")),
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
            if type(value.owner) in _UNARY or type(value.owner) in _BINARY
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
        level = [op for before in level for op in users(before.results[0]) if type(op) in _BINARY]


def _evaluate(value: SSAValue, source: SSAValue, depth: int = 2 * _DEPTH) -> Samples | None:
    """``value`` as a function of ``source`` at the sample points; None if it depends on anything else."""
    if value is source:
        return _SAMPLES
    number = scalar(value)
    if number is not None:
        return np.full_like(_SAMPLES, number)
    op = value.owner
    if depth == 0 or not isinstance(op, Operation):
        return None
    inputs = [_evaluate(operand, source, depth - 1) for operand in op.operands] if _is_elementwise(op) else [None]
    known = [values for values in inputs if values is not None]
    if len(known) != len(inputs):
        return None
    with np.errstate(all="ignore"):
        if type(op) in _UNARY:
            return _UNARY[type(op)](known[0])
        return _BINARY[type(op)](known[0], known[1])


def _is_elementwise(op: Operation) -> bool:
    return type(op) in _UNARY or type(op) in _BINARY
