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
SMALL_SHARE = 16


def room_of(target: Target) -> int:
    """Bytes of local memory for values and the large buffers of operations on them."""
    memory = target.memory("activation").bytes
    return memory - memory // SMALL_SHARE


@dataclass
class Held:
    """The values that are in local memory beside an operation."""

    calls: dict[str, list[func.CallOp]] = field(default_factory=dict)
    _across: dict[func.CallOp, frozenset[SSAValue]] = field(default_factory=dict)
    _lives: dict[Block, _Lives] = field(default_factory=dict)

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
            found.update(self.needed_behind(block, around))
            around = around.parent_op()
        if around is None:
            return frozenset(found)
        sites = [self._with_caller(call, around, found) for call in self.calls.get(around.sym_name.data, ())]
        return max(sites, key=bytes_of, default=frozenset(found))

    def needed_behind(self, block: Block, op: Operation) -> Iterator[SSAValue]:
        """The values of a block, defined before ``op``, that are used inside it or behind it."""
        if block not in self._lives:
            self._lives[block] = _Lives.of(block)
        lives = self._lives[block]
        here = lives.place[op]
        for value, start, last in lives.values:
            inside = last == here and start < here and bool(op.regions) and _is_used_inside(value, block, op)
            if start < here and (last > here or inside):
                yield value

    def _with_caller(self, call: func.CallOp, callee: func.FuncOp, found: set[SSAValue]) -> frozenset[SSAValue]:
        """What is held in a callee and across a call of it; an argument is the value that the caller hands over."""
        if call not in self._across:
            self._across[call] = self.beside(call, set())
        handed: dict[SSAValue, SSAValue] = dict(zip(callee.body.block.args, call.arguments, strict=True))
        return frozenset(handed.get(value, value) for value in found) | self._across[call]


@dataclass(frozen=True)
class _Lives:
    """Places of a block's operations, and of each value its definition and its last use."""

    place: dict[Operation, int]
    values: list[tuple[SSAValue, int, int]]

    @staticmethod
    def of(block: Block) -> _Lives:
        place = {op: index for index, op in enumerate(block.ops)}
        made: list[tuple[SSAValue, int]] = [(argument, -1) for argument in block.args]
        made += [(result, index) for op, index in place.items() for result in op.results]
        return _Lives(place, [(value, start, _last_use(block, place, value)) for value, start in made])


def _last_use(block: Block, place: dict[Operation, int], value: SSAValue) -> int:
    users = (block.find_ancestor_op_in_block(use.operation) for use in value.uses)
    return max((place[user] for user in users if user is not None), default=-1)


def _is_used_inside(value: SSAValue, block: Block, op: Operation) -> bool:
    uses = (use.operation for use in value.uses if use.operation is not op)
    return any(block.find_ancestor_op_in_block(user) is op for user in uses)


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
