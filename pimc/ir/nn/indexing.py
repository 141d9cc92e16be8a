"""Operators that read or write elements at computed indices (the definitions are those of ONNX).

Negative indices count from the end.  Reductions of scatters: none (the last update stays), add, mul, max, min.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import StringAttr, TensorType
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from pimc.ir.nn.base import (
    Cost,
    IntegerAttrI64,
    NnOp,
    OpClass,
    Tensor,
    Value,
    axis_index,
    check,
    check_ids,
    check_same_element,
    check_shape,
    construct,
    format_shape,
    integer,
    shape_of,
    tensor_bytes,
    tensor_of,
)
from pimc.ir.nn.space import Dim, Space, access, dims_of

REDUCTIONS = ("none", "add", "mul", "max", "min")
"""What a scatter does with an update and the element it meets."""


def _check_reduction(reduction: str, what: str) -> None:
    check(reduction in REDUCTIONS, f"{what}: reduction {reduction!r} is not one of {', '.join(REDUCTIONS)}")


def _check_below(indices: Tensor, x: Tensor, axis: int, what: str) -> None:
    """All sizes of ``indices`` but that of ``axis`` are at most those of ``x``."""
    have, limit = indices.get_shape(), x.get_shape()
    fits = len(have) == len(limit) and all(
        size <= most for index, (size, most) in enumerate(zip(have, limit, strict=True)) if index != axis
    )
    check(fits, f"{what}: indices {format_shape(have)} do not fit {format_shape(limit)}")


@irdl_op_definition
class GatherElementsOp(NnOp):
    """``result[i, j, k] = x[i, indices[i, j, k], k]`` for axis 1: one element for each index."""

    name = "nn.gather_elements"
    CLASS: ClassVar[OpClass] = "memory"

    x = operand_def(TensorType)
    indices = operand_def(TensorType)
    axis = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, indices: Value, axis: int = 0) -> None:
        construct(self, [x, indices], {"axis": integer(axis)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, indices = tensor_of(self.x, f"{self.name} x"), tensor_of(self.indices, f"{self.name} indices")
        check_ids(indices, f"{self.name} indices")
        axis = axis_index(self.axis.value.data, len(x.get_shape()), f"{self.name} axis")
        _check_below(indices, x, axis, self.name)
        return [TensorType(x.element_type, indices.get_shape())]

    @override
    def space(self) -> Space:
        shape, found = shape_of(self.x), shape_of(self.result)
        axis = axis_index(self.axis.value.data, len(shape))
        dims, whole = dims_of(found), Dim("t", shape[axis], "whole")
        read = access(shape, (*dims[:axis], whole, *dims[axis + 1 :]))
        written = access(found, dims)
        return Space((*dims, whole), (read, written), (written,))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes of the indices and of the elements read and written."""
        return Cost(0, tensor_bytes(self.indices.type) + 2 * tensor_bytes(self.result.type))


