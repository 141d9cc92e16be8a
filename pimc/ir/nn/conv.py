"""A window moves over the last dimensions of x, of which there may be any number: convolution, and pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override
from xdsl.dialects.builtin import DenseArrayBase, IntegerType, TensorType, i1
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, opt_operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from pimc.ir.nn.base import (
    IntegerAttrI64,
    NnOp,
    OpClass,
    Value,
    check,
    check_float,
    check_shape,
    construct,
    integer,
    integers,
    shape_of,
    tensor_of,
    values_of,
)
from pimc.ir.nn.space import Access, Dim, Index, Space, Work, access, at, dims_of

IntegersAttr = DenseArrayBase.constr(IntegerType(64))
"""Constraint of an ``array<i64: ...>`` attribute."""


@dataclass(frozen=True)
class Window:
    """How a window moves: for each dimension of it the step, the distance of its places, and the padding with zeros
    before and behind x.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    @staticmethod
    def plain(strides: Sequence[int], dilations: Sequence[int]) -> Window:
        """A window without padding."""
        none = (0,) * len(strides)
        return Window(tuple(strides), tuple(dilations), none, none)

    def without_padding(self, dim: int) -> Window:
        """The window over an x that has what is around it along one dimension already."""
        low, high = ((*each[:dim], 0, *each[dim + 1 :]) for each in (self.low, self.high))
        return Window(self.strides, self.dilations, low, high)

    def on_parts(self, sizes: Sequence[int], window: Sequence[int], positions: Sequence[range]) -> Window:
        """The window over the part of ``sizes`` that these positions of it meet: padded only at the ends of x."""
        low, high = list(self.low), list(self.high)
        for dim, (own, size, places) in enumerate(zip(positions, sizes, window, strict=True)):
            if own:
                start = own[0] * self.strides[dim] - self.low[dim]
                stop = own[-1] * self.strides[dim] - self.low[dim] + self.dilations[dim] * (places - 1) + 1
                low[dim], high[dim] = max(0, -start), max(0, stop - size)
        return Window(self.strides, self.dilations, tuple(low), tuple(high))

    def counts(self, sizes: Sequence[int], window: Sequence[int]) -> tuple[int, ...]:
        """How often a window of these sizes fits over ``sizes``; less than 1 where it does not."""
        return tuple(
            (size + low + high - (dilation * (places - 1) + 1)) // stride + 1
            for size, places, stride, dilation, low, high in zip(
                sizes, window, self.strides, self.dilations, self.low, self.high, strict=True
            )
        )


def window_of(op: ConvOp | MaxPoolOp) -> Window:
    """How the window of a convolution or a pooling moves."""
    return Window(*(values_of(each) for each in (op.strides, op.dilations, op.low, op.high)))


def check_window(window: Window, rank: int, what: str) -> None:
    """The numbers of a window over ``rank`` dimensions."""
    check(rank >= 1, f"{what} x must have batch, channels and at least one more dimension")
    for name, numbers in vars(window).items():
        check(len(numbers) == rank, f"{what} {name} must have {rank} number(s), has {len(numbers)}")
        least = int(name in ("strides", "dilations"))
        check(min(numbers) >= least, f"{what} {name} must be at least {least}, are {list(numbers)}")


def check_places(window: Window, sizes: Sequence[int], places: Sequence[int], what: str) -> tuple[int, ...]:
    """How often a window of ``places`` fits over ``sizes``, which is at least once."""
    check(min(places) >= 1, f"{what}: a window without places, {list(places)}")
    counts = window.counts(sizes, places)
    check(min(counts) >= 1, f"{what}: a window {list(places)} does not fit {list(sizes)} with its padding")
    return counts


def window_reads(window: Window, positions: Sequence[Dim], cells: Sequence[Dim]) -> tuple[Index, ...]:
    """Where x is read for a position of the window and a cell in it."""
    return tuple(
        Index(((position.name, stride), (cell.name, dilation)), -low)
        for position, cell, stride, dilation, low in zip(
            positions, cells, window.strides, window.dilations, window.low, strict=True
        )
    )


def window_properties(window: Window) -> dict[str, Attribute | None]:
    """A window as properties of an operator."""
    return {name: integers(numbers) for name, numbers in vars(window).items()}


