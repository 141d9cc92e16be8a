"""Arithmetic on values of a graph under import: short forms of the `nn` operators that converters compose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from xdsl.dialects.builtin import bf16, f16, f32, f64, i32
from xdsl.ir import Attribute, SSAValue

from pimc.ir import nn
from pimc.ir.constants import LARGEST_HALF

if TYPE_CHECKING:
    from pimc.frontends.onnx.context import NodeContext

_LOWEST: Final[Mapping[Attribute, float]] = {
    f16: -LARGEST_HALF,
    bf16: -(2.0 - 2.0**-7) * 2.0**127,
    f32: -(2.0 - 2.0**-23) * 2.0**127,
    f64: -(2.0 - 2.0**-52) * 2.0**1023,
}

Term: TypeAlias = "SSAValue | float | int"
Shape: TypeAlias = Sequence[int]


def lowest(element: Attribute) -> float:
    """The lowest finite number of a float type: the score of a masked position (an infinity has no text form)."""
    return _LOWEST[element]


@dataclass(frozen=True)
class Expressions:
    """Emits operations of one node.  A number stands for a scalar constant of the other operand's element type."""

    context: NodeContext

    def shape(self, value: SSAValue) -> tuple[int, ...]:
        """Shape of a value."""
        return nn.tensor_of(value).get_shape()

    def element(self, value: SSAValue) -> Attribute:
        """Element type of a value."""
        return nn.tensor_of(value).element_type

    def term(self, value: Term, like: SSAValue) -> SSAValue:
        """``value`` itself, or a number as a scalar of ``like``'s element type."""
        return value if isinstance(value, SSAValue) else self.context.like(value, like)

    def _binary(self, op: Callable[[SSAValue, SSAValue], nn.NnOp], a: Term, b: Term) -> SSAValue:
        like = a if isinstance(a, SSAValue) else b
        assert isinstance(like, SSAValue)
        return self.context.emit(op(self.term(a, like), self.term(b, like)))

    def add(self, a: Term, b: Term) -> SSAValue:
        """``a + b``."""
        return self._binary(nn.AddOp, a, b)

    def sub(self, a: Term, b: Term) -> SSAValue:
        """``a - b``."""
        return self._binary(nn.SubOp, a, b)

    def mul(self, a: Term, b: Term) -> SSAValue:
        """``a * b``."""
        return self._binary(nn.MulOp, a, b)

    def div(self, a: Term, b: Term) -> SSAValue:
        """``a / b``."""
        return self._binary(nn.DivOp, a, b)

    def pow(self, a: Term, b: Term) -> SSAValue:
        """``a ** b``."""
        return self._binary(nn.PowOp, a, b)

    def maximum(self, a: Term, b: Term) -> SSAValue:
        """The greater of each pair."""
        return self._binary(nn.MaximumOp, a, b)

    def minimum(self, a: Term, b: Term) -> SSAValue:
        """The lesser of each pair."""
        return self._binary(nn.MinimumOp, a, b)

    def clip(self, x: SSAValue, low: float, high: float) -> SSAValue:
        """``x`` limited to ``[low, high]``."""
        return self.minimum(self.maximum(x, low), high)

    def both(self, a: SSAValue, b: SSAValue) -> SSAValue:
        """Logical and."""
        return self._binary(nn.AndOp, a, b)

    def compare(self, a: Term, predicate: str, b: Term) -> SSAValue:
        """``a predicate b`` as i1; predicates are those of `nn.compare`."""
        return self._binary(lambda lhs, rhs: nn.CompareOp(lhs, rhs, predicate), a, b)

    def select(self, condition: SSAValue, a: Term, b: Term) -> SSAValue:
        """``condition ? a : b``."""
        return self._binary(lambda lhs, rhs: nn.SelectOp(condition, lhs, rhs), a, b)

    def matmul(self, a: SSAValue, b: SSAValue) -> SSAValue:
        """``a @ b``; both have at least two dimensions."""
        return self.context.emit(nn.MatmulOp(a, b))

    def unary(self, op: Callable[[SSAValue], nn.NnOp], x: SSAValue) -> SSAValue:
        """``op(x)``."""
        return self.context.emit(op(x))

    def total(self, x: SSAValue, axes: Shape, keepdims: bool = True) -> SSAValue:
        """Sum over ``axes``."""
        return self.context.emit(nn.ReduceSumOp(x, axes, keepdims))

    def mean(self, x: SSAValue, axes: Shape, keepdims: bool = True) -> SSAValue:
        """Mean over ``axes``."""
        return self.context.emit(nn.ReduceMeanOp(x, axes, keepdims))

    def greatest(self, x: SSAValue, axes: Shape, keepdims: bool = True) -> SSAValue:
        """Maximum over ``axes``."""
        return self.context.emit(nn.ReduceMaxOp(x, axes, keepdims))

    def least(self, x: SSAValue, axes: Shape, keepdims: bool = True) -> SSAValue:
        """Minimum over ``axes``."""
        return self.context.emit(nn.ReduceMinOp(x, axes, keepdims))

    def part(self, x: SSAValue, axis: int, start: int, stop: int, step: int = 1) -> SSAValue:
        """``x[start:stop:step]`` along one axis; bounds within the shape."""
        return self.context.cut(x, axis, start, stop, step)

    def split(self, x: SSAValue, axis: int, sizes: Shape) -> list[SSAValue]:
        """Consecutive parts of ``sizes`` elements along ``axis``."""
        parts: list[SSAValue] = []
        start = 0
        for size in sizes:
            parts.append(self.part(x, axis, start, start + size))
            start += size
        return parts

    def at(self, x: SSAValue, axis: int, index: int) -> SSAValue:
        """Element ``index`` along ``axis``, without that axis."""
        shape = self.shape(x)
        axis %= len(shape)
        return self.context.reshape(self.part(x, axis, index, index + 1), (*shape[:axis], *shape[axis + 1 :]))

    def stack(self, values: Sequence[SSAValue], axis: int) -> SSAValue:
        """Values of one shape joined along a new axis (counted from the front)."""
        shape = self.shape(values[0])
        grown = (*shape[:axis], 1, *shape[axis:])
        return self.context.concat([self.context.reshape(value, grown) for value in values], axis)

    def iota(self, shape: Shape, axis: int, element: Attribute = i32) -> SSAValue:
        """Indices along ``axis``."""
        return self.context.iota(shape, axis, element)

    def swap(self, x: SSAValue) -> SSAValue:
        """The last two dimensions exchanged."""
        rank = len(self.shape(x))
        return self.context.transpose(x, [*range(rank - 2), rank - 1, rank - 2])

    def split_heads(self, x: SSAValue, heads: int) -> SSAValue:
        """``[B, M, H*D]`` -> ``[B, H, M, D]``."""
        batch, tokens, features = self.shape(x)
        return self.context.transpose(self.context.reshape(x, (batch, tokens, heads, features // heads)), (0, 2, 1, 3))

    def merge_heads(self, x: SSAValue) -> SSAValue:
        """``[B, H, M, D]`` -> ``[B, M, H*D]``."""
        batch, heads, tokens, size = self.shape(x)
        return self.context.reshape(self.context.transpose(x, (0, 2, 1, 3)), (batch, tokens, heads * size))

    def pad(self, x: SSAValue, low: Shape, high: Shape, value: float = 0.0) -> SSAValue:
        """``x`` with constants around it."""
        return x if not any((*low, *high)) else self.context.emit(nn.PadOp(x, low, high, "constant", value))

    def softmax(self, x: SSAValue, axis: int = -1) -> SSAValue:
        """Softmax along ``axis``."""
        return self.context.emit(nn.SoftmaxOp(x, axis))

    def grow(self, x: SSAValue, rank: int, axis: int = 1) -> SSAValue:
        """A vector as a tensor of ``rank`` dimensions that varies along ``axis`` alone."""
        shape = [1] * rank
        shape[axis] = self.shape(x)[0]
        return self.context.reshape(x, shape)
