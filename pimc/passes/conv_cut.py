"""Convolutions over the cores: by output channels, by images or by rows of them, whichever is estimated fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import VerifyException

from pimc.backends.lower.sliding import BLOCK_SHARE, LEAST_SHARE
from pimc.ir import nn, pim
from pimc.ir.layout import LayoutAttr, ShardAttr, ShardRound, with_layout
from pimc.ir.nn.base import shape_of
from pimc.ir.pim.conv import CHANNELS, IMAGES, ROWS, operand_layout
from pimc.passes.machine import Machine
from pimc.passes.relayout import Relayout, fits

#: Percent of the activation memory that a convolution's operand, its result, and blocks of both may take together.
MEMORY_PERCENT = 75
#: Instructions around a product of the tensor unit, and around a block of sums.
PRODUCT_CYCLES, BLOCK_CYCLES = 12, 60
_HALF = 2


def outputs_per_core(outputs: int, groups: int, cores: int) -> int:
    """Output channels of a core, so that all cores have as many: a part of a group of channels, or whole groups."""
    group, least = outputs // groups, -(-outputs // cores)
    if groups == 1:
        return least
    if least >= group:
        return -(-least // group) * group
    return next(count for count in range(least, group + 1) if group % count == 0)


@dataclass(frozen=True)
class ConvCut:
    """One way to cut a convolution: a dimension of its result, and what x has to be then."""

    op: nn.ConvOp
    dim: int
    shard: ShardAttr
    x: LayoutAttr | None

    @property
    def _part(self) -> tuple[int, int, list[int]]:
        """(images, output channels, positions of the window) of a core."""
        images, outputs, *counts = shape_of(self.op.result)
        own = [images, outputs, *counts]
        own[self.dim] = self.shard.max_local_size
        return own[IMAGES], own[CHANNELS], own[ROWS:]

    @property
    def _held(self) -> int:
        """Elements of x that a core holds."""
        shape, cuts = shape_of(self.op.x), {} if self.x is None else self.x.cuts
        return prod(cuts[dim].max_local_size if dim in cuts else size for dim, size in enumerate(shape))

    @property
    def _weights(self) -> int:
        """Bytes of the weights that a core reads."""
        return _HALF * self._part[1] * prod(shape_of(self.op.weight)[1:])

    def bytes(self, memory: int) -> int:
        """Estimated bytes of the activation memory: x, the result, and blocks of x in phases and of weights."""
        images, outputs, counts = self._part
        blocks = min(_HALF * self._held // images, memory // BLOCK_SHARE) + min(self._weights, memory // LEAST_SHARE)
        return _HALF * (self._held + images * outputs * prod(counts)) + blocks

    def time(self, layouts: Relayout) -> int:
        """Estimated time: the change of x, the weights, and the longer of products and what issues them."""
        machine, weight = layouts.machine, shape_of(self.op.weight)
        tcu, period = machine.target.tcu, machine.target.clock.core_period_fs
        images, outputs, counts = self._part
        groups = min(self.op.groups.value.data, max(1, outputs * self.op.groups.value.data // weight[0]))
        run = counts[0] * prod(size + last for size, last in zip(counts[1:], weight[3:], strict=True))
        memory = machine.target.memory("activation").bytes
        rows = max(1, min(tcu.rows, memory // BLOCK_SHARE // (_HALF * prod(weight[1:]))))  # of weights at once
        blocks = images * groups * -(-outputs // groups // rows) * -(-run // tcu.columns)
        product = max(weight[1], PRODUCT_CYCLES)
        cycles = blocks * (prod(weight[2:]) * product + tcu.fill_cycles + BLOCK_CYCLES)
        whole = self._weights <= memory // BLOCK_SHARE
        weights = machine.stream_fs(self._weights) * (1 if whole else images)
        change = layouts.time_to(self.op.x, self.x)
        return cycles * period + weights + change + machine.vector_fs(self._held)

    def why(self) -> str:
        """The cut in words."""
        images, outputs, counts = self._part
        if self.dim == CHANNELS:
            return f"{outputs} of {shape_of(self.op.weight)[0]} output channels a core, whose weights it holds"
        what, own, all_ = ("images", images, shape_of(self.op.result)[0])
        if self.dim == ROWS:
            what, own, all_ = "rows", counts[0], shape_of(self.op.result)[ROWS]
        return f"{own} of {all_} {what} a core, which holds all weights"


def conv_cuts(op: nn.ConvOp, machine: Machine) -> Iterator[ConvCut]:
    """Ways to cut a convolution over stored weights."""
    shape, cores = shape_of(op.result), machine.cores
    mine = outputs_per_core(shape[CHANNELS], op.groups.value.data, cores)
    yield ConvCut(op, CHANNELS, ShardAttr.of([ShardRound(0, 0, -(-shape[CHANNELS] // mine), mine)]), None)
    for dim in (ROWS, IMAGES):
        shard = ShardAttr.blocks(shape[dim], cores)
        try:
            x = operand_layout(op.space(), dim, shard)
        except VerifyException:
            continue
        if x is not None and fits(x, shape_of(op.x)):
            yield ConvCut(op, dim, shard, x)


def cut_conv(op: nn.ConvOp, layouts: Relayout, bias: SSAValue | None) -> tuple[pim.ConvOp, str]:
    """The convolution with its result cut over the cores, and why."""
    machine = layouts.machine
    memory = machine.target.memory("activation").bytes
    budget = memory * MEMORY_PERCENT // 100
    best = min(conv_cuts(op, machine), key=lambda cut: (max(0, cut.bytes(memory) - budget), cut.time(layouts)))
    result = TensorType(nn.tensor_of(op.result).element_type, shape_of(op.result))
    properties: dict[str, Attribute] = {
        name: value for name, value in op.properties.items() if name != "operandSegmentSizes"
    }
    x = layouts.to(op.x, best.x)
    new = pim.ConvOp((x, op.weight), bias, properties, with_layout(result, LayoutAttr.of({best.dim: best.shard})))
    return new, best.why()
