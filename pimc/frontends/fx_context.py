"""What a converter sees of the node it converts: arguments by name, and how to emit operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.arith import ConstantOp as IndexConstantOp
from xdsl.dialects.builtin import (
    Float32Type,
    IndexType,
    IntegerAttr,
    IntegerType,
    LocationAttr,
    TensorType,
    f32,
    i32,
)
from xdsl.ir import Attribute, Operation, SSAValue

from pimc.frontends.fx_values import (
    CacheRef,
    Element,
    Meaning,
    ParamRef,
    arguments_of,
    module_path,
    result_type,
    static_shape,
    tensor_type,
)
from pimc.frontends.tabulate import Column
from pimc.frontends.unsupported import UnsupportedError
from pimc.ir import nn
from pimc.ir.interpreter.core import dense_values
from pimc.ir.locations import source_location
from pimc.ir.weights import WeightArray

if TYPE_CHECKING:
    import torch

    from pimc.frontends.graph import GraphImporter

_INT32: Final = np.iinfo(np.int32)


@dataclass(frozen=True)
class NodeContext:
    """One node under conversion: its arguments, and how to emit operations at its location."""

    importer: GraphImporter
    node: torch.fx.Node

    @property
    def path(self) -> str:
        """The path of the module that the node came from."""
        return module_path(self.node, self.importer.prefix)

    @property
    def location(self) -> LocationAttr:
        """The module path as a location."""
        return source_location(self.path)

    @property
    def arguments(self) -> dict[str, object]:
        """Arguments by schema name."""
        return arguments_of(self.node)

    @property
    def type(self) -> TensorType[Attribute]:
        """Type of the result."""
        return result_type(self.node)

    @property
    def types(self) -> list[TensorType[Attribute]]:
        """Types of the results of a node that has several."""
        return [tensor_type(value) for value in self.node.meta["val"]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.type.get_shape()

    def emit(self, op: Operation) -> SSAValue:
        """Append an operation at this node's location; its first result."""
        return self.importer.emit(op, self.location)

    def emit_all(self, op: Operation) -> tuple[SSAValue, ...]:
        """Append an operation at this node's location; its results."""
        self.importer.emit(op, self.location)
        return tuple(op.results)

    def meaning(self, argument: object) -> Meaning:
        """What an argument that is a node stands for."""
        found = self.importer.meaning(argument)
        if found is None:
            raise UnsupportedError(f"argument {argument!r} is no tensor")
        return found

    def value(self, argument: object) -> SSAValue:
        """A tensor argument as a value; weights and caches are brought in by an operation here."""
        found = self.meaning(argument)
        if isinstance(found, ParamRef):
            return self.param(found)
        if isinstance(found, CacheRef):
            return self.read_cache(found, argument)
        if not isinstance(found, SSAValue):
            raise UnsupportedError("a list of tensors where one is wanted")
        return found

    def values(self, argument: object, element: Attribute) -> list[SSAValue]:
        """A list of tensors (``torch.cat``) as values of one element type."""
        if not isinstance(argument, Sequence):
            raise UnsupportedError("one tensor where a list is wanted")
        return [self.operand(item, element) for item in argument]

    def param(self, found: ParamRef) -> SSAValue:
        """The operation that brings in a weight."""
        return self.emit(nn.ParamOp(found.name, TensorType(f32, found.shape)))

    def known(self, argument: object) -> npt.NDArray[np.generic] | None:
        """The values of an argument that no input changes: a weight, or what is computed at import; else None."""
        importer = self.importer
        if argument in importer.folder.foldable:
            array: npt.NDArray[np.generic] = importer.folder.value(argument).numpy()
            return array
        found = importer.meaning(argument)
        if isinstance(found, ParamRef) and importer.weights.has_values(found.name):
            return np.asarray(importer.weights[found.name], dtype=np.float32)
        if isinstance(found, SSAValue) and isinstance(found.owner, nn.ConstantOp):
            return dense_values(found.owner.value)
        return None

    def derived(self, suffix: str, value: WeightArray) -> ParamRef:
        """A new weight, made of others at import: its name is the module's path and ``suffix``."""
        weights = self.importer.weights
        name = f"{self.path}.{suffix}"
        number = 0
        while name in weights:
            number += 1
            name = f"{self.path}.{suffix}_{number}"
        weights.add(name, value)
        return ParamRef(name, value.shape)

    def read_cache(self, found: CacheRef, buffer: object) -> SSAValue:
        """The cache of a layer as ``[1, Hkv, S, D]``."""
        _, heads, slots, size = static_shape(buffer.meta["val"].shape)  # type: ignore[attr-defined]
        type_ = TensorType(f32, (1, slots, heads, size))
        read = self.emit(nn.CacheReadOp(found.symbol, self.index(found.layer), type_))
        return self.emit(nn.TransposeOp(read, (0, 2, 1, 3)))

    def index(self, value: int) -> SSAValue:
        """An index constant."""
        return self.emit(IndexConstantOp(IntegerAttr(value, IndexType())))

    def constant(self, value: npt.ArrayLike, element: Attribute) -> SSAValue:
        """A constant: a number, or an array of them."""
        if not isinstance(element, Float32Type | IntegerType):
            raise UnsupportedError(f"a constant of type {element}")
        array = np.asarray(value)
        if element == i32 and array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
            raise UnsupportedError("an integer constant beyond 32 bits")
        return self.emit(nn.ConstantOp.from_array(array, element))

    def empty(self) -> SSAValue:
        """A tensor without elements in the shape of the result."""
        return self.broadcast(self.constant(0, self.type.element_type), self.shape)

    def number(self, argument: object, name: str) -> float:
        """A Python number; UnsupportedError names the argument otherwise."""
        if isinstance(argument, bool | int | float):
            return argument
        raise UnsupportedError(f"{name} that is no constant")

    def cast(self, value: SSAValue, element: Element | Attribute) -> SSAValue:
        """``value`` with another element type, if it has not that one."""
        type_ = nn.tensor_of(value)
        return value if type_.element_type == element else self.emit(nn.CastOp(value, element))

    def operand(self, argument: object, element: Attribute) -> SSAValue:
        """A tensor or Python number as a value of the given element type."""
        if isinstance(argument, bool | int | float):
            return self.constant(argument, element)
        return self.cast(self.value(argument), element)

    def reshape(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """``value`` in another shape, if it has not that one."""
        return value if nn.tensor_of(value).get_shape() == tuple(shape) else self.emit(nn.ReshapeOp(value, shape))

    def transpose(self, value: SSAValue, order: Sequence[int]) -> SSAValue:
        """``value`` with dimension ``order[i]`` at place i."""
        return value if list(order) == sorted(order) else self.emit(nn.TransposeOp(value, order))

    def broadcast(self, value: SSAValue, shape: Sequence[int]) -> SSAValue:
        """``value`` repeated to ``shape`` by numpy's rules."""
        have = nn.tensor_of(value).get_shape()
        if have == tuple(shape):
            return value
        padded = self.reshape(value, (*(1,) * (len(shape) - len(have)), *have))
        return (
            padded if nn.tensor_of(padded).get_shape() == tuple(shape) else self.emit(nn.BroadcastToOp(padded, shape))
        )

    def cut(self, value: SSAValue, dim: int, start: int, stop: int, step: int = 1) -> SSAValue:
        """``value[..., start:stop:step, ...]`` along ``dim``; the whole is the value itself."""
        shape = nn.tensor_of(value).get_shape()
        if (start, stop, step) == (0, shape[dim], 1):
            return value
        starts, stops, steps = [0] * len(shape), list(shape), [1] * len(shape)
        starts[dim], stops[dim], steps[dim] = start, stop, step
        return self.emit(nn.SliceOp(value, starts, stops, steps))

    def concat(self, values: Sequence[SSAValue], axis: int) -> SSAValue:
        """``values`` joined along ``axis``; a single one as it is."""
        return values[0] if len(values) == 1 else self.emit(nn.ConcatOp(values, axis))

    def iota(self, shape: Sequence[int], axis: int = 0) -> SSAValue:
        """``[..., i, ...] = i`` along ``axis``, i32."""
        return self.emit(nn.IotaOp(TensorType(i32, shape), axis))

    def tabulated(self, column: Column) -> SSAValue:
        """Rows of a position table for this call's positions, in the shape of the node."""
        importer = self.importer
        rows = importer.weights.shape(column.table)[0]
        table = self.emit(nn.ParamOp(column.table, TensorType(f32, (rows, column.width))))
        position = next(arg for arg in importer.block.args if arg.name_hint == "position")
        count = int(np.prod(self.shape[:-1]))
        positions = self.reshape(self.emit(nn.AddOp(position, self.iota((count,)))), (1, count))
        found = self.emit(nn.EmbeddingOp(table, positions))
        part = nn.SliceOp(found, (0, 0, column.start), (1, count, column.stop))
        return self.reshape(self.emit(part), self.shape)
