"""What a converter sees of the ONNX node it converts: operands, attributes, and how to emit operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, helper
from xdsl.dialects.builtin import IntegerType, LocationAttr, TensorType
from xdsl.ir import Attribute, Operation, SSAValue

from pimc.frontends.fx_values import ParamRef
from pimc.frontends.onnx.elements import Array, Element, array_of, element_of_array
from pimc.frontends.onnx.nodes import node_name
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn
from pimc.ir.locations import source_location

if TYPE_CHECKING:
    from pimc.frontends.onnx.graph import GraphBuilder

Converted: TypeAlias = "SSAValue | Sequence[SSAValue | None]"
Converter: TypeAlias = "Callable[[NodeContext], Converted]"
Table: TypeAlias = Mapping[str, "Converter"]


class NeedsValue(UnsupportedError):  # noqa: N818 - a kind of unsupported
    """A shape, an axis or the like is computed from inputs; ``inputs`` are the graph inputs it depends on."""

    def __init__(self, what: str, inputs: frozenset[str]) -> None:
        listed = ", ".join(sorted(inputs))
        super().__init__(f"{what} is not known at compile time", f"give the values of {listed} (--bind NAME=VALUES)")
        self.inputs = inputs


@dataclass(frozen=True)
class NodeContext:
    """One node under conversion."""

    builder: GraphBuilder
    node: onnx.NodeProto
    opset: int

    # -- operands ----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Number of inputs, trailing empty ones left out."""
        names = list(self.node.input)
        while names and not names[-1]:
            names.pop()
        return len(names)

    @property
    def outputs(self) -> int:
        """Number of outputs, trailing empty ones left out."""
        names = list(self.node.output)
        while names and not names[-1]:
            names.pop()
        return len(names)

    def wants(self, index: int) -> bool:
        """Whether output ``index`` is asked for."""
        return index < len(self.node.output) and bool(self.node.output[index])

    def has(self, index: int) -> bool:
        """Whether input ``index`` is there."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def value(self, index: int) -> SSAValue:
        """Input ``index`` as a value; one known at import becomes a constant or a weight."""
        if not self.has(index):
            raise UnsupportedError(f"input {index} is missing")
        return self.builder.value(self.node.input[index], self.location)

    def values(self) -> list[SSAValue]:
        """All inputs as values."""
        return [self.value(index) for index in range(self.count)]

    def known(self, index: int) -> Array | None:
        """The values of input ``index`` if they are known at import."""
        return self.builder.known(self.node.input[index]) if self.has(index) else None

    def require(self, index: int, what: str) -> Array:
        """The values of input ``index``, which the conversion depends on; NeedsValue names what they follow from."""
        if not self.has(index):
            raise UnsupportedError(f"{what} is missing")
        found = self.known(index)
        if found is None:
            raise NeedsValue(what, self.builder.depends_on(self.node.input[index]))
        return found

    def require_all(self, indices: Sequence[int], what: str) -> list[Array]:
        """The values of several inputs; NeedsValue names what all those that are not known follow from."""
        unknown = [index for index in indices if self.has(index) and self.known(index) is None]
        if unknown:
            sources = (self.builder.depends_on(self.node.input[index]) for index in unknown)
            raise NeedsValue(what, frozenset[str]().union(*sources))
        return [self.require(index, what) for index in indices]

    def ints(self, index: int, what: str) -> list[int]:
        """The integers of input ``index`` (of any shape), known at import."""
        return [int(number) for number in self.require(index, what).reshape(-1)]

    def type(self, value: SSAValue) -> TensorType[Attribute]:
        """The type of a value."""
        return nn.tensor_of(value)

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of input ``index``, which need not become a value for that."""
        found = self.known(index)
        return found.shape if found is not None else self.shape_of(self.value(index))

    def shape_of(self, value: SSAValue) -> tuple[int, ...]:
        """The shape of a value."""
        return nn.tensor_of(value).get_shape()

    def element(self, index: int) -> Attribute:
        """The element type of input ``index``."""
        found = self.known(index)
        return element_of_array(found) if found is not None else self.element_of(self.value(index))

    def element_of(self, value: SSAValue) -> Attribute:
        """The element type of a value."""
        return nn.tensor_of(value).element_type

    def is_float(self, index: int) -> bool:
        """Whether input ``index`` holds floats."""
        return not isinstance(self.element(index), IntegerType)

    def linear_weight(self, index: int) -> ParamRef | None:
        """Input ``index`` as a weight, if it is a matrix of floats known at import."""
        found = self.known(index)
        if found is None or found.ndim != 2 or found.dtype.kind in "iub":
            return None
        return self.builder.weight(self.node.input[index], found)

    def param(self, weight: ParamRef) -> SSAValue:
        """The operation that brings in a weight."""
        return self.emit(self.builder.param(weight))

    def derived(self, suffix: str, array: Array) -> ParamRef:
        """A new weight made from known values: its name is the node's and ``suffix``."""
        return self.builder.weight(f"{node_name(self.node)}.{suffix}", array)

    # -- attributes --------------------------------------------------------------------------------------------

    def has_attr(self, name: str) -> bool:
        """Whether the node has the attribute."""
        return any(attribute.name == name for attribute in self.node.attribute)

    def _attr(self, name: str) -> object:
        found = next((attribute for attribute in self.node.attribute if attribute.name == name), None)
        if found is None:
            return None
        if found.type == AttributeProto.TENSOR:
            return array_of(found.t)
        return helper.get_attribute_value(found)

    def attr_int(self, name: str, default: int | None = None) -> int:
        """An integer attribute; UnsupportedError if it is missing and has no default."""
        value = self._given(name, default)
        if not isinstance(value, int):
            raise UnsupportedError(f"attribute {name} is no integer")
        return value

    def attr_float(self, name: str, default: float | None = None) -> float:
        """A float attribute."""
        value = self._given(name, default)
        if not isinstance(value, float | int):
            raise UnsupportedError(f"attribute {name} is no number")
        return float(value)

    def attr_str(self, name: str, default: str | None = None) -> str:
        """A string attribute."""
        value = self._given(name, default)
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def attr_ints(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """A list of integers."""
        value = self._given(name, default)
        if not isinstance(value, Sequence):
            raise UnsupportedError(f"attribute {name} is no list")
        return [int(number) for number in value]

    def attr_floats(self, name: str, default: Sequence[float] | None = None) -> list[float]:
        """A list of floats."""
        value = self._given(name, default)
        if not isinstance(value, Sequence):
            raise UnsupportedError(f"attribute {name} is no list")
        return [float(number) for number in value]

    def attr_strs(self, name: str, default: Sequence[str] | None = None) -> list[str]:
        """A list of strings."""
        value = self._given(name, default)
        if not isinstance(value, Sequence):
            raise UnsupportedError(f"attribute {name} is no list")
        return [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in value]

    def attr_tensor(self, name: str) -> Array:
        """A tensor attribute."""
        value = self._attr(name)
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"attribute {name} is no tensor")
        return value

    def _given(self, name: str, default: object) -> object:
        value = self._attr(name)
        if value is None:
            value = default
        if value is None:
            raise UnsupportedError(f"attribute {name} is missing")
        return value

    # -- operations --------------------------------------------------------------------------------------------

    @property
    def location(self) -> LocationAttr:
        """The node's name as a location."""
        return source_location(self.builder.scope + node_name(self.node))

    def emit(self, op: Operation) -> SSAValue:
        """Append an operation at this node's location; its first result."""
        return self.emit_all(op)[0]

    def emit_all(self, op: Operation) -> tuple[SSAValue, ...]:
        """Append an operation at this node's location; its results."""
        self.builder.add(op, self.location)
        return tuple(op.results)

    def constant(self, value: npt.ArrayLike, element: Element | Attribute) -> SSAValue:
        """A constant: a number or an array."""
        return self.emit(nn.ConstantOp.from_array(np.asarray(value), element))  # type: ignore[arg-type]

    def like(self, number: float, value: SSAValue) -> SSAValue:
        """A scalar constant of the element type of ``value``."""
        return self.constant(number, self.element_of(value))

    def cast(self, value: SSAValue, element: Attribute) -> SSAValue:
        """``value`` with another element type, if it has not that one."""
        return value if self.element_of(value) == element else self.emit(nn.CastOp(value, element))

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """``value`` in another shape, if it has not that one."""
        return value if self.shape_of(value) == tuple(shape) else self.emit(nn.ReshapeOp(value, shape))

    def transpose(self, value: SSAValue, order: Sequence[int]) -> SSAValue:
        """``value`` with dimension ``order[i]`` at place i."""
        return value if list(order) == sorted(order) else self.emit(nn.TransposeOp(value, order))

    def broadcast(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """``value`` repeated to ``shape`` by numpy's rules."""
        have = self.shape_of(value)
        if have == tuple(shape):
            return value
        padded = self.reshape(value, (*(1,) * (len(shape) - len(have)), *have))
        return padded if self.shape_of(padded) == tuple(shape) else self.emit(nn.BroadcastToOp(padded, shape))

    def slice(
        self, value: SSAValue, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None
    ) -> SSAValue:
        """``value[starts:stops:steps]`` in every dimension (`nn.slice`); the whole is the value itself."""
        whole = list(starts) == [0] * len(starts) and tuple(stops) == self.shape_of(value)
        if whole and (steps is None or set(steps) <= {1}):
            return value
        return self.emit(nn.SliceOp(value, starts, stops, steps))

    def cut(self, value: SSAValue, axis: int, start: int, stop: int, step: int = 1) -> SSAValue:
        """``value[..., start:stop:step, ...]`` along one axis."""
        shape = self.shape_of(value)
        axis %= len(shape)
        starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
        starts[axis], stops[axis], steps[axis] = start, stop, step
        return self.slice(value, starts, stops, steps)

    def concat(self, values: Sequence[SSAValue], axis: int) -> SSAValue:
        """``values`` joined along ``axis``; a single one as it is."""
        rank = len(self.shape_of(values[0]))
        return values[0] if len(values) == 1 else self.emit(nn.ConcatOp(values, axis % rank))

    def iota(self, shape: Sequence[int], axis: int, element: Attribute) -> SSAValue:
        """``[..., i, ...] = i`` along ``axis``."""
        return self.emit(nn.IotaOp(TensorType(element, shape), axis))
