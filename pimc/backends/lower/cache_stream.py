"""Keys and values of a KV head, streamed from DRAM in blocks of cache slots.

Slot j of a core of rank r in a group of n holds position ``j * n + r``.  A block is read under the work on the one
before it: keys and values have two buffers each, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects.builtin import SymbolRefAttr
from xdsl.ir import SSAValue

from pimc.backends.lower.context import LoweringContext
from pimc.backends.lower.heads import HeadGroup
from pimc.backends.lower.values import Buffer
from pimc.ir.pim.ops import AttentionOp


def slot_address(ctx: LoweringContext, cache: SymbolRefAttr, group: HeadGroup, layer: SSAValue) -> SSAValue:
    """A register with the HBM address of the first slot of a layer in a round of a cache."""
    name = cache.string_value()
    region = ctx.memory.cache(name, group.index)
    core = ctx.core
    base = core.const(region.region.base, f"{name}.{group.index}")
    stride = core.const(region.region.layer_stride, f"{name}.{group.index}.layer")
    return core.add(base, core.mul(layer, stride))


def slot_bytes(ctx: LoweringContext, cache: SymbolRefAttr, group: HeadGroup) -> int:
    """Bytes of a slot: a head's features, up to whole columns."""
    return ctx.memory.cache(cache.string_value(), group.index).row_bytes.data


def slots_up_to(ctx: LoweringContext, group: HeadGroup, position: SSAValue) -> SSAValue:
    """A register with how many slots of the core hold positions up to ``position``: none below its rank."""
    core = ctx.core
    ahead = core.sub(position, core.const(group.rank))
    return core.addi(core.srai(ahead, imm=group.shift), imm=1)


def slots_before(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, position: SSAValue) -> SSAValue:
    """A register with the first slot of the core that the query at ``position`` sees: later than 0 by a window."""
    core = ctx.core
    if op.window is None:
        return core.const(0)
    behind = core.sub(position, core.const(op.window.value.data))
    return core.max(slots_up_to(ctx, group, behind), core.const(0))


@dataclass(frozen=True)
class KvBlock:
    """A block in local memory: its first slot, its slots, and the addresses of its keys and values (registers)."""

    first: SSAValue
    count: SSAValue
    keys: SSAValue
    values: SSAValue


@dataclass(frozen=True)
class KvStream:
    """The slots of a layer's KV head on every core of a round, ``block`` at a time, ``pitch`` bytes apart."""

    block: int
    pitch: int
    sources: tuple[SSAValue, SSAValue]
    buffers: tuple[Buffer, Buffer]

    @staticmethod
    def of(ctx: LoweringContext, op: AttentionOp, group: HeadGroup, block: int) -> KvStream:
        """The stream of an attention's round; nothing is read yet."""
        pitch, layer = slot_bytes(ctx, op.k, group), ctx.scalar(op.layer)
        k, v = (slot_address(ctx, cache, group, layer) for cache in (op.k, op.v))
        buffers = [ctx.alloc(f"attention.{name}", 2 * block * pitch) for name in "kv"]
        return KvStream(block, pitch, (k, v), (buffers[0], buffers[1]))

    def begin(self, ctx: LoweringContext, first: SSAValue, stop: SSAValue) -> None:
        """Start to read the first block of slots ``first`` to ``stop`` (registers), for :meth:`blocks`."""
        self._read(ctx, first, stop, ctx.core.const(0))

    @contextmanager
    def blocks(self, ctx: LoweringContext, first: SSAValue, stop: SSAValue) -> Iterator[KvBlock]:
        """A loop over the blocks of slots ``first`` to ``stop``, behind :meth:`begin`; none where there is no slot."""
        core = ctx.core
        with core.loop_carrying(first, stop, [core.const(0)], self.block) as loop:
            (place,) = loop.carried
            other = core.sub(core.const(self.block * self.pitch), place)
            self._read(ctx, core.addi(loop.counter, imm=self.block), stop, other)
            count = core.min(core.sub(stop, loop.counter), core.const(self.block))
            keys, values = (core.add(core.address(buffer.value), place) for buffer in self.buffers)
            yield KvBlock(loop.counter, count, keys, values)
            loop.next = [other]

    def _read(self, ctx: LoweringContext, first: SSAValue, stop: SSAValue, place: SSAValue) -> None:
        """Start to read the block from slot ``first`` on, what there is of it, to byte ``place`` of the buffers."""
        core = ctx.core
        left = core.max(core.sub(stop, first), core.const(0))
        size = core.mul(core.min(left, core.const(self.block)), core.const(self.pitch))
        skip = core.mul(first, core.const(self.pitch))
        for source, buffer in zip(self.sources, self.buffers, strict=True):
            core.hrd(core.add(core.address(buffer.value), place), core.add(source, skip), size)
