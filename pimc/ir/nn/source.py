"""Operators that bring values in: weights by name, constants, and rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
from typing_extensions import override
from xdsl.dialects.builtin import (
    AnyFloat,
    DenseIntOrFPElementsAttr,
    Float16Type,
    Float32Type,
    IndexType,
    IntegerType,
    StringAttr,
    TensorType,
    i32,
)
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, prop_def, result_def, traits_def
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
    check_position,
    check_shape,
    construct,
    integer,
    shape_of,
    tensor_bytes,
    tensor_of,
)
from pimc.ir.nn.space import Access, Dim, Space, access, at, dims_of, made

Element: TypeAlias = AnyFloat | IntegerType | IndexType
"""Element types of tensors."""

_ROUNDED: Mapping[type[Attribute], npt.DTypeLike] = {Float16Type: np.float16, Float32Type: np.float32}
"""Floats that are rounded by numpy; xDSL refuses what is beyond their range."""


@irdl_op_definition
class ParamOp(NnOp):
    """A weight of the model: ``tensor<...>`` whose values live outside the IR under ``name``.

    With an ``index`` operand it is the weight of one layer of a family: ``name`` then contains one ``*``,
    which stands for the value of the operand (``model.layers.*.mlp.up_proj.weight``).
    """

    name = "nn.param"
    CLASS: ClassVar[OpClass] = "memory"

    layer = opt_operand_def(IndexType)
    weight_name = prop_def(StringAttr, prop_name="name")
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, weight_name: str, type_: Tensor, layer: Value | None = None) -> None:
        construct(self, [[layer] if layer is not None else []], {"name": StringAttr(weight_name)}, [type_])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        stars = self.weight_name.data.count("*")
        wanted = 0 if self.layer is None else 1
        check(
            stars == wanted,
            f"nn.param {self.weight_name.data!r} has {stars} '*' and {wanted} layer operand(s)",
        )
        return [tensor_of(self.result, "nn.param")]

    @override
    def space(self) -> Space:
        return made(shape_of(self.result), len(self.operands))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Nothing: the bytes of a weight count where it is used."""
        return Cost(0, 0)


@irdl_op_definition
class ConstantOp(NnOp):
    """A constant tensor written in the IR (a scalar, a small table): ``value = dense<...> : tensor<...>``."""

    name = "nn.constant"
    CLASS: ClassVar[OpClass] = "memory"

    value = prop_def(DenseIntOrFPElementsAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, value: DenseIntOrFPElementsAttr) -> None:
        construct(self, [], {"value": value})

    @staticmethod
    def from_array(array: npt.ArrayLike, element_type: Element) -> ConstantOp:
        """A constant from a numpy array or Python numbers; floats are rounded to the type, to infinity beyond its
        range.
        """
        data = np.asarray(array)
        if isinstance(element_type, IntegerType | IndexType):
            whole = [int(value) for value in data.reshape(-1)]
            return ConstantOp(DenseIntOrFPElementsAttr.from_list(TensorType(element_type, data.shape), whole))
        with np.errstate(over="ignore"):
            rounded = data.astype(_ROUNDED.get(type(element_type), np.float64))
        real = [float(value) for value in rounded.reshape(-1)]
        return ConstantOp(DenseIntOrFPElementsAttr.from_list(TensorType(element_type, data.shape), real))

    @override
    def infer_types(self) -> Sequence[Attribute]:
        return [self.value.get_type()]

    @override
    def space(self) -> Space:
        return made(shape_of(self.result))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Nothing: the bytes of a constant count where it is used."""
        return Cost(0, 0)


@irdl_op_definition
class EmbeddingOp(NnOp):
    """Rows of a table: ``result[b, m, :] = table[ids[b, m], :]``; table ``[V, F]``, ids ``[B, M]``, result
    ``[B, M, F]``.

    An id outside ``[0, V)`` is an error when the operator runs.
    """

    name = "nn.embedding"
    CLASS: ClassVar[OpClass] = "memory"

    table = operand_def(TensorType)
    ids = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, table: Value, ids: Value) -> None:
        construct(self, [table, ids])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        table, ids = tensor_of(self.table, "nn.embedding table"), tensor_of(self.ids, "nn.embedding ids")
        check_shape(table, (None, None), "nn.embedding table")
        check_shape(ids, (None, None), "nn.embedding ids")
        check_ids(ids, "nn.embedding ids")
        return [TensorType(table.element_type, (*ids.get_shape(), table.get_shape()[1]))]

    @override
    def space(self) -> Space:
        rows, features = shape_of(self.table)
        ids = shape_of(self.ids)
        dims, feature, row = dims_of(ids), Dim("f", features), Dim("t", rows, "whole")
        result = access(shape_of(self.result), (*dims, feature))
        return Space((*dims, feature, row), (access((rows, features), (row, feature)), access(ids, dims)), (result,))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes of the ids and of the rows read and written; never of the whole table."""
        return Cost(0, tensor_bytes(self.ids.type) + 2 * tensor_bytes(self.result.type))


