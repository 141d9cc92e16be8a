"""Convolutions over the cores: which output channels each core has."""

from __future__ import annotations

from math import prod

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue

from pimc.ir import nn, pim
from pimc.ir.nn.base import shape_of


def outputs_per_core(outputs: int, groups: int, cores: int) -> int:
    """Output channels of a core, so that all cores have as many: a part of a group of channels, or whole groups."""
    group, least = outputs // groups, -(-outputs // cores)
    if groups == 1:
        return least
    if least >= group:
        return -(-least // group) * group
    return next(count for count in range(least, group + 1) if group % count == 0)


def cut_conv(op: nn.ConvOp, x: SSAValue, bias: SSAValue | None, cores: int) -> tuple[pim.ConvOp, str]:
    """The convolution with its output channels cut over the cores, and why."""
    batch, outputs, *counts = shape_of(op.result)
    mine = outputs_per_core(outputs, op.groups.value.data, cores)
    block = pim.ShardRound(0, 0, -(-outputs // mine), mine * prod(counts))
    whole = TensorType(nn.tensor_of(op.result).element_type, (batch, outputs * prod(counts)))
    properties: dict[str, Attribute] = {
        name: value for name, value in op.properties.items() if name != "operandSegmentSizes"
    }
    new = pim.ConvOp((x, op.weight), bias, properties, pim.with_shard(whole, pim.ShardAttr.of([block])))
    return new, f"{mine} of {outputs} output channels a core, whose weights it holds"
