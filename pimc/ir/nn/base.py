"""What all `nn` operators share: result type inference, verification, and their cost.

An operator class states its operands and attributes by IRDL and two functions of its own: `infer_types`, from
which both the constructor and the verifier get the result types, and `cost`.  The verifier reports by name
and shape, so that a frontend author sees which operand is wrong.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy.typing as npt
from typing_extensions import override
from xdsl.dialects.builtin import (
    BFloat16Type,
    DenseArrayBase,
    Float16Type,
    Float32Type,
    Float64Type,
    IndexType,
    IntegerAttr,
    IntegerType,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import layout_of, with_layout
from pimc.ir.nn.layouts import result_layouts
from pimc.ir.nn.space import Space

Array: TypeAlias = npt.NDArray[Any]
Shape: TypeAlias = tuple[int, ...]
Tensor: TypeAlias = TensorType[Attribute]
Value: TypeAlias = SSAValue | Operation
OpClass: TypeAlias = Literal["gemm", "gemv", "nonlinear", "layout", "memory"]

IntegerAttrI64 = IntegerAttr.constr(IntegerType(64))
"""Constraint of an i64 attribute."""

_FLOATS = (Float16Type, Float32Type, Float64Type, BFloat16Type)


@dataclass(frozen=True)
class Cost:
    """What an operator does: floating point operations, and bytes of its operands and results (each counted
    once).
    """

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in flops a byte; 0 where nothing is moved."""
        return self.flops / self.bytes if self.bytes else 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


def tensor_of(value: Value, what: str = "operand") -> Tensor:
    """The ranked, statically shaped tensor type of ``value``; VerifyException names ``what`` otherwise."""
    if isinstance(value, Operation):
        value = SSAValue.get(value)
    return as_tensor(value.type, what)


def as_tensor(type_: Attribute, what: str) -> Tensor:
    """``type_`` as a ranked, statically shaped tensor; VerifyException names ``what`` otherwise."""
    if not isinstance(type_, TensorType):
        raise VerifyException(f"{what} must be a tensor, is {type_}")
    if any(dim < 0 for dim in type_.get_shape()):
        raise VerifyException(f"{what} must have a static shape, is {type_}")
    return type_


def plain(type_: Attribute) -> Attribute:
    """A type without its layout."""
    return TensorType(type_.element_type, type_.get_shape()) if isinstance(type_, TensorType) else type_