@irdl_op_definition
class GatherOp(NnOp):
    """Slices of ``x`` along ``axis`` at integer ``indices`` (numpy's ``take``): the axis is replaced by
    indices' shape.
    """

    name = "nn.gather"
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
        x, indices = tensor_of(self.x, "nn.gather x"), tensor_of(self.indices, "nn.gather indices")
        check_ids(indices, "nn.gather indices")
        shape = x.get_shape()
        axis = axis_index(self.axis.value.data, len(shape), "nn.gather axis")
        return [TensorType(x.element_type, (*shape[:axis], *indices.get_shape(), *shape[axis + 1 :]))]

    @override
    def space(self) -> Space:
        shape, index = shape_of(self.x), shape_of(self.indices)
        axis = axis_index(self.axis.value.data, len(shape))
        dims, whole = dims_of(shape_of(self.result)), Dim("t", shape[axis], "whole")
        read = access(shape, (*dims[:axis], whole, *dims[axis + len(index) :]))
        indices = access(index, dims[axis : axis + len(index)])
        return Space((*dims, whole), (read, indices), (access(shape_of(self.result), dims),))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes of the indices and of the elements read and written."""
        return Cost(0, tensor_bytes(self.indices.type) + 2 * tensor_bytes(self.result.type))


@irdl_op_definition
class PositionsOp(NnOp):
    """Absolute positions of ``count`` tokens from ``position``: ``result[0, m] = position[0] + m``, ``[1,
    count]`` i32.
    """

    name = "nn.positions"
    CLASS: ClassVar[OpClass] = "memory"

    position = operand_def(TensorType)
    count = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, position: Value, count: int) -> None:
        construct(self, [position], {"count": integer(count)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        check_position(tensor_of(self.position, "nn.positions position"), "nn.positions position")
        count = self.count.value.data
        check(count >= 1, f"nn.positions count must be positive, is {count}")
        return [TensorType(i32, (1, count))]

    @override
    def space(self) -> Space:
        m = Dim("m", self.count.value.data)
        return Space((m,), (Access((1,), at(0)),), (Access((1, m.size), at(0, "m")),))


@irdl_op_definition
class IotaOp(NnOp):
    """``result[..., i, ...] = i`` along ``axis``; the result type is given."""

    name = "nn.iota"
    CLASS: ClassVar[OpClass] = "memory"

    axis = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, type_: Tensor, axis: int = 0) -> None:
        construct(self, [], {"axis": integer(axis)}, [type_])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        type_ = tensor_of(self.result, "nn.iota")
        axis_index(self.axis.value.data, len(type_.get_shape()), "nn.iota axis")
        return [type_]

    @override
    def space(self) -> Space:
        return made(shape_of(self.result))


@irdl_op_definition
class SelectTokenOp(NnOp):
    """The last valid token of a chunk: ``result[:, 0, :] = x[:, length - 1, :]``; x ``[1, M, F]``, result
    ``[1, 1, F]``.
    """

    name = "nn.select_token"
    CLASS: ClassVar[OpClass] = "layout"

    x = operand_def(TensorType)
    length = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, length: Value) -> None:
        construct(self, [x, length])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x = tensor_of(self.x, "nn.select_token x")
        check_shape(x, (1, None, None), "nn.select_token x")
        check_position(tensor_of(self.length, "nn.select_token length"), "nn.select_token length")
        return [TensorType(x.element_type, (1, 1, x.get_shape()[2]))]

    @override
    def space(self) -> Space:
        shape = shape_of(self.x)
        row, feature = Dim("m", shape[1], "whole"), Dim("f", shape[2])
        x, result = Access(shape, at(0, "m", "f")), Access((1, 1, shape[2]), at(0, 0, "f"))
        return Space((row, feature), (x, Access((1,), at(0))), (result,))

    @override
    def cost(self, context: int | None = None) -> Cost:
        """Bytes of the row read and written."""
        return Cost(0, 2 * tensor_bytes(self.result.type))
