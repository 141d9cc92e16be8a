"""Reductions, and operators that only move data: reshape, transpose, slice, concat, broadcast."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import (
    BoolAttr,
    DenseArrayBase,
    Float64Type,
    FloatAttr,
    IntegerType,
    StringAttr,
    TensorType,
    f64,
)
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def, var_operand_def
from xdsl.traits import Pure

from pimc.ir.nn.base import (
    IntegerAttrI64,
    NnOp,
    OpClass,
    Shape,
    Value,
    axis_index,
    broadcast_shapes,
    check,
    check_same_element,
    construct,
    elements,
    format_shape,
    integer,
    integers,
    shape_of,
    tensor_of,
    values_of,
)
from pimc.ir.nn.space import Access, Dim, Index, Space, Work, access, at, dims_of, pointwise, reshaped

IntegersAttr = DenseArrayBase.constr(IntegerType(64))
"""Constraint of an ``array<i64: ...>`` attribute."""


class ReduceOp(NnOp, ABC):
    """Reduction over ``axes``; with ``keepdims`` they stay as size 1."""

    COMBINE: ClassVar[str]
    """How results of parts combine."""

    x = operand_def(TensorType)
    axes = prop_def(IntegersAttr)
    keepdims = prop_def(BoolAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, axes: Sequence[int], keepdims: bool = False) -> None:
        construct(self, [x], {"axes": integers(axes), "keepdims": BoolAttr.from_bool(keepdims)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, f"{self.name} x")
        shape = x.get_shape()
        axes = {axis_index(axis, len(shape), f"{self.name} axis") for axis in values_of(self.axes)}
        check(len(axes) == len(values_of(self.axes)), f"{self.name}: an axis is named twice")
        keep = bool(self.keepdims.value.data)
        reduced = [1 if index in axes else dim for index, dim in enumerate(shape) if keep or index not in axes]
        return [TensorType(x.element_type, reduced)]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        axes = {axis_index(axis, len(shape)) for axis in values_of(self.axes)}
        dims = tuple(
            replace(dim, kind="reduced", combine=self.COMBINE) if place in axes else dim
            for place, dim in enumerate(dims_of(shape))
        )
        kept = bool(self.keepdims.value.data)
        names = [0 if place in axes else dim.name for place, dim in enumerate(dims) if kept or place not in axes]
        return Space(dims, (access(shape, dims),), (Access(shape_of(self.result), at(*names)),), (Work(1),))


@irdl_op_definition
class ReduceSumOp(ReduceOp):
    """Sum over ``axes``."""

    name = "nn.reduce_sum"
    COMBINE: ClassVar[str] = "sum"


@irdl_op_definition
class ReduceMeanOp(ReduceOp):
    """Arithmetic mean over ``axes``."""

    name = "nn.reduce_mean"
    COMBINE: ClassVar[str] = "mean"


@irdl_op_definition
class ReduceMaxOp(ReduceOp):
    """Maximum over ``axes``."""

    name = "nn.reduce_max"
    COMBINE: ClassVar[str] = "max"


@irdl_op_definition
class ReduceMinOp(ReduceOp):
    """Minimum over ``axes``."""

    name = "nn.reduce_min"
    COMBINE: ClassVar[str] = "min"


@irdl_op_definition
class ReduceProdOp(ReduceOp):
    """Product over ``axes``."""

    name = "nn.reduce_prod"
    COMBINE: ClassVar[str] = "prod"


@irdl_op_definition
class ReshapeOp(NnOp):
    """The same elements in row-major order with another shape (that of the result type)."""

    name = "nn.reshape"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, shape: Sequence[int]) -> None:
        construct(self, [x], {}, [TensorType(tensor_of(x, "nn.reshape x").element_type, shape)])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, result = tensor_of(self.x, "nn.reshape x"), tensor_of(self.result, "nn.reshape result")
        check(
            elements(x) == elements(result),
            f"nn.reshape: {x} and {result} differ in elements",
        )
        return [TensorType(x.element_type, result.get_shape())]

    @override
    def space(self) -> Space:
        return reshaped(shape_of(self.x), shape_of(self.result))


@irdl_op_definition
class TransposeOp(NnOp):
    """Reordered dimensions: dimension i of the result is dimension ``permutation[i]`` of x."""

    name = "nn.transpose"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    permutation = prop_def(IntegersAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, permutation: Sequence[int]) -> None:
        construct(self, [x], {"permutation": integers(permutation)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, "nn.transpose x")
        order = values_of(self.permutation)
        shape = x.get_shape()
        check(
            sorted(order) == list(range(len(shape))),
            f"nn.transpose: {list(order)} is no permutation of {len(shape)} dimensions",
        )
        return [TensorType(x.element_type, [shape[axis] for axis in order])]

    @override
    def space(self) -> Space:
        dims = dims_of(shape_of(self.x))
        moved = [dims[axis] for axis in values_of(self.permutation)]
        return Space(dims, (access(shape_of(self.x), dims),), (access(shape_of(self.result), moved),))


@irdl_op_definition
class SliceOp(NnOp):
    """Elements ``start, start + step, ...`` before ``stop`` in every dimension.

    Bounds are within the shape and never counted from the end: with a negative step ``stop`` is the index behind the
    last element taken, -1 where that is element 0.
    """

    name = "nn.slice"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    starts = prop_def(IntegersAttr)
    stops = prop_def(IntegersAttr)
    steps = prop_def(IntegersAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(
        self, x: Value, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None
    ) -> None:
        steps = [1] * len(starts) if steps is None else steps
        construct(self, [x], {"starts": integers(starts), "stops": integers(stops), "steps": integers(steps)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, "nn.slice x")
        shape = x.get_shape()
        bounds = [values_of(self.starts), values_of(self.stops), values_of(self.steps)]
        check(
            all(len(bound) == len(shape) for bound in bounds),
            f"nn.slice: starts, stops and steps must have {len(shape)} numbers",
        )
        result: list[int] = []
        for dim, (size, start, stop, step) in enumerate(zip(shape, *bounds, strict=True)):
            forward = 0 <= start <= stop <= size and step >= 1
            backward = -1 <= stop <= start <= size - 1 and step <= -1
            check(
                forward or backward,
                f"nn.slice: {start}:{stop}:{step} is no slice of dimension {dim} with {size} elements",
            )
            result.append(len(range(start, stop, step)))
        return [TensorType(x.element_type, result)]

    @override
    def space(self) -> Space:
        dims = dims_of(shape_of(self.result))
        bounds = zip(dims, values_of(self.starts), values_of(self.steps), strict=True)
        read = tuple(Index(((dim.name, step),), start) for dim, start, step in bounds)
        return Space(dims, (Access(shape_of(self.x), read),), (access(shape_of(self.result), dims),))

    @override
    def on_parts(self, parts: Mapping[str, range]) -> dict[str, Attribute]:
        starts, stops = list(values_of(self.starts)), list(values_of(self.stops))
        for dim, step in enumerate(values_of(self.steps)):
            if (own := parts.get(f"i{dim}")) is not None:  # the part of x begins with the first element taken
                starts[dim], stops[dim] = 0, max(0, (len(own) - 1) * step + 1)
        return {**self.properties, "starts": integers(starts), "stops": integers(stops)}


def python_slice(start: int, stop: int, step: int) -> slice:
    """Python's slice of an `nn.slice` in one dimension (there -1 counts from the end)."""
    return slice(start, None if stop < 0 else stop, step)


