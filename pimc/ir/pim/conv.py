"""Convolutions over stored weights: each core has the weights of its output channels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

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

from pimc.ir.layout import shard_of
from pimc.ir.nn.base import shape_of, values_of
from pimc.ir.nn.conv import IntegersAttr, Window

AnyTensor = TensorType[Attribute]


@irdl_op_definition
class ConvOp(IRDLOperation):
    """``nn.conv`` of a replicated x, its output channels in equal blocks over the cores.

    The result is ``[N, O * places]``, cut in one round: a core's block of output channels, all places of each.  Of
    several groups of channels a block is a part of one, or some whole ones, so that all cores run one program.
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
    def outputs_per_core(self) -> int:
        """Output channels in a core's block."""
        shard = shard_of(self.output.type)
        assert shard is not None  # the verifier's
        (block,) = shard.shard_rounds
        return block.per_core // prod(self.counts)

    @override
    def verify_(self) -> None:
        x, weight, groups = shape_of(self.x), shape_of(self.weight), self.groups.value.data
        shard = shard_of(self.output.type)
        if shard_of(self.x.type) is not None:
            raise VerifyException("the operand of a convolution must be replicated")
        if len(x) < 3 or len(weight) != len(x) or groups < 1 or x[1] != weight[1] * groups or weight[0] % groups:
            raise VerifyException(f"weights {weight} in {groups} group(s) do not fit {x}")
        counts = self.counts
        if min(counts) < 1 or shape_of(self.output) != (x[0], weight[0] * prod(counts)):
            raise VerifyException(f"the result is {shape_of(self.output)}, not {(x[0], weight[0] * prod(counts))}")
        if shard is None or len(shard.shard_rounds) != 1:
            raise VerifyException("the result must be cut in one round (#pim.shard)")
        shard.check(weight[0] * prod(counts))
        block, group = shard.shard_rounds[0].per_core, weight[0] // groups
        mine = block // prod(counts)
        if block % prod(counts) or not mine or (groups > 1 and group % mine and mine % group):
            raise VerifyException(f"a block of {block} results is no part of a group of channels, nor whole groups")
