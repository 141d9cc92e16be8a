"""Operators along one axis: where the extreme is, the largest k, running sums and products."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import BoolAttr, IntegerType, TensorType, i64
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from pimc.ir.nn.base import (
    IntegerAttrI64,
    NnOp,
    OpClass,
    Value,
    axis_index,
    check,
    construct,
    integer,
    shape_of,
    tensor_of,
)
from pimc.ir.nn.space import Access, Dim, Space, Work, access, along, at, dims_of, whole_at


class ArgOp(NnOp, ABC):
    """Index of an extreme along ``axis``: the first of equals, the last with ``select_last``; NaN counts as extreme."""

    x = operand_def(TensorType)
    axis = prop_def(IntegerAttrI64)
    keepdims = prop_def(BoolAttr)
    select_last = prop_def(BoolAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(
        self, x: Value, axis: int, keepdims: bool = False, select_last: bool = False, element: IntegerType = i64
    ) -> None:
        properties: dict[str, Attribute | None] = {
            "axis": integer(axis),
            "keepdims": BoolAttr.from_bool(keepdims),
            "select_last": BoolAttr.from_bool(select_last),
        }
        shape = _without(tensor_of(x, f"{self.name} x").get_shape(), axis, keepdims)
        construct(self, [x], properties, [TensorType(element, shape)])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        shape, result = tensor_of(self.x, f"{self.name} x").get_shape(), tensor_of(self.result, f"{self.name} result")
        axis = axis_index(self.axis.value.data, len(shape), f"{self.name} axis")
        check(shape[axis] > 0, f"{self.name}: dimension {axis} is empty")
        check(isinstance(result.element_type, IntegerType), f"{self.name} gives integers, not {result.element_type}")
        return [TensorType(result.element_type, _without(shape, axis, bool(self.keepdims.value.data)))]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        axis = axis_index(self.axis.value.data, len(shape))
        dims = whole_at(shape, axis)
        kept = [0] if self.keepdims.value.data else []
        names = [dim.name for dim in dims]
        result = Access(shape_of(self.result), at(*names[:axis], *kept, *names[axis + 1 :]))
        return Space(dims, (access(shape, dims),), (result,), (Work(1),))


def _without(shape: Sequence[int], axis: int, keepdims: bool) -> list[int]:
    """``shape`` without dimension ``axis``, or with size 1 there."""
    axis %= max(1, len(shape))
    return [1 if index == axis else dim for index, dim in enumerate(shape) if keepdims or index != axis]


@irdl_op_definition
class ArgMaxOp(ArgOp):
    """Index of the greatest element along ``axis``."""

    name = "nn.arg_max"


@irdl_op_definition
class ArgMinOp(ArgOp):
    """Index of the least element along ``axis``."""

    name = "nn.arg_min"


@irdl_op_definition
class TopKOp(NnOp):
    """The ``k`` greatest (or, with ``largest`` false, least) elements along ``axis``, in order, and their indices;
    among equals the lower index comes first.  ``sorted`` false leaves the order open.
    """

    name = "nn.top_k"

    x = operand_def(TensorType)
    k = prop_def(IntegerAttrI64)
    axis = prop_def(IntegerAttrI64)
    largest = prop_def(BoolAttr)
    sorted = prop_def(BoolAttr)
    values = result_def(TensorType)
    indices = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(
        self, x: Value, k: int, axis: int = -1, largest: bool = True, sorted: bool = True, element: IntegerType = i64
    ) -> None:
        properties: dict[str, Attribute | None] = {
            "k": integer(k),
            "axis": integer(axis),
            "largest": BoolAttr.from_bool(largest),
            "sorted": BoolAttr.from_bool(sorted),
        }
        type_ = tensor_of(x, "nn.top_k x")
        shape = list(type_.get_shape())
        shape[axis_index(axis, len(shape), "nn.top_k axis")] = k
        construct(self, [x], properties, [TensorType(type_.element_type, shape), TensorType(element, shape)])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, indices = tensor_of(self.x, "nn.top_k x"), tensor_of(self.indices, "nn.top_k indices")
        shape, k = list(x.get_shape()), self.k.value.data
        axis = axis_index(self.axis.value.data, len(shape), "nn.top_k axis")
        check(0 <= k <= shape[axis], f"nn.top_k: {k} of {shape[axis]} elements")
        element = indices.element_type
        check(isinstance(element, IntegerType), f"nn.top_k indices are integers, not {element}")
        shape[axis] = k
        return [TensorType(x.element_type, shape), TensorType(indices.element_type, shape)]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        axis = axis_index(self.axis.value.data, len(shape))
        dims = dims_of(shape_of(self.values))
        whole = Dim("t", shape[axis], "whole")
        x = access(shape, (*dims[:axis], whole, *dims[axis + 1 :]))
        found = access(shape_of(self.values), dims)
        return Space((*dims, whole), (x,), (found, found), (Work(1),))


class ScanOp(NnOp, ABC):
    """A running total along ``axis``: ``exclusive`` leaves the element itself out, ``reverse`` runs from the end."""

    CLASS: ClassVar[OpClass] = "nonlinear"

    x = operand_def(TensorType)
    axis = prop_def(IntegerAttrI64)
    exclusive = prop_def(BoolAttr)
    reverse = prop_def(BoolAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, axis: int, exclusive: bool = False, reverse: bool = False) -> None:
        properties: dict[str, Attribute | None] = {
            "axis": integer(axis),
            "exclusive": BoolAttr.from_bool(exclusive),
            "reverse": BoolAttr.from_bool(reverse),
        }
        construct(self, [x], properties)

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, f"{self.name} x")
        axis_index(self.axis.value.data, len(x.get_shape()), f"{self.name} axis")
        return [x]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        return along(shape, axis_index(self.axis.value.data, len(shape)), 1)


@irdl_op_definition
class CumSumOp(ScanOp):
    """Running sum along ``axis``."""

    name = "nn.cum_sum"


@irdl_op_definition
class CumProdOp(ScanOp):
    """Running product along ``axis``."""

    name = "nn.cum_prod"
