"""``spill``: what does not fit local memory goes to DRAM, and large operations work in loops over rows.

First, operations whose own operands and results do not fit get a loop (:mod:`pimc.passes.row_loops`); what the loops
read and write is in DRAM.  Then, while the values that live at once at some place do not fit beside what ``tile`` needs
there, the one whose bytes times remaining life are the largest, and that is not used there, goes to DRAM and is read
back before its next uses.  A module whose values all fit stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from typing_extensions import override
from xdsl.dialects import func, scf
from xdsl.dialects.builtin import IntAttr, ModuleOp, StringAttr, TensorType
from xdsl.ir import Block, Operation, SSAValue

from pimc.diagnostics import DoesNotFitError
from pimc.ir import nn, pim
from pimc.ir.locations import where
from pimc.ir.memory_map import ATTRIBUTE, MemoryMap
from pimc.ir.pim.values import REGION, areas_of
from pimc.ir.stages import Stage
from pimc.passes.base import Pass, PassContext
from pimc.passes.held import Held, local_bytes, room_of
from pimc.passes.layout import rows_space
from pimc.passes.machine import Machine
from pimc.passes.row_loops import chains, fill_before, gemm_need, spilled

REASON = "pim.spill"
#: Operations whose results are other views of their operands' elements: they share their memory.
VIEWS = (nn.ReshapeOp, nn.TransposeOp, nn.SliceOp, nn.BroadcastToOp)


@dataclass(frozen=True)
class SpillPass(Pass):
    """Bring what local memory does not hold to DRAM.

    ``loops``: let operations that do not fit work in loops over rows, which read weights once for each block.
    """

    name = "spill"
    requires = Stage.LAID_OUT
    loops: bool = True

    @override
    def run(self, module: ModuleOp, context: PassContext) -> None:
        machine = Machine(context.target)
        room = room_of(context.target)
        for block in list(_blocks(module)) if self.loops else ():
            _make_loops(module, machine, block, room, context)
        given_up: set[Operation] = set()
        while (full := _first_full(module, machine, room, given_up)) is not None:
            held, op, need = full
            found = list(_candidates(held, op))
            if sum(local_bytes(value) for _, value, _ in found) < need - room:
                given_up.add(op)  # it does not fit by itself
                continue
            _, value, around = max(found, key=lambda each: each[0])
            _spill(value, around, f"{need} bytes at {where(op)} do not fit {room}", context)
        place_values(module, machine)


def _blocks(module: ModuleOp) -> Iterator[Block]:
    for op in module.walk():
        if isinstance(op, func.FuncOp | scf.ForOp):
            yield from (block for region in op.regions for block in region.blocks)


def _make_loops(module: ModuleOp, machine: Machine, block: Block, room: int, context: PassContext) -> None:
    """Give the operations of a block that do not fit their loops."""
    failed: set[Operation] = set()
    while True:
        found = (chain for chain in chains(machine, Held.of(module), block, room) if chain.ops[0] not in failed)
        chain = next(found, None)
        if chain is None:
            return
        size = chain.best_block(room)
        if size is None:
            failed.add(chain.ops[0])
            continue
        groups, per_group = chain.rows.groups
        names = ", ".join(op.name for op in chain.ops)
        reason = f"{names}: {size} of {per_group} rows of {groups} runs at a time"
        loop = chain.build(size)
        loop.attributes[REASON] = StringAttr(reason)
        context.explain(loop, reason)


def _first_full(
    module: ModuleOp, machine: Machine, room: int, given_up: set[Operation]
) -> tuple[Held, Operation, int] | None:
    """The first place where values do not fit, and the bytes there."""
    held = Held.of(module)
    for op in module.walk():
        if isinstance(op, nn.NnOp | pim.GemmOp | pim.GemvOp | pim.LayoutChangeOp) and op not in given_up:
            if isinstance(op, nn.ParamOp | nn.ConstantOp):
                continue
            need = held.bytes(op) + gemm_need(machine, op)
            if need > room:
                return held, op, need
    return None


def _candidates(held: Held, op: Operation) -> Iterator[tuple[int, SSAValue, Operation]]:
    """The values that are held at a place and not used there: bytes times remaining life, and the operation of the
    value's block behind which it is needed again.
    """
    around: Operation | None = op
    while around is not None and not isinstance(around, func.FuncOp):
        block = around.parent_block()
        if block is None:
            return
        place = {other: index for index, other in enumerate(block.ops)}
        for value in held.needed_behind(block, around):
            users = [
                block.find_ancestor_op_in_block(use.operation) for use in value.uses if not _is_spill(use.operation)
            ]
            behind = [place[user] for user in users if user is not None and place[user] > place[around]]
            if behind and _can_move(held, value) and around not in users and not _is_filled_for(value, around):
                yield local_bytes(value) * (max(behind) - place[around]), value, around
        around = around.parent_op()
    if around is not None:
        for call in held.calls.get(around.sym_name.data, ()):
            yield from _candidates(held, call)


def _is_spill(op: Operation) -> bool:
    """Whether an operation brings its operand to DRAM: it is done there, right behind where the value is made."""
    return isinstance(op, pim.SpillOp)


def _is_filled_for(value: SSAValue, around: Operation) -> bool:
    """Whether a value has been read back for an operation, and only other such reads for it stand in between."""
    if not isinstance(value.owner, pim.FillOp):
        return False
    op: Operation | None = around
    while isinstance(op, pim.FillOp):
        op = op.next_op
    return any(user.operation is op for user in value.uses)


def _can_move(held: Held, value: SSAValue) -> bool:
    """Whether a value may go to DRAM, and that frees memory."""
    if not isinstance(value.type, TensorType) or not nn.is_float(value.type.element_type) or not local_bytes(value):
        return False
    if isinstance(value.owner, (nn.ParamOp, nn.ConstantOp, nn.PositionsOp, *VIEWS)):
        return False
    if any(isinstance(use.operation, VIEWS) for use in value.uses):
        return False
    if isinstance(value.owner, Block):
        function = value.owner.parent_op()
        if isinstance(function, func.FuncOp):
            index = value.owner.args.index(value)
            return not any(_needed_behind(held, call, index) for call in held.calls.get(function.sym_name.data, ()))
    return True


def _needed_behind(held: Held, call: func.CallOp, index: int) -> bool:
    block = call.parent_block()
    return block is not None and call.arguments[index] in set(held.needed_behind(block, call))


def _spill(value: SSAValue, around: Operation, reason: str, context: PassContext) -> None:
    """Bring a value to DRAM, and back before each use behind ``around``."""
    block = around.parent_block()
    assert block is not None  # the candidate's
    size, source = local_bytes(value), spilled(value)
    if isinstance(source.owner, Operation):
        text = f"{size} bytes to DRAM: {reason}"
        source.owner.attributes[REASON] = StringAttr(text)
        context.explain(source.owner, text)
    for user in list(dict.fromkeys(use.operation for use in value.uses if not _is_spill(use.operation))):
        place = block.find_ancestor_op_in_block(user)
        if place is not None and around.is_before_in_block(place):
            fill_before(user, value, source)


def place_values(module: ModuleOp, machine: Machine) -> None:
    """Give every value in DRAM a place behind all that is there."""
    makers = [op for op in module.walk() if isinstance(op, pim.SpillOp | pim.EmptyOp) and REGION not in op.attributes]
    if not makers:
        return
    memory, space = MemoryMap.of(module), rows_space(machine)
    address, regions = memory.rows * space, []
    for number, op in enumerate(makers):
        areas = areas_of(nn.tensor_of(op.output), machine.target.hbm.column_bytes)
        size = sum(area.bytes for area in areas)
        numbers = (address, size, 0, 0, 0, 1, size, 0, 0)
        region = pim.RegionAttr(StringAttr("value"), StringAttr(f"value.{number}"), *(IntAttr(n) for n in numbers))
        op.attributes[REGION] = region
        regions.append(region)
        address += size
    rows = -(-address // space)
    if rows > machine.target.hbm.rows:
        raise DoesNotFitError(
            f"the values that local memory does not hold need rows up to {rows} of each bank, {machine.target.name} "
            f"has {machine.target.hbm.rows}",
            hint="fewer tokens, a smaller batch, or a target with more memory",
        )
    module.attributes[ATTRIBUTE] = replace(memory, linear=(*memory.linear, *regions), rows=rows).attribute()
