"""Small tools of the raising patterns: looking through operands, constants, replacing, and noting why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from xdsl.ir import Block, Operation, SSAValue

from pimc.ir import nn
from pimc.ir.interpreter.core import dense_values
from pimc.ir.locations import with_location

OpT = TypeVar("OpT", bound=Operation)


@dataclass
class Notes:
    """Why patterns that nearly matched did not; ``explain`` is told of each (:meth:`PassContext.explain`)."""

    explain: Callable[[Operation, str], None]

    def refuse(self, op: Operation, pattern: str, reason: str) -> None:
        """Note that ``pattern`` was tried at ``op`` and refused."""
        self.explain(op, f"no {pattern}: {reason}")


class Replacer:
    """Replacement of operations in place, with the location handed on."""

    @staticmethod
    def insert(before: Operation, op: OpT) -> OpT:
        """Insert ``op`` in front of ``before``, with its location."""
        block = before.parent
        assert isinstance(block, Block)
        block.insert_op_before(with_location(op, before), before)
        return op

    @staticmethod
    def replace(old: Operation, *new: Operation) -> SSAValue:
        """Insert ``new`` in front of ``old``; the last one's result takes the place of ``old``'s.

        ``old`` stays until dead operations are removed, so that walks over a list of operations stay valid.
        """
        for op in new:
            Replacer.insert(old, op)
        result = new[-1].results[0]
        old.results[0].replace_all_uses_with(result)
        return result


def producer(value: SSAValue, kind: type[OpT]) -> OpT | None:
    """The operation that computes ``value`` if it is of the kind."""
    owner = value.owner
    return owner if isinstance(owner, kind) else None


def scalar(value: SSAValue) -> float | None:
    """The number, where ``value`` is a constant whose elements are all equal (also through views)."""
    owner = value.owner
    while isinstance(owner, nn.ReshapeOp | nn.BroadcastToOp | nn.CastOp):
        owner = owner.x.owner
    if not isinstance(owner, nn.ConstantOp):
        return None
    numbers = np.unique(dense_values(owner.value))
    return float(numbers[0]) if numbers.size == 1 else None


def with_scalar(
    op: Operation | Block, kinds: type[nn.BinaryOp] | tuple[type[nn.BinaryOp], ...]
) -> tuple[SSAValue, float] | None:
    """``(x, c)`` where ``op`` is one of ``kinds`` applied to x and the constant c (in any order if
    commutative).
    """
    if not isinstance(op, kinds):
        return None
    if (number := scalar(op.rhs)) is not None:
        return op.lhs, number
    if isinstance(op, nn.AddOp | nn.MulOp) and (number := scalar(op.lhs)) is not None:
        return op.rhs, number
    return None


def other_operand(op: nn.BinaryOp, value: SSAValue) -> SSAValue | None:
    """The operand that is not ``value``; None if neither is."""
    if op.lhs is value:
        return op.rhs
    return op.lhs if op.rhs is value else None


def users(value: SSAValue) -> list[Operation]:
    """Operations that use ``value``."""
    return [use.operation for use in value.uses]


def only_user(value: SSAValue, kind: type[OpT]) -> OpT | None:
    """The single user of ``value``, if there is one only and it is of the kind."""
    found = users(value)
    return found[0] if len(found) == 1 and isinstance(found[0], kind) else None
