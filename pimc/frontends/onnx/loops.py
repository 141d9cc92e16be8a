"""``Loop`` and ``Scan`` whose number of steps is known at compile time: their bodies once for every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx
from xdsl.ir import SSAValue

from pimc.frontends.onnx.context import NeedsValue, NodeContext
from pimc.frontends.onnx.elements import Array, element_of_array
from pimc.frontends.onnx.expressions import Expressions
from pimc.frontends.onnx.limits import MAX_STEPS, unrollable
from pimc.frontends.unsupported import UnsupportedError

if TYPE_CHECKING:
    from pimc.frontends.onnx.graph import GraphBuilder

Given: TypeAlias = "SSAValue | Array"
"""A computed value, or one known at import."""


def unrolled(builder: GraphBuilder, node: onnx.NodeProto, opset: int) -> list[Given]:
    """The outputs of a ``Loop`` or ``Scan``."""
    context = NodeContext(builder, node, opset)
    return _scan(context) if node.op_type == "Scan" else _loop(context)


def _input(context: NodeContext, index: int) -> Given:
    known = context.known(index)
    return context.value(index) if known is None else known


def _body(context: NodeContext) -> onnx.GraphProto:
    return next(attribute.g for attribute in context.node.attribute if attribute.name == "body")


def _loop(context: NodeContext) -> list[Given]:
    body = _body(context)
    present = [index for index in (0, 1) if context.has(index)]
    values = dict(zip(present, context.require_all(present, "the trip count or condition of a loop"), strict=True))
    steps = int(values[0].reshape(-1)[0]) if 0 in values else MAX_STEPS + 1
    going = bool(values[1].reshape(-1)[0]) if 1 in values else True
    states = [_input(context, index) for index in range(2, len(context.node.input))]
    collected: list[list[Given]] = [[] for _ in range(len(body.output) - 1 - len(states))]
    step = 0
    fixed = context.has(0) and not context.has(1)  # else a condition may end it early
    budget = context.builder.budget
    before = budget.nodes
    while step < steps and going:
        unrollable(steps if fixed else step + 1, "a loop")
        if step == 1 and fixed:
            budget.check_steps(before, steps)
        given: list[Given] = [np.asarray(step, np.int64), np.asarray(True), *states]
        found = context.builder.inside(context.node, body, given)
        if context.has(1) or not context.has(0):
            if isinstance(found[0], SSAValue):
                sources = (context.builder.depends_on(name) for name in context.node.input if name)
                raise NeedsValue("the condition of a loop", frozenset[str]().union(*sources))
            going = bool(found[0].reshape(-1)[0])
        states = found[1 : 1 + len(states)]
        for column, value in zip(collected, found[1 + len(states) :], strict=True):
            column.append(value)
        step += 1
    return [*states, *(_stacked(context, column, 0) for column in collected)]


def _scan(context: NodeContext) -> list[Given]:
    body, count = _body(context), context.attr_int("num_scan_inputs")
    if context.opset < 9:
        raise UnsupportedError("Scan of opset 8", "a model of opset 9 or later")
    first = len(context.node.input) - count
    states = [_input(context, index) for index in range(first)]
    outputs = len(body.output) - first
    axes = context.attr_ints("scan_input_axes", [0] * count)
    backwards = context.attr_ints("scan_input_directions", [0] * count)
    steps = context.shape(first)[axes[0]]
    if not unrollable(steps, "a scan"):
        raise UnsupportedError("a scan without steps")
    sources = [_input(context, first + index) for index in range(count)]
    collected: list[list[Given]] = [[] for _ in range(outputs)]
    before = context.builder.budget.nodes
    for step in range(steps):
        if step == 1:
            context.builder.budget.check_steps(before, steps)
        places = [steps - 1 - step if back else step for back in backwards]
        parts = [_at(context, *found) for found in zip(sources, axes, places, strict=True)]
        found = context.builder.inside(context.node, body, [*states, *parts])
        states = found[:first]
        for column, value in zip(collected, found[first:], strict=True):
            column.append(value)
    out_axes = context.attr_ints("scan_output_axes", [0] * outputs)
    reversed_ = context.attr_ints("scan_output_directions", [0] * outputs)
    columns = [column[::-1] if back else column for column, back in zip(collected, reversed_, strict=True)]
    return [*states, *(_stacked(context, *pair) for pair in zip(columns, out_axes, strict=True))]


def _at(context: NodeContext, source: Given, axis: int, place: int) -> Given:
    """Element ``place`` along ``axis``."""
    if not isinstance(source, SSAValue):
        taken: Array = np.take(source, place, axis=axis)
        return taken
    return Expressions(context).at(source, axis, place)


def _stacked(context: NodeContext, column: Sequence[Given], axis: int) -> Given:
    """The values of all steps joined along a new axis."""
    if not column:
        raise UnsupportedError("a loop without steps that collects values")
    known = [value for value in column if not isinstance(value, SSAValue)]
    if len(known) == len(column):
        return np.stack(known, axis=axis)
    values = [
        value if isinstance(value, SSAValue) else context.constant(value, element_of_array(value)) for value in column
    ]
    rank = len(context.shape_of(values[0])) + 1
    return Expressions(context).stack(values, axis % rank)
