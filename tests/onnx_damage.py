"""Damage to ONNX models: attributes, shapes, types, operands, operators, and numbers in their tensors."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import onnx
from conformance.onnx_cases import OnnxCase
from onnx import AttributeProto, numpy_helper

NUMBERS = (-(1 << 63), -1_000_000, -7, -1, 0, 1, 2, 5, 100, 1 << 20, 1 << 40, (1 << 63) - 1)

Damage: TypeAlias = Callable[[onnx.ModelProto, random.Random], None]


def attribute_value(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    for attribute in rng.sample(list(node.attribute), min(1, len(node.attribute))):
        if attribute.type == AttributeProto.INT:
            attribute.i = rng.choice(NUMBERS)
        elif attribute.type == AttributeProto.INTS and attribute.ints:
            attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
        elif attribute.type == AttributeProto.FLOAT:
            attribute.f = rng.choice((0.0, -1.0, 1e38, float("nan")))
        elif attribute.type == AttributeProto.STRING:
            attribute.s = rng.choice((b"", b"x", b"\xff"))


def no_attribute(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    if node.attribute:
        del node.attribute[rng.randrange(len(node.attribute))]


def input_shape(model: onnx.ModelProto, rng: random.Random) -> None:
    dims = rng.choice(model.graph.input).type.tensor_type.shape.dim
    (rng.choice(dims) if dims else dims.add()).dim_value = rng.choice(NUMBERS)


def element_type(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(model.graph.input).type.tensor_type.elem_type = rng.randrange(30)


def other_operand(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    if node.input:
        names = [*(value.name for value in model.graph.input), "", "undefined"]
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def no_operand(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(model.graph.node)
    if node.input:
        del node.input[-1]


def other_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(model.graph.node).op_type = rng.choice(
        ("Add", "Split", "Loop", "Reshape", "Resize", "LSTM", "Attention")
    )


DAMAGES: tuple[Damage, ...] = (
    attribute_value, no_attribute, input_shape, element_type, other_operand, no_operand, other_operator,
)  # fmt: skip


def store_inputs(model: onnx.ModelProto, case: OnnxCase, rng: random.Random) -> None:
    """The case's inputs behind the first become the model's own tensors, some with another number in it."""
    for name, array in list(case.arrays[0].items())[1:]:
        values = array.copy()
        if values.dtype.kind == "i" and values.dtype.itemsize == 8 and values.size and rng.random() < 0.4:
            values.flat[rng.randrange(values.size)] = rng.choice(NUMBERS)
        model.graph.initializer.append(numpy_helper.from_array(values, name))


def dense(case: OnnxCase) -> bool:
    return all(hasattr(array, "dtype") and array.dtype.kind in "iufb" for array in case.arrays[0].values())
