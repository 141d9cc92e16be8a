"""Program order: every operation of a structured program at a place, with the loops around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from xdsl.ir import Block, Operation, SSAValue

from pimc.ir import sram
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram_control import ForOp, IfOp


@dataclass
class ProgramOrder:
    """Places of the operations of a block: ``start`` in textual order, ``end`` behind the last one nested in
    it.

    An operation without regions has one place; a loop its head (``start``) and its end, where it branches
    back.
    """

    operations: list[Operation] = field(default_factory=list)
    start: dict[Operation, int] = field(default_factory=dict)
    end: dict[Operation, int] = field(default_factory=dict)
    length: int = 0

    @staticmethod
    def of(block: Block) -> ProgramOrder:
        """The order of a program's body."""
        order = ProgramOrder()
        order._number(block)
        return order

    def _number(self, block: Block) -> None:
        for op in block.ops:
            self.start[op] = self.end[op] = self.length
            self.operations.append(op)
            self.length += 1
            for region in op.regions:
                self._number(region.block)
            if op.regions:
                self.end[op] = self.length
                self.length += 1


def enclosing_loops(op: Operation) -> Iterator[ForOp]:
    """The loops around ``op``, innermost first."""
    parent = op.parent_op()
    while parent is not None:
        if isinstance(parent, ForOp):
            yield parent
        parent = parent.parent_op()


def is_inside(op: Operation, block: Block | None) -> bool:
    """Whether ``op`` is in ``block`` or nested in it."""
    current = op.parent
    while current is not None:
        if current is block:
            return True
        parent = current.parent_op()
        current = parent.parent if parent is not None else None
    return False


def in_block(op: Operation, block: Block) -> Operation:
    """The operation of ``block`` that ``op`` is, or is nested in."""
    while op.parent is not block:
        parent = op.parent_op()
        assert parent is not None  # op is inside the block
        op = parent
    return op


class Constant(NamedTuple):
    """What makes two constants the same: where the numbers come from ("" for plain ones), and the numbers."""

    origin: str
    values: tuple[int, ...]


#: The constant that r0 holds.
ZERO = Constant("", (0,))


def identity(value: SSAValue) -> Constant | None:
    """The constant that ``value`` is; None if it is none."""
    owner = value.owner
    if not isinstance(owner, sram.ConstOp):
        return None
    return Constant(owner.origin.data if owner.origin is not None else "", numbers(owner.values))


def constant(value: SSAValue) -> tuple[int, ...] | None:
    """The numbers of a constant, one or one a core; None if the value is none."""
    return numbers(value.owner.values) if isinstance(value.owner, sram.ConstOp) else None


def runs_at_least_once(loop: ForOp) -> bool:
    """Whether the bounds show that the loop runs an iteration on every core."""
    lower, upper = identity(loop.lower), identity(loop.upper)
    if lower is None or upper is None or lower.origin or upper.origin:
        return False
    if len(lower.values) == 1 or len(upper.values) == 1:
        return max(lower.values) < min(upper.values)
    return all(a < b for a, b in zip(lower.values, upper.values, strict=True))


def is_conditional(op: Operation, within: Block | None) -> bool:
    """Whether a branch, or a loop that may run no iteration, stands between ``op`` and ``within``."""
    current = op
    while current.parent is not None and current.parent is not within:
        parent = current.parent_op()
        if parent is None:
            return True
        if isinstance(parent, IfOp) or (isinstance(parent, ForOp) and not runs_at_least_once(parent)):
            return True
        current = parent
    return False
