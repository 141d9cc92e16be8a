"""Matrix products: linear layers over stored weights, and products of two computed tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import TensorType, f16, f32, i1
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, result_def, traits_def
from xdsl.traits import Pure

from pimc.ir.nn.base import (
    NnOp,
    OpClass,
    Value,
    broadcast_shapes,
    check,
    check_float,
    check_same_element,
    check_shape,
    construct,
    elements,
    format_shape,
    shape_of,
    tensor_of,
)
from pimc.ir.nn.space import Access, Dim, Space, Work, access, at, broadcast, dims_of


@irdl_op_definition
class LinearOp(NnOp):
    """``x @ w.T + bias``: x ``[..., K]``, w ``[N, K]``, bias ``[N]``, result ``[..., N]``.

    Class gemv where x is one row (one token), gemm otherwise.  The weight may have another element type than
    x.
    """

    name = "nn.linear"
    CLASS: ClassVar[OpClass] = "gemm"

    x = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, weight: Value, bias: Value | None = None) -> None:
        construct(self, [x, weight, [bias] if bias is not None else []])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, weight = tensor_of(self.x, "nn.linear x"), tensor_of(self.weight, "nn.linear weight")
        check_float(x, "nn.linear x")
        check(len(x.get_shape()) >= 1, "nn.linear x must have at least one dimension")
        check_shape(weight, (None, x.get_shape()[-1]), "nn.linear weight")
        rows = weight.get_shape()[0]
        if self.bias is not None:
            bias = tensor_of(self.bias, "nn.linear bias")
            check_shape(bias, (rows,), "nn.linear bias")
            check_float(bias, "nn.linear bias")
        return [TensorType(x.element_type, (*x.get_shape()[:-1], rows))]

    @override
    def space(self) -> Space:
        x, (n, k) = shape_of(self.x), shape_of(self.weight)
        rows, column, depth = dims_of(x[:-1]), Dim("n", n), Dim("k", k, "reduced", "sum")
        operands = [access(x, (*rows, depth)), access((n, k), (column, depth))]
        if self.bias is not None:
            operands.append(access((n,), (column,)))
        outer = tuple(dim.name for dim in (*rows, column))
        work = (Work(2), Work(int(self.bias is not None), outer))
        result = access(shape_of(self.result), (*rows, column))
        return Space((*rows, column, depth), tuple(operands), (result,), work)

    def rows(self) -> int:
        """Number of input rows (tokens)."""
        x = tensor_of(self.x)
        return elements(x) // max(1, x.get_shape()[-1])

    @override
    def op_class(self) -> OpClass:
        return "gemv" if self.rows() == 1 else "gemm"


@irdl_op_definition
class MatmulOp(NnOp):
    """``a @ b`` of two computed tensors (floats or integers), numpy style: a ``[..., M, K]``, b ``[..., K, N]``,
    leading dims broadcast.  The product of f16 operands may be f32: then it is not rounded.

    Class gemv where M is 1, gemm otherwise.
    """

    name = "nn.matmul"
    CLASS: ClassVar[OpClass] = "gemm"

    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, a: Value, b: Value) -> None:
        construct(self, [a, b])

    @override
    def infer_types(self) -> Sequence[Attribute]:
        a, b = tensor_of(self.a, "nn.matmul a"), tensor_of(self.b, "nn.matmul b")
        check(a.element_type != i1, "nn.matmul multiplies numbers, not i1")
        check_same_element(a, b, "nn.matmul")
        left, right = a.get_shape(), b.get_shape()
        check(len(left) >= 2 and len(right) >= 2, "nn.matmul operands must have at least two dimensions")
        check(
            left[-1] == right[-2],
            f"nn.matmul inner sizes differ: {format_shape(left)} and {format_shape(right)}",
        )
        batch = broadcast_shapes([left[:-2], right[:-2]])
        declared = self.results[0].type if self.results else None
        wide = isinstance(declared, TensorType) and declared.element_type == f32 and a.element_type == f16
        return [TensorType(f32 if wide else a.element_type, (*batch, left[-2], right[-1]))]

    @override
    def space(self) -> Space:
        a, b, result = shape_of(self.a), shape_of(self.b), shape_of(self.result)
        batch, row, column = dims_of(result[:-2]), Dim("m", a[-2]), Dim("n", b[-1])
        depth = Dim("k", a[-1], "reduced", "sum")
        left = Access(a, broadcast(a[:-2], batch).indices + at("m", "k"))
        right = Access(b, broadcast(b[:-2], batch).indices + at("k", "n"))
        dims = (*batch, row, column)
        return Space((*dims, depth), (left, right), (access(result, dims),), (Work(2),))

    @override
    def op_class(self) -> OpClass:
        return "gemv" if tensor_of(self.a).get_shape()[-2] == 1 else "gemm"
