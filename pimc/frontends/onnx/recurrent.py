"""Recurrent layers, unrolled over time: RNN, GRU and LSTM with all their activations and directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import Converted, Converter, NodeContext
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.limits import unrollable
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn

Activation: TypeAlias = Callable[[SSAValue], SSAValue]


def _parameterised(terms: Expressions, name: str, alpha: float, beta: float, x: SSAValue) -> SSAValue:
    """An activation function with parameters."""
    emit = terms.context.emit
    match name:
        case "affine":
            return terms.add(terms.mul(x, alpha), beta)
        case "leakyrelu":
            return terms.select(terms.compare(x, "ge", 0.0), x, terms.mul(x, alpha))
        case "thresholdedrelu":
            return terms.select(terms.compare(x, "ge", alpha), x, 0.0)
        case "scaledtanh":
            return terms.mul(emit(nn.TanhOp(terms.mul(x, beta))), alpha)
        case "hardsigmoid":
            return terms.clip(terms.add(terms.mul(x, alpha), beta), 0.0, 1.0)
        case _:  # elu
            below = terms.mul(terms.sub(emit(nn.ExpOp(terms.minimum(x, 0.0))), 1.0), alpha)
            return terms.select(terms.compare(x, "ge", 0.0), x, below)


def _softsign(terms: Expressions, x: SSAValue) -> SSAValue:
    return terms.div(x, terms.add(terms.context.emit(nn.AbsOp(x)), 1.0))


def _softplus(terms: Expressions, x: SSAValue) -> SSAValue:
    """``max(x, 0) + log(1 + exp(-|x|))``, which does not overflow."""
    emit = terms.context.emit
    tail = emit(nn.LogOp(terms.add(emit(nn.ExpOp(emit(nn.NegOp(emit(nn.AbsOp(x)))))), 1.0)))
    return terms.add(emit(nn.ReluOp(x)), tail)


_PLAIN: Final[Mapping[str, Callable[[Expressions, SSAValue], SSAValue]]] = {
    "sigmoid": lambda terms, x: terms.context.emit(nn.SigmoidOp(x)),
    "tanh": lambda terms, x: terms.context.emit(nn.TanhOp(x)),
    "relu": lambda terms, x: terms.context.emit(nn.ReluOp(x)),
    "softsign": _softsign,
    "softplus": _softplus,
}

_DEFAULTS: Final[Mapping[str, tuple[float | None, float | None]]] = {
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
"""alpha and beta where the node gives none; None: the function has no such parameter."""


def _activations(context: NodeContext, names: Sequence[str]) -> list[Activation]:
    """The functions of those names; parameters are taken in order by those that have some."""
    terms = Expressions(context)
    alphas = iter(context.attr_floats("activation_alpha", []))
    betas = iter(context.attr_floats("activation_beta", []))
    found: list[Activation] = []
    for name in (name.lower() for name in names):
        if name in _PLAIN:
            found.append(partial(_PLAIN[name], terms))
        elif name in _DEFAULTS:
            alpha, beta = _DEFAULTS[name]
            alpha = alpha if alpha is None else next(alphas, alpha)
            beta = beta if beta is None else next(betas, beta)
            found.append(partial(_parameterised, terms, name, alpha or 0.0, beta or 0.0))
        else:
            raise UnsupportedError(f"the activation {name!r}", "one that the ONNX standard names")
    clip = context.attr_float("clip", 0.0)
    return [_clipped(terms, clip, function) for function in found] if clip > 0 else found


def _clipped(terms: Expressions, limit: float, function: Activation) -> Activation:
    return lambda x: function(terms.clip(x, -limit, limit))


@dataclass(frozen=True)
class Direction:
    """One direction of a layer: its weights, and how to step."""

    context: NodeContext
    index: int
    gates: int
    hidden: int
    functions: Sequence[Activation]

    @property
    def terms(self) -> Expressions:
        """Arithmetic at this node."""
        return Expressions(self.context)

    def product(self, x: SSAValue, index: int, first: int = 0, last: int | None = None) -> SSAValue:
        """``x @ w.T`` with the weights of gates ``first`` to ``last`` of input ``index``."""
        rows = slice(first * self.hidden, (self.gates if last is None else last) * self.hidden)
        known = self.context.known(index)
        if known is not None:
            name = f"{'wr'[index - 1]}{self.index}.{rows.start}"
            return self.context.emit(
                nn.LinearOp(x, self.context.param(self.context.derived(name, known[self.index, rows])))
            )
        weight = self.terms.at(self.context.value(index), 0, self.index)
        return self.terms.matmul(x, self.terms.swap(self.terms.part(weight, 0, rows.start, rows.stop)))

    def bias(self, kind: int, first: int = 0, last: int | None = None) -> SSAValue | None:
        """The bias of the input (``kind`` 0) or of the recurrence (1) for some gates."""
        if not self.context.has(3):
            return None
        whole = self.terms.at(self.context.value(3), 0, self.index)
        start = kind * self.gates
        stop = start + (self.gates if last is None else last)
        return self.terms.part(whole, 0, (start + first) * self.hidden, stop * self.hidden)

    def sum(self, *values: SSAValue | None) -> SSAValue:
        """The sum of those that are there."""
        present = [value for value in values if value is not None]
        total = present[0]
        for value in present[1:]:
            total = self.terms.add(total, value)
        return total

    def gate(self, x: SSAValue, index: int) -> SSAValue:
        """Features of gate ``index``."""
        return self.terms.part(x, -1, index * self.hidden, (index + 1) * self.hidden)


Step: TypeAlias = Callable[[Direction, SSAValue, Sequence[SSAValue]], Sequence[SSAValue]]
"""Projected input ``[B, G*H]`` and the states before -> the states after; the first state is the output."""


def _rnn_step(layer: Direction, x: SSAValue, states: Sequence[SSAValue]) -> Sequence[SSAValue]:
    return [layer.functions[0](layer.sum(x, layer.product(states[0], 2), layer.bias(1)))]


def _gru_step(layer: Direction, x: SSAValue, states: Sequence[SSAValue]) -> Sequence[SSAValue]:
    terms, (hidden,) = layer.terms, states
    first, second = layer.functions
    turned = layer.sum(layer.product(hidden, 2, 0, 2), layer.bias(1, 0, 2))
    update = first(terms.add(layer.gate(x, 0), layer.gate(turned, 0)))
    reset = first(terms.add(layer.gate(x, 1), layer.gate(turned, 1)))
    if layer.context.attr_int("linear_before_reset", 0):
        kept = terms.mul(reset, layer.sum(layer.product(hidden, 2, 2, 3), layer.bias(1, 2, 3)))
    else:
        kept = layer.sum(layer.product(terms.mul(reset, hidden), 2, 2, 3), layer.bias(1, 2, 3))
    new = second(terms.add(layer.gate(x, 2), kept))
    return [terms.add(terms.mul(terms.sub(1.0, update), new), terms.mul(update, hidden))]


def _lstm_step(layer: Direction, x: SSAValue, states: Sequence[SSAValue]) -> Sequence[SSAValue]:
    terms, (hidden, cell) = layer.terms, states
    gate_function, input_function, output_function = layer.functions
    total = layer.sum(x, layer.product(hidden, 2), layer.bias(1))
    gates = [layer.gate(total, index) for index in range(4)]  # input, output, forget, cell

    def seen(index: int, place: int, state: SSAValue) -> SSAValue:
        """Gate ``index`` with the peephole of ``place`` on a cell state."""
        if not layer.context.has(7):
            return gates[index]
        peephole = layer.gate(terms.at(layer.context.value(7), 0, layer.index), place)
        return terms.add(gates[index], terms.mul(peephole, state))

    opened = gate_function(seen(0, 0, cell))
    coupled = bool(layer.context.attr_int("input_forget", 0))
    kept = terms.sub(1.0, opened) if coupled else gate_function(seen(2, 2, cell))
    after = terms.add(terms.mul(kept, cell), terms.mul(opened, input_function(gates[3])))
    shown = gate_function(seen(1, 1, after))
    return [terms.mul(shown, output_function(after)), after]


@dataclass(frozen=True)
class Kind:
    """A kind of recurrent layer."""

    gates: int
    functions: tuple[str, ...]
    initial: tuple[int, ...]
    step: Step


def _run(
    layer: Direction, kind: Kind, x: SSAValue, backwards: bool, initial: Sequence[SSAValue], lengths: SSAValue | None
) -> tuple[list[SSAValue], Sequence[SSAValue]]:
    """Outputs ``[B, H]`` of all times in order, and the last states; x is ``[T, B, I]``."""
    terms = layer.terms
    projected = layer.sum(layer.product(x, 1), layer.bias(0))
    steps = unrollable(layer.context.shape_of(x)[0], "a recurrence")
    states = list(initial)
    outputs: dict[int, SSAValue] = {}
    for time in reversed(range(steps)) if backwards else range(steps):
        after = kind.step(layer, terms.at(projected, 0, time), states)
        outputs[time] = after[0]
        if lengths is not None:  # behind its end a sequence keeps its state and gives zeros
            running = terms.compare(lengths, "gt", time)
            outputs[time] = terms.select(running, after[0], 0.0)
            after = [terms.select(running, new, old) for new, old in zip(after, states, strict=True)]
        states = list(after)
    return [outputs[time] for time in range(steps)], states


def _recurrent(kind: Kind) -> Converter:
    def convert(context: NodeContext) -> Converted:
        terms = Expressions(context)
        by_batch = bool(context.attr_int("layout", 0))
        x = context.transpose(context.value(0), (1, 0, 2)) if by_batch else context.value(0)
        batch = context.shape_of(x)[1]
        name = context.attr_str("direction", "forward").lower()
        backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[name]
        hidden = context.shape(2)[2]
        number = len(kind.functions)
        functions = _activations(context, context.attr_strs("activations", kind.functions * len(backwards)))
        lengths: SSAValue | None = None
        if context.has(4):
            lengths = context.reshape(context.cast(context.value(4), i32), (batch, 1))
        outputs: list[list[SSAValue]] = []
        finals: list[Sequence[SSAValue]] = []
        for index, back in enumerate(backwards):
            layer = Direction(context, index, kind.gates, hidden, functions[index * number : (index + 1) * number])
            initial = [_initial(context, place, index, (batch, hidden), x, by_batch) for place in kind.initial]
            found, last = _run(layer, kind, x, back, initial, lengths)
            outputs.append(found)
            finals.append(last)
        axis = 1 if by_batch else 0
        states = [terms.stack([last[state] for last in finals], axis) for state in range(len(kind.initial))]
        directions = [terms.stack(found, axis) for found in outputs]  # [T, B, H], or [B, T, H]
        whole = terms.stack(directions, 2 if by_batch else 1)
        return [whole, *states][: context.outputs]

    return convert


def _initial(
    context: NodeContext, place: int, index: int, shape: tuple[int, int], like: SSAValue, by_batch: bool
) -> SSAValue:
    """The state before the first step: input ``place``, or zeros."""
    if not context.has(place):
        return context.broadcast(context.like(0.0, like), shape)
    return Expressions(context).at(context.value(place), 1 if by_batch else 0, index)


TABLE: Final[Mapping[str, Converter]] = {
    "RNN": _recurrent(Kind(1, ("Tanh",), (5,), _rnn_step)),
    "GRU": _recurrent(Kind(3, ("Sigmoid", "Tanh"), (5,), _gru_step)),
    "LSTM": _recurrent(Kind(4, ("Sigmoid", "Tanh", "Tanh"), (5, 6), _lstm_step)),
}
"""Converters by operator."""
