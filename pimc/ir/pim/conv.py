"""Convolutions over stored weights: cut by output channels, whose weights a core has, or by images or rows."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override
from xdsl.dialects.builtin import IntegerAttr, TensorType, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from pimc.ir.layout import LayoutAttr, ShardAttr, layout_of
from pimc.ir.nn.base import shape_of, values_of
from pimc.ir.nn.conv import IntegersAttr, Window, conv_space
from pimc.ir.nn.layouts import layout_under
from pimc.ir.nn.space import Space

AnyTensor = TensorType[Attribute]
#: Dimensions of a convolution's tensors: images, channels, and the first of those that the window moves along.
IMAGES, CHANNELS, ROWS = range(3)


@irdl_op_definition
class ConvOp(IRDLOperation):
    """``nn.conv`` over stored weights, the result cut along one dimension in one round.

    By output channels (dimension 1): x is whole, and a core has the weights of its block.  Of several groups of
    channels a block is a part of one, or some whole ones, so that all cores run one program.  By images (dimension 0)
    or rows (2): x is cut so that a core has all that its part needs, rows of its neighbours' too, and every core has
    all weights.
    """

    name = "pim.conv"
    x = operand_def(AnyTensor)
    weight = operand_def(AnyTensor)
    bias = opt_operand_def(AnyTensor)
    strides = prop_def(IntegersAttr)
    dilations = prop_def(IntegersAttr)
    low = prop_def(IntegersAttr)
    high = prop_def(IntegersAttr)
    groups = prop_def(IntegerAttr.constr(i64))
    output = result_def(AnyTensor)
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    traits = traits_def(Pure())
    assembly_format = (
        "$x `,` $weight (`bias` $bias^ `:` type($bias))? attr-dict `:` type($x) `,` type($weight) `->` type($output)"
    )

    def __init__(
        self,
        operands: Sequence[SSAValue],
        bias: SSAValue | None,
        properties: dict[str, Attribute],
        result_type: Attribute,
    ) -> None:
        """``operands``: x and the weight; ``properties``: all of the op's."""
        given = [] if bias is None else [bias]
        super().__init__(operands=[*operands, given], properties=properties, result_types=[result_type])

    @property
    def window(self) -> Window:
        """How the window moves."""
        return Window(*(values_of(each) for each in (self.strides, self.dilations, self.low, self.high)))

    @property
    def counts(self) -> tuple[int, ...]:
        """Places of the window: the sizes of a channel of the result."""
        return self.window.counts(shape_of(self.x)[2:], shape_of(self.weight)[2:])

    @property
    def cut(self) -> tuple[int, ShardAttr]:
        """The dimension of the result that is cut, and how."""
        layout = layout_of(self.output.type)
        assert layout is not None  # the verifier's
        ((dim, shard),) = layout.cuts.items()
        return dim, shard

    @property
    def outputs_per_core(self) -> int:
        """Output channels that a core computes."""
        dim, shard = self.cut
        return shard.max_local_size if dim == CHANNELS else shape_of(self.weight)[0]

    @property
    def region(self) -> str:
        """The kind of the weights' region (see ``RegionAttr``)."""
        return "kernels" if self.cut[0] == CHANNELS else "all_kernels"

    def space(self) -> Space:
        """The iteration space: that of ``nn.conv``."""
        groups, bias = self.groups.value.data, self.bias is not None
        return conv_space(shape_of(self.x), shape_of(self.weight), self.window, groups, bias=bias)

    @override
    def verify_(self) -> None:
        x, weight, groups = shape_of(self.x), shape_of(self.weight), self.groups.value.data
        if len(x) < 3 or len(weight) != len(x) or groups < 1 or x[1] != weight[1] * groups or weight[0] % groups:
            raise VerifyException(f"weights {weight} in {groups} group(s) do not fit {x}")
        counts = self.counts
        if min(counts) < 1 or shape_of(self.output) != (x[0], weight[0], *counts):
            raise VerifyException(f"the result is {shape_of(self.output)}, not {(x[0], weight[0], *counts)}")
        layout = layout_of(self.output.type)
        if layout is None or len(layout.cuts) != 1 or min(layout.cuts) > ROWS:
            raise VerifyException("the result must be cut along one of its first three dimensions")
        layout.check(shape_of(self.output))
        ((dim, shard),) = layout.cuts.items()
        if len(shard.shard_rounds) != 1:
            raise VerifyException("the result must be cut in one round")
        if layout_of(self.x.type) != operand_layout(self.space(), dim, shard):
            raise VerifyException("the operand of a convolution must be cut as its result's parts need it")
        block, group = shard.max_local_size, weight[0] // groups
        if dim == CHANNELS and groups > 1 and group % block and block % group:
            raise VerifyException(f"a block of {block} channels is no part of a group of channels, nor whole groups")


def operand_layout(space: Space, dim: int, shard: ShardAttr) -> LayoutAttr | None:
    """The layout of x in a convolution whose result is cut so; None: whole.

    Raises VerifyException where no layout is right.
    """
    if dim == CHANNELS:
        return None
    return layout_under(space, space.operands[0], {"b" if dim == IMAGES else "y0": shard})