def element_bytes(element: Attribute) -> int:
    """Bytes of one element in memory (i1 is a byte; an index is 8)."""
    if isinstance(element, IntegerType):
        width: int = element.width.data
        return max(1, width // 8)
    if isinstance(element, Float16Type | BFloat16Type):
        return 2
    if isinstance(element, Float32Type):
        return 4
    if isinstance(element, Float64Type | IndexType):
        return 8
    raise VerifyException(f"element type {element} has no size in memory")


def shape_of(value: Value) -> Shape:
    """The sizes of a tensor."""
    return tensor_of(value).get_shape()


def elements(type_: Tensor) -> int:
    """Number of elements of a tensor type."""
    count = 1
    for dim in type_.get_shape():
        count *= dim
    return count


def tensor_bytes(type_: Attribute) -> int:
    """Bytes of a tensor; 0 for a value that is not a tensor (an index)."""
    if not isinstance(type_, TensorType):
        return 0
    return elements(type_) * element_bytes(type_.element_type)


def is_float(element: Attribute) -> bool:
    """Whether ``element`` is a floating point type."""
    return isinstance(element, _FLOATS)


def is_integer(element: Attribute) -> bool:
    """Whether ``element`` is an integer or index type."""
    return isinstance(element, IntegerType | IndexType)


def check(condition: bool, message: str) -> None:
    """Raise VerifyException with ``message`` unless ``condition``."""
    if not condition:
        raise VerifyException(message)


def check_shape(type_: Tensor, expected: Sequence[int | None], what: str) -> None:
    """``type_`` has the expected shape; ``None`` stands for any size."""
    shape = type_.get_shape()
    fits = len(shape) == len(expected) and all(
        want is None or have == want for have, want in zip(shape, expected, strict=True)
    )
    if not fits:
        wanted = "x".join("?" if dim is None else str(dim) for dim in expected)
        raise VerifyException(f"{what} must have shape {wanted}, is {format_shape(shape)}")


def format_shape(shape: Sequence[int]) -> str:
    """``1x4x576``; ``scalar`` for rank 0."""
    return "x".join(str(dim) for dim in shape) or "scalar"


def check_float(type_: Tensor, what: str) -> None:
    """``type_`` holds floating point numbers."""
    check(is_float(type_.element_type), f"{what} must hold floats, holds {type_.element_type}")


def check_ids(type_: Tensor, what: str) -> None:
    """``type_`` holds integers (token ids, positions, indices)."""
    check(is_integer(type_.element_type), f"{what} must hold integers, holds {type_.element_type}")


def check_same_element(first: Tensor, second: Tensor, what: str) -> None:
    """Both types have one element type."""
    check(
        first.element_type == second.element_type,
        f"{what}: element types differ, {first.element_type} and {second.element_type}",
    )


def check_position(type_: Tensor, what: str = "position") -> None:
    """A position is one integer: ``tensor<1xi32>``."""
    check_shape(type_, (1,), what)
    check_ids(type_, what)


def axis_index(axis: int, rank: int, what: str = "axis") -> int:
    """``axis`` counted from the front; VerifyException if it is not an axis of a tensor of that rank."""
    check(-rank <= axis < rank, f"{what} {axis} is out of range for rank {rank}")
    return axis % rank


def broadcast_shapes(shapes: Sequence[Shape]) -> Shape:
    """The numpy broadcast of ``shapes``; VerifyException where they do not fit."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = [1] * rank
    for shape in shapes:
        for index, dim in enumerate(shape, start=rank - len(shape)):
            if dim != 1 and result[index] not in (1, dim):
                raise VerifyException(f"shapes do not broadcast: {', '.join(map(format_shape, shapes))}")
            result[index] = dim if dim != 1 else result[index]
    return tuple(result)


def integer(value: int) -> IntegerAttr[IntegerType]:
    """An i64 attribute."""
    return IntegerAttr(value, i64)


def integers(values: Sequence[int]) -> DenseArrayBase[IntegerType]:
    """An ``array<i64: ...>`` attribute."""
    return DenseArrayBase.from_list(i64, list(values))


def values_of(attribute: DenseArrayBase[IntegerType]) -> tuple[int, ...]:
    """The numbers of an ``array<i64: ...>`` attribute."""
    return tuple(int(value) for value in attribute.get_values())


class NnOp(IRDLOperation, ABC):
    """Base of the `nn` operators.

    ``CLASS`` is the class the annotate pass writes (`gemm` becomes `gemv` where one token is computed).
    """

    CLASS: ClassVar[OpClass] = "nonlinear"

    @abstractmethod
    def infer_types(self) -> Sequence[Attribute]:
        """Result types from operands and attributes; layouts do not count.  VerifyException where those do not fit."""

    @abstractmethod
    def space(self) -> Space:
        """How the results depend on the operands; cuts, tiles and costs follow from it."""

    def on_parts(self, parts: Mapping[str, range]) -> dict[str, Attribute]:
        """The properties of the operator on the parts of its operands that give these indices of its space."""
        return dict(self.properties)

    def cost(self, context: int | None = None) -> Cost:
        """Flops and bytes; ``context`` is the number of cached positions attended to (default: all)."""
        moved = sum(tensor_bytes(value.type) for value in (*self.operands, *self.results))
        return Cost(self.flops_of(), moved)

    def flops_of(self) -> int:
        """Floating point operations; 0 for operators that only move data."""
        return self.space().flops()

    def op_class(self) -> OpClass:
        """The class for placement."""
        return self.CLASS

    def types_with_layouts(self) -> list[Attribute]:
        """Result types with the layouts that follow from those of the operands (see :mod:`pimc.ir.nn.layouts`).

        Raises VerifyException where the operator cannot work on operands that are cut so.
        """
        types = [plain(type_) for type_ in self.infer_types()]
        operands = [value.type for value in self.operands]
        if all(layout_of(type_) is None for type_ in operands):
            return types
        layouts = result_layouts(self.space(), operands, self.name)
        return [
            with_layout(type_, layout) if isinstance(type_, TensorType) else type_
            for type_, layout in zip(types, layouts, strict=True)
        ]

    @override
    def verify_(self) -> None:
        for index, (have, want) in enumerate(zip(self.result_types, self.types_with_layouts(), strict=True)):
            if have != want:
                raise VerifyException(f"{self.name}: result {index} must have type {want}, has {have}")


def construct(
    op: NnOp,
    operands: Sequence[Value | Sequence[Value]],
    properties: Mapping[str, Attribute | None] | None = None,
    result_types: Sequence[Attribute] | None = None,
) -> None:
    """Initialise ``op``; result types are inferred, or checked if they are given.

    Inference reads operands and attributes from the op itself, so it is first built without results.
    """
    if result_types is None:
        result_types = _inferred(type(op), _flat(operands), _present(properties))
    else:
        result_types = _checked(type(op), _flat(operands), _present(properties), result_types)
    IRDLOperation.__init__(op, operands=operands, result_types=[*result_types], properties=properties)


def _checked(
    op_type: type[NnOp], operands: Sequence[SSAValue], properties: Mapping[str, Attribute], types: Sequence[Attribute]
) -> Sequence[Attribute]:
    """Result types that fit, with the layouts that follow from the operands."""
    probe = op_type.create(operands=operands, properties=properties, result_types=types)
    try:
        probe.infer_types()
        return types if all(layout_of(value.type) is None for value in operands) else probe.types_with_layouts()
    finally:
        probe.drop_all_references()


def _inferred(
    op_type: type[NnOp], operands: Sequence[SSAValue], properties: Mapping[str, Attribute]
) -> Sequence[Attribute]:
    """Result types of an operator on operands; with layouts, where those have some."""
    probe = op_type.create(operands=operands, properties=properties)
    try:
        types = probe.infer_types()
    finally:
        probe.drop_all_references()
    if all(layout_of(operand.type) is None for operand in operands):
        return types
    probe = op_type.create(operands=operands, properties=properties, result_types=[plain(type_) for type_ in types])
    try:
        return probe.types_with_layouts()
    finally:
        probe.drop_all_references()


def _flat(operands: Sequence[Value | Sequence[Value]]) -> list[SSAValue]:
    flat: list[SSAValue] = []
    for operand in operands:
        group = [operand] if isinstance(operand, SSAValue | Operation) else operand
        flat.extend(SSAValue.get(value) for value in group)
    return flat


def _present(properties: Mapping[str, Attribute | None] | None) -> dict[str, Attribute]:
    return {name: value for name, value in (properties or {}).items() if value is not None}


def cost(op: Operation, context: int | None = None) -> Cost:
    """Cost of ``op``; nothing for an operation that is no `nn` operator."""
    return op.cost(context) if isinstance(op, NnOp) else Cost(0, 0)


def flops(op: Operation, context: int | None = None) -> int:
    """Floating point operations of ``op``."""
    return cost(op, context).flops


def bytes_moved(op: Operation, context: int | None = None) -> int:
    """Bytes read and written by ``op``, each operand and result once."""
    return cost(op, context).bytes


def op_class(op: Operation) -> OpClass | None:
    """The placement class of an `nn` operator; None for any other operation."""
    return op.op_class() if isinstance(op, NnOp) else None
