"""Registers for constants: made where they are used, kept while a register is free, held through small loops.

After :mod:`intervals` has given the computed values their registers, a walk through the program keeps track of
which constants the remaining registers hold.  At a use of one that no register holds, a ``sram.const`` with a
register is inserted: in a free register, or instead of the constant whose next use is furthest.  Before an
innermost loop the constants of its body are put in registers that are free throughout the loop, as far as enough
are left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, i64
from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.fold import erase
from pimc.backends.intervals import RegisterMap, assign
from pimc.backends.order import ZERO, Constant, ProgramOrder, identity, runs_at_least_once
from pimc.backends.spill import spill
from pimc.diagnostics import InputError
from pimc.ir.locations import where
from pimc.ir.sram import ConstOp, ForOp, IfOp, ProgramOp, SramInstruction, YieldOp

#: Registers that every place keeps free for constants: as many as an instruction has register operands.
RESERVE = 4


@dataclass
class _State:
    """What registers hold: register -> constant, with the operation's value; ``pinned`` ones stay."""

    held: dict[int, tuple[Constant, SSAValue]] = field(default_factory=dict)
    pinned: frozenset[int] = frozenset()

    def copy(self) -> _State:
        return _State(dict(self.held), self.pinned)

    def find(self, key: Constant) -> int | None:
        return next((register for register, (held, _) in self.held.items() if held == key), None)


def allocate_registers(program: ProgramOp, count: int, room: range = range(0)) -> None:
    """Give every scalar of a program one of the registers 1 .. ``count`` - 1, in place.

    Operations get the attribute ``register``, loops ``registers``.  Scalars that are too many are kept in ``room``,
    free bytes of local memory.  Raises :class:`DoesNotFitError` where that does not do.
    """
    registers = range(1, count)
    spill(program, registers, RESERVE, room)
    order = ProgramOrder.of(program.body.block)
    allocator = _ConstantAllocator(order, assign(order, registers, RESERVE), tuple(registers))
    allocator.zero(program)
    allocator.walk(program.body.block, _State())
    _record(order, allocator.map)
    for op in order.operations:  # constants that start or end a loop iteration stay, without a register
        if isinstance(op, ConstOp) and not op.result.uses:
            erase(op)


def _record(order: ProgramOrder, registers: RegisterMap) -> None:
    for op in order.operations:
        if isinstance(op, ForOp):
            numbers = [registers.registers[value] for value in (op.counter, *op.carried)]
            op.attributes["registers"] = DenseArrayBase.from_list(i64, numbers)
        elif isinstance(op, SramInstruction) and op.results:
            op.attributes["register"] = IntegerAttr(registers.registers[op.results[0]], i64)


