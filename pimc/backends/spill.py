"""Scalars that the registers cannot hold go to local memory: stored behind their definition, loaded before each use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from xdsl.ir import Operation

from pimc.backends.intervals import Interval, crowded
from pimc.backends.order import ProgramOrder, enclosing_loops
from pimc.ir.sram import INSTRUCTION_OPS, SramInstruction
from pimc.ir.sram_control import ForOp, ProgramOp
from pimc.ir.sram_structure import ConstOp

_WORD = 4
#: What an iteration counts for, against an operation outside the loop.
_ITERATIONS = 8


def spill(program: ProgramOp, registers: Sequence[int], reserve: int, room: range) -> None:
    """Put scalars in memory until the registers hold the others.

    Args:
        registers: those there are, of which ``reserve`` stay free at every place.
        room: free bytes of local memory; where they run out, the program stays with too many scalars.
    """
    for address in range(-(-room.start // _WORD) * _WORD, room.stop - _WORD + 1, _WORD):
        order = ProgramOrder.of(program.body.block)
        found = [interval for interval in crowded(order, registers, reserve) if _can_move(interval)]
        if not found:
            return
        _move(min(found, key=_cost), address)


def _can_move(interval: Interval) -> bool:
    """Whether a value is one instruction's, bounds no loop, and is used further on than in the next operations."""
    if len(interval.values) != 1:
        return False
    (value,) = interval.values
    owner = value.owner
    if not isinstance(owner, SramInstruction) or owner.INSTRUCTION.mnemonic == "lw":
        return False
    bound = any(isinstance(use.operation, ForOp) and use.index == 1 for use in value.uses)
    return not bound and interval.end - interval.start > 2 * _ITERATIONS


def _cost(interval: Interval) -> tuple[float, int]:
    """Stores and loads that a move adds, for each place that it frees."""
    (value,) = interval.values
    owner = value.owner
    assert isinstance(owner, Operation)  # as _can_move says
    touched: Iterable[Operation] = (owner, *(use.operation for use in value.uses))
    added = sum(_ITERATIONS ** len(list(enclosing_loops(op))) for op in touched)
    return added / (interval.end - interval.start), interval.start


def _move(interval: Interval, address: int) -> None:
    """Keep a value in the word at ``address``."""
    (value,) = interval.values
    owner = value.owner
    assert isinstance(owner, Operation)  # as _can_move says
    uses = [(use.operation, use.index) for use in value.uses]
    for op, index in uses:
        place = ConstOp(address)
        load = INSTRUCTION_OPS["lw"].build_op([place.result], {"imm": 0}, {})
        _insert([place, load], op, before=True)
        op.operands[index] = load.results[0]
    place = ConstOp(address)
    _insert([place, INSTRUCTION_OPS["sw"].build_op([value, place.result], {"imm": 0}, {})], owner, before=False)


def _insert(ops: list[Operation], at: Operation, *, before: bool) -> None:
    block = at.parent
    assert block is not None  # it is in the program
    for op in ops:
        op.location = at.location
    if before:
        block.insert_ops_before(ops, at)
    else:
        block.insert_ops_after(ops, at)
