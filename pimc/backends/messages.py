"""Messages between cores: who sends into which buffer, and after which message all those senders may go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import add, mod, mul, sub

from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.access import AddressFlow
from pimc.backends.order import ProgramOrder, constant, enclosing_loops, is_conditional, runs_at_least_once
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ForOp, ProgramOp
from pimc.ir.sram_structure import AllocOp, ArrivedOp

#: Values of a register that differ by core are one a core; a single one is for all.
_Values = tuple[int, ...]
#: Instructions that compute a receiver from a loop's counter.
_ARITHMETIC: Mapping[str, Callable[[int, int], int]] = {"add": add, "mul": mul, "sub": sub, "remu": mod}
#: Iterations that a loop over receivers has at most.
_MOST_ITERATIONS = 4096
#: More cores than any target has: the mask of "anybody".
_ANYBODY = (1 << 4096) - 1


@dataclass
class Messages:
    """The messages of a program (or of all programs of an entry, joined).

    ``receivers``: for each message, core -> mask of the cores that receive what this core sends (0 if not known).
    ``into``: buffer name -> receiving core -> mask of the cores that send into it.  ``sends``: buffer name ->
    messages.
    """

    cores: tuple[int, ...]
    receivers: dict[Operation, dict[int, int]] = field(default_factory=dict)
    into: dict[str, dict[int, int]] = field(default_factory=dict)
    sends: dict[str, list[Operation]] = field(default_factory=dict)

    @staticmethod
    def of(program: ProgramOp, order: ProgramOrder, flow: AddressFlow) -> Messages:
        """The messages of a program."""
        messages = Messages(program.core_numbers)
        for op in order.operations:
            if isinstance(op, SramInstruction) and op.INSTRUCTION.unit == "noc":
                receivers = _receivers(op, messages.cores)
                messages.receivers[op] = receivers or dict.fromkeys(messages.cores, 0)
                for alloc in flow.access(op).sends:
                    messages._add(alloc, receivers)
                    messages.sends.setdefault(alloc.sym_name.data, []).append(op)
        return messages

    def _add(self, alloc: AllocOp, receivers: Mapping[int, int] | None) -> None:
        into = self.into.setdefault(alloc.sym_name.data, {})
        if receivers is None:
            into[-1] = _ANYBODY
            return
        for sender, mask in receivers.items():
            receiver = 0
            while mask >> receiver:
                if mask >> receiver & 1:
                    into[receiver] = into.get(receiver, 0) | 1 << sender
                receiver += 1

    def join(self, other: Messages) -> None:
        """Add the messages of another program of the entry."""
        self.cores += other.cores
        self.receivers.update(other.receivers)
        for name, ops in other.sends.items():
            self.sends.setdefault(name, []).extend(ops)
        for name, into in other.into.items():
            mine = self.into.setdefault(name, {})
            for receiver, mask in into.items():
                mine[receiver] = mine.get(receiver, 0) | mask

    def senders(self, name: str) -> dict[int, int]:
        """Core -> mask of the other cores that may send into its buffer ``name``."""
        into = self.into.get(name, {})
        anybody = into.get(-1, 0)
        everyone = sum(1 << core for core in self.cores)
        return {core: (everyone if anybody else into.get(core, 0)) & ~(1 << core) for core in self.cores}

    def releasing(self, senders: Mapping[int, int]) -> list[Operation]:
        """The messages that, on every core of this program, reach all its ``senders``."""
        return [
            op
            for op, receivers in self.receivers.items()
            if all(not senders.get(core, 0) & ~mask for core, mask in receivers.items())
        ]


@dataclass(frozen=True)
class Waits:
    """Places of the ``wait`` instructions of a program, by semaphore."""

    places: Mapping[int, tuple[int, ...]]

    @staticmethod
    def of(order: ProgramOrder) -> Waits:
        """Those that run whenever the loops around them do."""
        found: dict[int, tuple[int, ...]] = {}
        for op in order.operations:
            if isinstance(op, SramInstruction) and op.INSTRUCTION.mnemonic == "wait":
                loop = next(enclosing_loops(op), None)
                if loop is None or not is_conditional(op, loop.body.block):
                    semaphore = numbers(op.properties["sem"])[0]
                    found[semaphore] = (*found.get(semaphore, ()), order.start[op])
        return Waits(found)

    def between(self, message: Operation, after: int, before: int) -> bool:
        """Whether a ``wait`` for a message stands at a place after ``after`` and before ``before``."""
        semaphore = numbers(message.properties["sem"])[0]
        return any(after < place < before for place in self.places.get(semaphore, ()))


def _receivers(op: SramInstruction, cores: tuple[int, ...]) -> dict[int, int] | None:
    """Core -> mask of the receivers of a message, in a loop those of all iterations; None if they are not known."""
    if "group_base" in op.INSTRUCTION.config:
        named = dict(zip(op.INSTRUCTION.config, op.config_values, strict=True))
        first, size = _iterations(named["group_base"]), constant(named["group_size"])
    else:
        names = [operand.name for operand in op.read_operands()]
        first, size = _iterations(op.operands[names.index("core")]), (1,)
    if first is None or size is None:
        return None
    return {
        core: _union(((1 << _at(size, i)) - 1) << _at(values, i) for values in first) for i, core in enumerate(cores)
    }


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


def _iterations(value: SSAValue) -> list[_Values] | None:
    """The values of a register, one for each iteration of the loop that counts in it; None if they are not known."""
    known = constant(value)
    if known is not None:
        return [known]
    owner = value.owner
    if isinstance(owner, Block):
        loop = owner.parent_op()
        if not isinstance(loop, ForOp) or value is not loop.counter:
            return None
        lower, upper = constant(loop.lower), constant(loop.upper)
        if lower is None or upper is None or len(lower) != 1 or len(upper) != 1 or not runs_at_least_once(loop):
            return None
        counted = range(lower[0], upper[0], loop.step.value.data)
        return [(number,) for number in counted] if len(counted) <= _MOST_ITERATIONS else None
    if not isinstance(owner, SramInstruction) or owner.INSTRUCTION.mnemonic not in _ARITHMETIC:
        return None
    left, right = (_iterations(operand) for operand in owner.operands)
    if left is None or right is None or min(len(left), len(right)) > 1:
        return None
    apply = _ARITHMETIC[owner.INSTRUCTION.mnemonic]
    return [_each(apply, a, b) for a in left for b in right]


def _each(apply: Callable[[int, int], int], a: _Values, b: _Values) -> _Values:
    """A function of two registers, core by core."""
    cores = max(len(a), len(b))
    return tuple(apply(_at(a, core), _at(b, core)) for core in range(cores))


def _at(values: _Values, index: int) -> int:
    return values[0] if len(values) == 1 else values[index]


def undrained(order: ProgramOrder, flow: AddressFlow, sync: Operation) -> set[AllocOp]:
    """Buffers with an access before ``sync`` that may not have finished when ``sync`` is sent.

    Instructions finish out of order; one is known to have finished if ``sync`` depends on it through buffers.
    """
    here = flow.access(sync)
    reads, writes = set(here.reads), set(here.writes)
    pending: set[AllocOp] = set()
    engaged = {"noc"}  # earlier messages have left when this one is sent
    arrived: set[SSAValue] = set()
    for op in reversed(order.operations[: _index(order, sync)]):
        if isinstance(op, ArrivedOp):
            arrived.add(op.buffer)
        if not isinstance(op, SramInstruction) or op.INSTRUCTION.unit == "scu":
            continue
        access, unit = flow.access(op), op.INSTRUCTION.unit
        done = bool(access.writes & (reads | writes)) or bool(access.reads & writes) or unit in engaged
        done = done or (unit == "xfer" and any(to.buffer in arrived for to in access.writes))
        if not done:
            pending |= access.local
            continue
        reads |= access.reads
        writes |= access.writes
        if unit in _IN_ORDER or _moves_certainly(op):
            engaged.add(unit)
    return pending


def _moves_certainly(op: SramInstruction) -> bool:
    """Whether an instruction is a transfer of some bytes on every core: those of a core finish in the order of
    dispatch.
    """
    if op.INSTRUCTION.mnemonic not in ("hrd", "hwr") or is_conditional(op, None):
        return False
    size = constant(op.operands[-1])
    return size is not None and 0 not in size


#: Units that finish in the order of dispatch, but for a few cycles of pipeline: less than any message takes.
_IN_ORDER = frozenset({"tcu", "pim", "vcu", "trans", "noc"})


def unit_of(op: Operation) -> str | None:
    """The unit of an instruction; None for anything else."""
    return op.INSTRUCTION.unit if isinstance(op, SramInstruction) else None


def _index(order: ProgramOrder, op: Operation) -> int:
    return next(i for i, other in enumerate(order.operations) if other is op)


def joined(parts: Iterable[Messages]) -> Messages:
    """The messages of several programs together."""
    total = Messages(())
    for part in parts:
        total.join(part)
    return total