class _ConstantAllocator:
    """State of the walk over one program."""

    def __init__(self, order: ProgramOrder, registers: RegisterMap, available: tuple[int, ...]) -> None:
        self.order = order
        self.map = registers
        self.available = available
        self.uses = self._uses()
        self.zero_value: SSAValue | None = None

    def zero(self, program: ProgramOp) -> None:
        """One ``sram.const 0`` in r0 for all zeros."""
        op = ConstOp(0)
        op.attributes["register"] = IntegerAttr(0, i64)
        op.location = program.location
        block = program.body.block
        if block.first_op is not None:
            block.insert_op_before(op, block.first_op)
            self.zero_value = op.result

    def _uses(self) -> dict[Constant, list[int]]:
        """Doubled places at which each constant is read."""
        uses: dict[Constant, list[int]] = {}
        for op in self.order.operations:
            for key in _constants(op):
                uses.setdefault(key, []).append(2 * self.order.start[op])
        return uses

    def walk(self, block: Block, state: _State) -> None:
        """Serve the operations of a block; ``state`` becomes the one behind it."""
        for op in list(block.ops):
            if isinstance(op, ForOp):
                self._loop(op, state)
            elif isinstance(op, IfOp):
                self._serve(op, state)
                other = state.copy()
                self.walk(op.then_region.block, state)
                self.walk(op.else_region.block, other)
                state.held = {r: h for r, h in state.held.items() if other.held.get(r) == h}
            elif isinstance(op, YieldOp):
                pass  # constants are loaded straight into the carried registers
            elif not isinstance(op, ConstOp):
                self._serve(op, state)
                for result in op.results:
                    state.held.pop(self.map.registers.get(result, -1), None)

    # -- loops ----

    def _loop(self, op: ForOp, state: _State) -> None:
        start, end = 2 * self.order.start[op], 2 * self.order.end[op] + 1
        upper = identity(op.upper)
        before = state.pinned
        for key in self._wanted(op, len(before)):
            self._pin(op, key, state, start, end)
        if not runs_at_least_once(op):  # the head compares, after the counter and the carried values are set
            set_first = frozenset(self.map.registers[value] for value in (op.counter, *op.carried))
            for register in set_first:
                state.held.pop(register, None)
            self._serve_operand(op, 1, state, set_first)
        inside = _State({r: h for r, h in state.held.items() if r in state.pinned}, state.pinned)
        self.walk(op.body.block, inside)
        if upper is not None:
            self._bound(op, inside)
        state.held = {r: h for r, h in inside.held.items() if r in inside.pinned}
        state.pinned = before

    def _wanted(self, op: ForOp, pinned: int) -> list[Constant]:
        """Constants to hold through a loop, most used first: all of an innermost loop's, as far as registers
        are left.
        """
        count: Counter[Constant] = Counter()
        nested = False
        for inner in op.body.block.walk():
            nested |= isinstance(inner, ForOp)
            if not isinstance(inner, YieldOp):
                count.update(_constants(inner))
        upper = identity(op.upper)
        if upper is not None and upper != ZERO:
            count[upper] += 1
        start, end = 2 * self.order.start[op], 2 * self.order.end[op] + 1
        room = len(self.available) - self.map.most_taken(start, end) - RESERVE - pinned
        if nested and len(count) > room:
            return []
        wanted = sorted(count, key=lambda key: (-count[key], key))
        return wanted[: max(room, 0)]

    def _pin(self, op: ForOp, key: Constant, state: _State, start: int, end: int) -> None:
        held = state.find(key)
        if held is not None and self.map.free_through(held, start, end):
            state.pinned |= {held}
            return
        for register in reversed(self.available):
            if register in state.pinned or not self.map.free_through(register, start, end):
                continue
            state.held.pop(register, None)
            self._load(op, key, register, state)
            state.pinned |= {register}
            return

    def _bound(self, op: ForOp, inside: _State) -> None:
        """The upper bound where the loop branches back: in a register of the body's end."""
        upper = identity(op.upper)
        if upper is None or upper == ZERO:
            self._zero_operand(op, 1)
            return
        held = inside.find(upper)
        if held is None:
            held = self._choose(op, 2 * self.order.end[op], inside, frozenset())
            last = op.body.block.last_op
            assert last is not None  # a loop body ends in a yield
            self._load(last, upper, held, inside)
        op.attributes["bound"] = IntegerAttr(held, i64)

    # -- uses ----

    def _serve(self, op: Operation, state: _State) -> None:
        """Give every constant operand of ``op`` a register."""
        busy: frozenset[int] = frozenset()
        for index in range(len(op.operands)):
            register = self._serve_operand(op, index, state, busy)
            if register is not None:
                busy |= {register}

    def _serve_operand(self, op: Operation, index: int, state: _State, busy: frozenset[int]) -> int | None:
        key = identity(op.operands[index])
        if key is None:
            return None
        if key == ZERO:
            self._zero_operand(op, index)
            return None
        register = state.find(key)
        if register is None:
            others = {state.find(k) for k in _constants(op)}
            register = self._choose(op, 2 * self.order.start[op], state, busy | {r for r in others if r})
            self._load(op, key, register, state)
        op.operands[index] = state.held[register][1]
        return register

    def _zero_operand(self, op: Operation, index: int) -> None:
        assert self.zero_value is not None  # there is an operation
        if identity(op.operands[index]) == ZERO:
            op.operands[index] = self.zero_value

    def _load(self, before: Operation, key: Constant, register: int, state: _State) -> None:
        op = ConstOp(key.values, key.origin or None)
        op.attributes["register"] = IntegerAttr(register, i64)
        op.location = before.location
        block = before.parent
        assert block is not None  # the operation is in the program
        block.insert_op_before(op, before)
        state.held[register] = (key, op.result)

    def _choose(self, op: Operation, place: int, state: _State, busy: Iterable[int]) -> int:
        """A register for a constant at a place: free for longest, else that of the constant with the furthest
        use.
        """
        refused = {*busy, *state.pinned}
        candidates = [r for r in self.available if r not in refused and self.map.free_at(r, place)]
        empty = [r for r in candidates if r not in state.held]
        if empty:
            return max(empty, key=lambda r: (self.map.next_taken(r, place), r))
        if not candidates:
            raise InputError(
                "no scalar register is left for a constant",
                hint="fewer scalar values at once: compute addresses nearer to their use",
                where=where(op),
            )
        return max(candidates, key=lambda r: (self._next_use(state.held[r][0], place), r))

    def _next_use(self, key: Constant, place: int) -> int:
        uses = self.uses.get(key, [])
        following = bisect_left(uses, place)
        return uses[following] if following < len(uses) else 2 * self.order.length


def _constants(op: Operation) -> Iterator[Constant]:
    """The constants other than 0 that ``op`` reads from registers."""
    operands: Iterable[SSAValue] = op.operands
    if isinstance(op, ForOp):
        operands = ()  # bounds and initial values are loaded by the loop itself
    for value in operands:
        key = identity(value)
        if key is not None and key != ZERO:
            yield key