PAD_MODES = ("constant", "reflect", "edge", "wrap")
"""What `nn.pad` puts around a tensor: a number, its mirror image, its border, itself again."""


@irdl_op_definition
class PadOp(NnOp):
    """x with ``low[i]`` elements more before and ``high[i]`` behind it in dimension i (numpy's ``pad``)."""

    name = "nn.pad"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    low = prop_def(IntegersAttr)
    high = prop_def(IntegersAttr)
    mode = prop_def(StringAttr)
    value = prop_def(FloatAttr[Float64Type])
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(
        self, x: Value, low: Sequence[int], high: Sequence[int], mode: str = "constant", value: float = 0.0
    ) -> None:
        properties: dict[str, Attribute | None] = {
            "low": integers(low),
            "high": integers(high),
            "mode": StringAttr(mode),
            "value": FloatAttr(value, f64),
        }
        construct(self, [x], properties)

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, "nn.pad x")
        shape, low, high, mode = x.get_shape(), values_of(self.low), values_of(self.high), self.mode.data
        check(len(low) == len(shape) == len(high), f"nn.pad: low and high must have {len(shape)} numbers")
        check(min((*low, *high), default=0) >= 0, "nn.pad: a negative padding (that is a slice)")
        check(mode in PAD_MODES, f"nn.pad: mode {mode!r} is not one of {', '.join(PAD_MODES)}")
        for dim, size in enumerate(shape):
            most = max(low[dim], high[dim])
            check(mode == "constant" or most == 0 or size > (mode == "reflect"), f"nn.pad: {mode} of {size} elements")
        return [TensorType(x.element_type, [a + size + b for a, size, b in zip(low, shape, high, strict=True)])]

    @override
    def space(self) -> Space:
        shape, result = shape_of(self.x), shape_of(self.result)
        dims = dims_of(result)
        if self.mode.data == "constant":
            low = zip(dims, values_of(self.low), strict=True)
            read = Access(shape, tuple(Index(((dim.name, 1),), -before) for dim, before in low))
            return Space(dims, (read,), (access(result, dims),))
        whole = tuple(Dim(f"w{place}", size, "whole") for place, size in enumerate(shape) if size != result[place])
        sources = [
            dim if size == result[place] else next(found for found in whole if found.name == f"w{place}")
            for place, (dim, size) in enumerate(zip(dims, shape, strict=True))
        ]
        return Space((*dims, *whole), (access(shape, sources),), (access(result, dims),))

    @override
    def on_parts(self, parts: Mapping[str, range]) -> dict[str, Attribute]:
        low, high = list(values_of(self.low)), list(values_of(self.high))
        for dim, size in enumerate(shape_of(self.x)):
            if (own := parts.get(f"i{dim}")) is not None and own:
                first, stop = own[0] - low[dim], own[-1] + 1 - low[dim]  # of x, or beside it
                low[dim] = min(max(0, -first), len(own))
                high[dim] = min(max(0, stop - size), len(own))
        return {**self.properties, "low": integers(low), "high": integers(high)}


