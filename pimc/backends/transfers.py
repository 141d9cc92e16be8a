"""Which transfers of a core may still be in flight where it sends a signal or a message.

A core waits for its own transfers by itself: an instruction that touches what a transfer moves is held until that has
finished.  Others do not: neither ``sigh`` nor a message waits for a transfer that it does not touch.  Here it is read
off the program: a transfer has finished behind an instruction that certainly touches what it moves, and behind one that
waits for a later transfer, since those of a core finish in the order of their dispatch.  Where a loop
starts transfers for later iterations, its lowering says that they have arrived (``sram.arrived``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.access import AddressFlow, local_operands
from pimc.backends.order import constant, in_block, is_inside, runs_at_least_once
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ForOp, IfOp
from pimc.ir.sram_structure import AddressOp, AllocOp, ArrivedOp
from pimc.isa.sram_rows import ROWS

#: Numbers, one for all cores or one a core; None where they are not constants.
Known = tuple[int, ...] | None
#: Transfers that may be in flight, each with those that have certainly been dispatched since.
State = dict[Operation, frozenset[Operation]]

_MULTIPLES = frozenset({"mul", "slli"})
_SUMS = frozenset({"add", "addi"})


@dataclass(frozen=True)
class Place:
    """An address: a known offset in its buffer, and values that are added to it; None if it is not such a sum."""

    offset: tuple[int, ...]
    more: frozenset[SSAValue] = frozenset()

    def plus(self, known: tuple[int, ...]) -> Place:
        """The address so many bytes behind, on each core."""
        cores = max(len(self.offset), len(known))
        return Place(tuple(_at(self.offset, core) + _at(known, core) for core in range(cores)), self.more)


@dataclass(frozen=True)
class Transfer:
    """What a transfer does in local memory: the buffers, its address there and its bytes, and whether it writes."""

    op: SramInstruction
    buffers: frozenset[AllocOp]
    place: Place | None
    size: Known
    writes: bool

    @property
    def start(self) -> Known:
        """Its first byte in its buffer."""
        return self.place.offset if self.place is not None and not self.place.more else None


@dataclass
class InFlight:
    """Transfers that may be in flight before every ``sigh`` and message of a program.

    ``drained`` says which transfers somebody will have waited for at a signal or message.
    """

    flow: AddressFlow
    drained: Mapping[Operation, frozenset[Operation]] = field(default_factory=dict)
    transfers: dict[Operation, Transfer] = field(default_factory=dict)
    before: dict[Operation, State] = field(default_factory=dict)

    @staticmethod
    def of(
        block: Block, flow: AddressFlow, drained: Mapping[Operation, frozenset[Operation]] | None = None
    ) -> InFlight:
        """Follow the body of a program."""
        found = InFlight(flow, drained or {})
        found._block(block, {})
        return found

    def buffers(self, sync: Operation) -> set[AllocOp]:
        """The buffers of the transfers that may be in flight at a signal or message."""
        return {buffer for op in self.before.get(sync, ()) for buffer in self.transfers[op].buffers}

    def last(self, sync: Operation, wanted: Iterable[Operation]) -> list[Operation]:
        """Of transfers in flight at a signal or message, those to wait for so that all have finished."""
        state = self.before[sync]
        left = list(wanted)
        return [op for op in left if not state[op].intersection(left)]

    # -- the flow ----------------------------------------------------------------------------------------------

    def _block(self, block: Block, state: State) -> State:
        for op in block.ops:
            if isinstance(op, ForOp):
                state = self._loop(op, state)
            elif isinstance(op, IfOp):
                taken = self._block(op.then_region.block, dict(state))
                state = _joined(taken, self._block(op.else_region.block, state))
            elif isinstance(op, ArrivedOp):
                into = [known for known in state if op.buffer.owner in self.transfers[known].buffers]
                for transfer in (known for known in into if self.transfers[known].writes):
                    _finish(transfer, state)
            elif isinstance(op, SramInstruction):
                self._instruction(op, state)
        return state

    def _loop(self, op: ForOp, entry: State) -> State:
        head = dict(entry)
        while True:
            end = self._block(op.body.block, dict(head))
            again = _joined(head, end)
            if again == head:
                break
            head = again
        if runs_at_least_once(op):
            return end
        return _joined({known: since for known, since in entry.items() if not self._goes_with(known, op)}, end)

    def _goes_with(self, transfer: Operation, loop: ForOp) -> bool:
        """Whether a transfer was none where a loop over a computed count runs no iteration.

        One of as many bytes as the loop has iterations is empty.  One that a core does on a condition writes the slot
        of a position that it owns; a loop over the slots that it sees runs then.
        """
        return _scales(transfer.operands[-1], loop.upper) or isinstance(transfer.parent_op(), IfOp)

    def _instruction(self, op: SramInstruction, state: State) -> None:
        unit, mnemonic = op.INSTRUCTION.unit, op.INSTRUCTION.mnemonic
        if unit == "noc" or mnemonic == "sigh":
            self.before[op] = _joined(self.before.get(op, {}), state)
            for transfer in self.drained.get(op, ()):
                _finish(transfer, state)
        for transfer in [known for known in state if self._waits(op, self.transfers[known])]:
            _finish(transfer, state)
        if unit == "xfer":
            if op not in self.transfers:
                self.transfers[op] = self._transfer(op)
            size = self.transfers[op].size
            if size is None or 0 not in size:  # else there is none on some core
                for other in state:
                    state[other] |= {op}
            state[op] = frozenset()

    def _transfer(self, op: SramInstruction) -> Transfer:
        access = self.flow.access(op)
        names = [operand.name for operand in op.read_operands()]
        local = op.operands[names.index("src" if op.INSTRUCTION.mnemonic == "hwr" else "dst")]
        linear = op.INSTRUCTION.mnemonic != "hrdb"
        size = constant(op.operands[names.index("n")]) if linear else None
        return Transfer(op, access.local, place_of(local), size, bool(access.writes))

    def _waits(self, op: SramInstruction, transfer: Transfer) -> bool:
        """Whether ``op`` certainly touches what a transfer in flight moves, one of them writing."""
        operands = local_operands(op, written=not transfer.writes)
        found = [value for value in operands if self.flow.of(value) & transfer.buffers]
        if not found or len(transfer.buffers) > 1:
            return False
        shift = numbers(op.properties["imm"]) if op.INSTRUCTION.unit == "scu" and "imm" in op.properties else (0,)
        places = [place.plus(shift) for value in found if (place := place_of(value)) is not None]
        count = _count(op)
        return count is not None and any(
            _meet(place, count, transfer) and _comparable(place, transfer, op) for place in places
        )


def place_of(address: SSAValue) -> Place | None:
    """An address as an offset in its buffer and values that are added; None if it is not such a sum."""
    owner = address.owner
    if isinstance(owner, AddressOp):
        return Place(numbers(owner.offset))
    if not isinstance(owner, SramInstruction) or owner.INSTRUCTION.mnemonic not in _SUMS:
        return None
    base = place_of(owner.operands[0])
    if owner.INSTRUCTION.mnemonic == "addi":
        return base if base is None else base.plus(numbers(owner.properties["imm"]))
    added = owner.operands[1]
    if base is None:
        base, added = place_of(added), owner.operands[0]
    if base is None or added in base.more:
        return None
    known = constant(added)
    return base.plus(known) if known is not None else Place(base.offset, base.more | {added})


def _comparable(place: Place, transfer: Transfer, op: Operation) -> bool:
    """Whether what is added to both addresses is the same: the same values, in the same iteration of any loop.

    A transfer before ``op`` in the same block, or in one around it, is the last one that was dispatched.
    """
    if not place.more:
        return True
    block = transfer.op.parent
    return block is not None and is_inside(op, block) and transfer.op.is_before_in_block(in_block(op, block))


def _count(op: SramInstruction) -> Known:
    """How many elements, bytes or rows an instruction handles: 1 or more where no operand says; None if not known."""
    if ROWS in op.INSTRUCTION.config and op.config_values:
        rows = constant(dict(zip(op.INSTRUCTION.config, op.config_values, strict=True))[ROWS])
        if rows is None or min(rows) <= 0:
            return rows if rows is None else (0,)
    names = [operand.name for operand in op.read_operands()]
    return constant(op.operands[names.index("n")]) if "n" in names else (1,)


def _meet(place: Place, count: tuple[int, ...], transfer: Transfer) -> bool:
    """Whether an access at ``place`` of the transfer's buffer certainly meets it, on every core."""
    moved = transfer.place
    if moved is None or place.more != moved.more:
        return False
    cores = max(len(known) for known in (place.offset, count, moved.offset, transfer.size, (0,)) if known is not None)
    for core in range(cores):
        size = 1 if transfer.size is None else _at(transfer.size, core)  # where it is not known, one byte at least
        if size == 0:
            continue
        if _at(count, core) == 0:
            return False
        if not 0 <= _at(place.offset, core) - _at(moved.offset, core) < size:
            return False
    return True


def _at(known: tuple[int, ...], core: int) -> int:
    return known[0] if len(known) == 1 else known[core]


def _scales(value: SSAValue, factor: SSAValue) -> bool:
    """Whether ``value`` is zero where ``factor`` is: the same, or a multiple of it."""
    if value is factor:
        return True
    owner = value.owner
    if isinstance(owner, SramInstruction) and owner.INSTRUCTION.mnemonic in _MULTIPLES:
        return any(_scales(operand, factor) for operand in owner.operands)
    return False


def _finish(transfer: Operation, state: State) -> None:
    """``transfer`` has finished, and with it those before it."""
    if transfer in state:
        for other in [other for other, since in state.items() if other is transfer or transfer in since]:
            del state[other]


def _joined(a: State, b: State) -> State:
    """What may be in flight behind one of two ways."""
    return {op: a.get(op, b.get(op, frozenset())) & b.get(op, a.get(op, frozenset())) for op in (*a, *b)}
