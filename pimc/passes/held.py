"""What a core's local memory holds while an operation runs, through calls and loops.

A value takes memory from its definition to its last use.  One that a caller needs behind a call takes it throughout the
call, and one that is defined outside a loop and used in it, throughout the loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Block, Operation, SSAValue

from pimc.ir import nn
from pimc.ir.layout import layout_of
from pimc.ir.nn.base import element_bytes
from pimc.targets.target import Target

#: The part of the activation memory that is left for small buffers: biases, what messages bring.
SMALL_SHARE = 12


def room_of(target: Target) -> int:
    """Bytes of local memory for values and the large buffers of operations on them."""
    memory = target.memory("activation").bytes
    return memory - memory // SMALL_SHARE


@dataclass
class Held:
    """The values that are in local memory beside an operation."""

    calls: dict[str, list[func.CallOp]] = field(default_factory=dict)
    _across: dict[func.CallOp, frozenset[SSAValue]] = field(default_factory=dict)

    @staticmethod
    def of(module: ModuleOp) -> Held:
        """For the operations of a module."""
        held = Held()
        for op in module.walk():
            if isinstance(op, func.CallOp):
                held.calls.setdefault(op.callee.string_value(), []).append(op)
        return held

    def bytes(self, op: Operation) -> int:
        """Bytes in a core of an operation's operands and results, and of all values that are needed behind it.

        Where the function is called at several places, those of the one that holds the most.
        """
        return bytes_of(self.values(op))

    def values(self, op: Operation) -> frozenset[SSAValue]:
        """An operation's operands and results, and all values that are needed behind it."""
        return self.beside(op, {*op.operands, *op.results})

    def beside(self, op: Operation, found: set[SSAValue]) -> frozenset[SSAValue]:
        """``found``, and what is needed behind an operation."""
        around: Operation | None = op
        while around is not None and not isinstance(around, func.FuncOp):
            block = around.parent_block()
            if block is None:
                return frozenset(found)
            found.update(needed_behind(block, around))
            around = around.parent_op()
        if around is None:
            return frozenset(found)
        sites = [self._with_caller(call, around, found) for call in self.calls.get(around.sym_name.data, ())]
        return max(sites, key=bytes_of, default=frozenset(found))

    def _with_caller(self, call: func.CallOp, callee: func.FuncOp, found: set[SSAValue]) -> frozenset[SSAValue]:
        """What is held in a callee and across a call of it; an argument is the value that the caller hands over."""
        if call not in self._across:
            self._across[call] = self.beside(call, set())
        handed: dict[SSAValue, SSAValue] = dict(zip(callee.body.block.args, call.arguments, strict=True))
        return frozenset(handed.get(value, value) for value in found) | self._across[call]


def needed_behind(block: Block, op: Operation) -> Iterator[SSAValue]:
    """The values of a block, defined before ``op``, that are used inside it or behind it."""
    place = {other: index for index, other in enumerate(block.ops)}
    before = [value for other, index in place.items() if index < place[op] for value in other.results]
    for value in (*block.args, *before):
        for use in value.uses:
            user = block.find_ancestor_op_in_block(use.operation)
            if user is not None and (place[user] > place[op] or (user is op and use.operation is not op)):
                yield value
                break


def bytes_of(values: frozenset[SSAValue]) -> int:
    """Bytes that values take in a core's local memory."""
    return sum(map(local_bytes, values))


def local_bytes(value: SSAValue) -> int:
    """Bytes of a value in a core; none of a matrix that stays in the banks."""
    if not isinstance(value.type, TensorType) or (
        isinstance(value.owner, nn.ParamOp) and len(value.type.get_shape()) > 1
    ):
        return 0
    shape, layout = value.type.get_shape(), layout_of(value.type)
    if layout is not None and not layout.is_local:
        return 0
    cuts = {} if layout is None else layout.cuts
    own = [cuts[dim].max_local_size if dim in cuts else size for dim, size in enumerate(shape)]
    return prod(own) * element_bytes(value.type.element_type)