@irdl_op_definition
class ConcatOp(NnOp):
    """Operands joined along ``axis``; all other dimensions agree."""

    name = "nn.concat"
    CLASS: ClassVar[OpClass] = "layout"

    inputs = var_operand_def(TensorType)
    axis = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, inputs: Sequence[Value], axis: int) -> None:
        construct(self, [list(inputs)], {"axis": integer(axis)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        types = [tensor_of(value, f"nn.concat operand {index}") for index, value in enumerate(self.inputs)]
        check(bool(types), "nn.concat needs at least one operand")
        first = types[0].get_shape()
        axis = axis_index(self.axis.value.data, len(first), "nn.concat axis")

        def others(shape: Shape) -> Shape:
            return (*shape[:axis], -1, *shape[axis + 1 :])

        for index, type_ in enumerate(types):
            shape = type_.get_shape()
            check(
                len(shape) == len(first) and others(shape) == others(first),
                f"nn.concat operand {index} has shape {format_shape(shape)}, which does not join "
                f"{format_shape(first)} along axis {axis}",
            )
            check_same_element(types[0], type_, "nn.concat")
        joined = sum(type_.get_shape()[axis] for type_ in types)
        return [TensorType(types[0].element_type, (*first[:axis], joined, *first[axis + 1 :]))]

    @override
    def space(self) -> Space:
        result = shape_of(self.result)
        dims = dims_of(result)
        axis = axis_index(self.axis.value.data, len(result))
        reads: list[Access] = []
        begin = 0
        for value in self.inputs:
            indices = list(at(*(dim.name for dim in dims)))
            indices[axis] = Index(((dims[axis].name, 1),), -begin)
            reads.append(Access(shape_of(value), tuple(indices)))
            begin += shape_of(value)[axis]
        return Space(dims, tuple(reads), (access(result, dims),))


@irdl_op_definition
class BroadcastToOp(NnOp):
    """x repeated to the shape of the result type by numpy's rules."""

    name = "nn.broadcast_to"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, shape: Sequence[int]) -> None:
        construct(self, [x], {}, [TensorType(tensor_of(x, "nn.broadcast_to x").element_type, shape)])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, result = tensor_of(self.x, "nn.broadcast_to x"), tensor_of(self.result, "nn.broadcast_to result")
        shape = result.get_shape()
        check(
            broadcast_shapes([x.get_shape(), shape]) == shape,
            f"nn.broadcast_to: {format_shape(x.get_shape())} does not broadcast to {format_shape(shape)}",
        )
        return [TensorType(x.element_type, shape)]

    @override
    def space(self) -> Space:
        return pointwise([shape_of(self.x)], shape_of(self.result))