@irdl_op_definition
class ConvOp(NnOp):
    """Convolution: x ``[N, C, sizes...]``, weight ``[O, C / groups, window...]``, bias ``[O]``, result ``[N, O, ...]``.

    ``result[b, o, y...] = bias[o] + sum of x[b, c, strides * y + dilations * u - low...] * weight[o, c, u...]`` over c
    and u; outside of x are zeros, ``low`` before it and ``high`` behind it.  With ``groups``, output channels and input
    channels are cut in so many equal parts, and each part of the outputs sees its part of the inputs alone.
    """

    name = "nn.conv"
    CLASS: ClassVar[OpClass] = "gemm"

    x = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    strides = prop_def(IntegersAttr)
    dilations = prop_def(IntegersAttr)
    low = prop_def(IntegersAttr)
    high = prop_def(IntegersAttr)
    groups = prop_def(IntegerAttrI64)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, weight: Value, bias: Value | None, window: Window, groups: int = 1) -> None:
        properties = {**window_properties(window), "groups": integer(groups)}
        construct(self, [x, weight, [bias] if bias is not None else []], properties)

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, weight = tensor_of(self.x, "nn.conv x"), tensor_of(self.weight, "nn.conv weight")
        check_float(x, "nn.conv x")
        check_float(weight, "nn.conv weight")
        rank, groups, window = len(x.get_shape()) - 2, self.groups.value.data, window_of(self)
        check_window(window, rank, "nn.conv")
        batch, channels, *sizes = x.get_shape()
        check(
            groups >= 1 and channels % groups == 0, f"nn.conv: {channels} channels are no multiple of {groups} groups"
        )
        check_shape(weight, (None, channels // groups, *(None,) * rank), "nn.conv weight")
        outputs, _, *places = weight.get_shape()
        check(outputs % groups == 0, f"nn.conv: {outputs} output channels are no multiple of {groups} groups")
        counts = check_places(window, sizes, places, "nn.conv")
        if self.bias is not None:
            bias = tensor_of(self.bias, "nn.conv bias")
            check_shape(bias, (outputs,), "nn.conv bias")
            check_float(bias, "nn.conv bias")
        return [TensorType(x.element_type, (batch, outputs, *counts))]

    @override
    def space(self) -> Space:
        bias = self.bias is not None
        return conv_space(shape_of(self.x), shape_of(self.weight), window_of(self), self.groups.value.data, bias=bias)

    @override
    def on_parts(self, parts: Mapping[str, range]) -> dict[str, Attribute]:
        return _window_on_parts(self, shape_of(self.weight)[2:], parts)


def conv_space(x: Sequence[int], weight: Sequence[int], window: Window, groups: int, *, bias: bool) -> Space:
    """The iteration space of a convolution of tensors of these shapes."""
    result = (x[0], weight[0], *window.counts(x[2:], weight[2:]))
    batch, group, output = Dim("b", x[0]), Dim("g", groups), Dim("o", weight[0] // groups)
    places = dims_of(result[2:], "y")
    channel = Dim("c", weight[1], "reduced", "sum")
    cells = tuple(Dim(f"u{dim}", count, "reduced", "sum") for dim, count in enumerate(weight[2:]))
    grouped = (("g", weight[1]),) if groups > 1 else ()
    row = Index(((("g", output.size),) if groups > 1 else ()) + (("o", 1),))
    operands = [
        Access(tuple(x), (*at("b"), Index((*grouped, ("c", 1))), *window_reads(window, places, cells))),
        Access(tuple(weight), (row, *at("c", *(cell.name for cell in cells)))),
    ]
    if bias:
        operands.append(Access((weight[0],), (row,)))
    written = Access(result, (*at("b"), row, *access(result[2:], places).indices))
    outer = (batch, *([group] if groups > 1 else []), output, *places)
    work = (Work(2), Work(int(bias), tuple(dim.name for dim in outer)))
    return Space((*outer, channel, *cells), tuple(operands), (written,), work)


@irdl_op_definition
class MaxPoolOp(NnOp):
    """Greatest element under a window: x ``[N, C, sizes...]``, result ``[N, C, ...]``.

    ``result[b, c, y...] = max of x[b, c, strides * y + dilations * u - low...]`` over u in ``places``; outside of x is
    the lowest number of the type.  NaN if an element is.
    """

    name = "nn.max_pool"

    x = operand_def(TensorType)
    places = prop_def(IntegersAttr)
    strides = prop_def(IntegersAttr)
    dilations = prop_def(IntegersAttr)
    low = prop_def(IntegersAttr)
    high = prop_def(IntegersAttr)
    result = result_def(TensorType)

    traits = traits_def(Pure())

    def __init__(self, x: Value, places: Sequence[int], window: Window) -> None:
        construct(self, [x], {**window_properties(window), "places": integers(places)})

    @override
    def infer_types(self) -> Sequence[Attribute]:
        x, window, places = tensor_of(self.x, "nn.max_pool x"), window_of(self), values_of(self.places)
        rank = len(x.get_shape()) - 2
        check_window(window, rank, "nn.max_pool")
        check(len(places) == rank, f"nn.max_pool places must have {rank} number(s), has {len(places)}")
        check(x.element_type != i1, "nn.max_pool takes numbers, not i1")
        batch, channels, *sizes = x.get_shape()
        return [TensorType(x.element_type, (batch, channels, *check_places(window, sizes, places, "nn.max_pool")))]

    @override
    def space(self) -> Space:
        x, result = shape_of(self.x), shape_of(self.result)
        lead, positions = (Dim("b", x[0]), Dim("c", x[1])), dims_of(result[2:], "y")
        cells = tuple(Dim(f"u{dim}", count, "reduced", "max") for dim, count in enumerate(values_of(self.places)))
        read = Access(x, (*at("b", "c"), *window_reads(window_of(self), positions, cells)))
        dims = (*lead, *positions)
        return Space((*dims, *cells), (read,), (access(result, dims),), (Work(1),))

    @override
    def on_parts(self, parts: Mapping[str, range]) -> dict[str, Attribute]:
        return _window_on_parts(self, self.places.get_values(), parts)


def _window_on_parts(op: ConvOp | MaxPoolOp, places: Sequence[int], parts: Mapping[str, range]) -> dict[str, Attribute]:
    """The properties of an operator with a window of these sizes on parts of its operands."""
    counts = shape_of(op.result)[2:]
    positions = [parts.get(f"y{dim}", range(count)) for dim, count in enumerate(counts)]
    window = window_of(op).on_parts(shape_of(op.x)[2:], places, positions)
    return {**op.properties, **{name: value for name, value in window_properties(window).items() if value}}