@irdl_op_definition
class GatherNdOp(NnOp):
    """Slices of x at index tuples: ``result[b, i] = x[b, indices[b, i, 0], indices[b, i, 1], ...]``; the first
    ``batch_dims`` dimensions of both are common.
    """

    name = "nn.gather_nd"
    CLASS: ClassVar[OpClass] = "memory"

    x = operand_def(TensorType)
    indices = operand_def(TensorType)
    batch_dims = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, indices: Value, batch_dims: int = 0) -> None:
        construct(self, [x, indices], {"batch_dims": integer(batch_dims)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, indices = tensor_of(self.x, f"{self.name} x"), tensor_of(self.indices, f"{self.name} indices")
        check_ids(indices, f"{self.name} indices")
        data, index, batch = x.get_shape(), indices.get_shape(), self.batch_dims.value.data
        check(0 <= batch < len(index), f"{self.name}: {batch} batch dimensions of indices {format_shape(index)}")
        check(data[:batch] == index[:batch], f"{self.name}: batch dimensions of x and indices differ")
        depth = index[-1]
        check(
            1 <= depth <= len(data) - batch,
            f"{self.name}: {depth} numbers index {format_shape(data)} with {batch} batch dimensions",
        )
        return [TensorType(x.element_type, (*index[:-1], *data[batch + depth :]))]

    @override
    def space(self) -> Space:
        shape, index, batch = shape_of(self.x), shape_of(self.indices), self.batch_dims.value.data
        dims = dims_of(shape_of(self.result))
        depth = index[-1]
        whole = tuple(Dim(f"t{place}", shape[batch + place], "whole") for place in range(depth))
        number = Dim("c", depth, "whole")
        trailing = dims[len(index) - 1 :]
        read = access(shape, (*dims[:batch], *whole, *trailing))
        indices = access(index, (*dims[: len(index) - 1], number))
        return Space((*dims, *whole, number), (read, indices), (access(shape_of(self.result), dims),))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes of the indices and of the elements read and written."""
        return Cost(0, tensor_bytes(self.indices.type) + 2 * tensor_bytes(self.result.type))


@irdl_op_definition
class ScatterElementsOp(NnOp):
    """A copy of x with ``result[i, indices[i, j, k], k] = updates[i, j, k]`` for axis 1."""

    name = "nn.scatter_elements"
    CLASS: ClassVar[OpClass] = "memory"

    x = operand_def(TensorType)
    indices = operand_def(TensorType)
    updates = operand_def(TensorType)
    axis = prop_def(IntegerAttrI64)
    reduction = prop_def(StringAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, indices: Value, updates: Value, axis: int = 0, reduction: str = "none") -> None:
        construct(self, [x, indices, updates], {"axis": integer(axis), "reduction": StringAttr(reduction)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, indices = tensor_of(self.x, f"{self.name} x"), tensor_of(self.indices, f"{self.name} indices")
        updates = tensor_of(self.updates, f"{self.name} updates")
        check_ids(indices, f"{self.name} indices")
        check_same_element(x, updates, self.name)
        check_shape(updates, indices.get_shape(), f"{self.name} updates")
        axis = axis_index(self.axis.value.data, len(x.get_shape()), f"{self.name} axis")
        _check_below(indices, x, axis, self.name)
        _check_reduction(self.reduction.data, self.name)
        return [x]

    @override
    def space(self) -> Space:
        shape, index = shape_of(self.x), shape_of(self.indices)
        axis = axis_index(self.axis.value.data, len(shape))
        dims, whole = dims_of(shape), Dim("u", index[axis], "whole")
        x, update = access(shape, dims), access(index, (*dims[:axis], whole, *dims[axis + 1 :]))
        return Space((*dims, whole), (x, update, update), (x,))


@irdl_op_definition
class ScatterNdOp(NnOp):
    """A copy of x with ``result[indices[i, 0], indices[i, 1], ...] = updates[i]``."""

    name = "nn.scatter_nd"
    CLASS: ClassVar[OpClass] = "memory"

    x = operand_def(TensorType)
    indices = operand_def(TensorType)
    updates = operand_def(TensorType)
    reduction = prop_def(StringAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, indices: Value, updates: Value, reduction: str = "none") -> None:
        construct(self, [x, indices, updates], {"reduction": StringAttr(reduction)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, indices = tensor_of(self.x, f"{self.name} x"), tensor_of(self.indices, f"{self.name} indices")
        updates = tensor_of(self.updates, f"{self.name} updates")
        check_ids(indices, f"{self.name} indices")
        check_same_element(x, updates, self.name)
        data, index = x.get_shape(), indices.get_shape()
        check(
            len(index) >= 1 and 1 <= index[-1] <= len(data),
            f"{self.name}: indices {format_shape(index)} do not index {format_shape(data)}",
        )
        check_shape(updates, (*index[:-1], *data[index[-1] :]), f"{self.name} updates")
        _check_reduction(self.reduction.data, self.name)
        return [x]

    @override
    def space(self) -> Space:
        shape, index = shape_of(self.x), shape_of(self.indices)
        dims = dims_of(shape)
        whole = tuple(Dim(f"u{place}", size, "whole") for place, size in enumerate(index))
        x, trailing = access(shape, dims), dims[index[-1] :]
        updates = access(shape_of(self.updates), (*whole[:-1], *trailing))
        return Space((*dims, *whole), (x, access(index, whole), updates), (x,))
