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

from pimc.backends.access import AddressFlow
from pimc.backends.order import constant, runs_at_least_once
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
class Transfer:
    """What a transfer does in local memory: the buffer, its first byte there and its bytes, and whether it writes."""

    op: SramInstruction
    buffers: frozenset[AllocOp]
    start: Known
    size: Known
    writes: bool


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
        access = self.flow.access(op)
        meets = access.local if transfer.writes else access.writes
        if not meets & transfer.buffers:
            return False
        count = _count(op)
        places = (
            [place_of(value) for value in op.operands if self.flow.of(value) & transfer.buffers]
            if op.INSTRUCTION.unit != "scu"
            else [None]
        )
        return any(_meet(place, count, transfer) for place in places)


def place_of(address: SSAValue) -> Known:
    """The offsets of an address in its buffer; None if they are not constants."""
    owner = address.owner
    if isinstance(owner, AddressOp):
        return numbers(owner.offset)
    if isinstance(owner, SramInstruction) and owner.INSTRUCTION.mnemonic in _SUMS:
        more = numbers(owner.properties["imm"]) if owner.INSTRUCTION.mnemonic == "addi" else constant(owner.operands[1])
        base = place_of(owner.operands[0])
        if base is not None and more is not None:
            cores = max(len(base), len(more))
            return tuple(_at(base, core) + _at(more, core) for core in range(cores))
    return None


def _count(op: SramInstruction) -> Known:
    """The elements or bytes an instruction handles (of many rows: in the first), where operands say so by constants."""
    if ROWS in op.INSTRUCTION.config and op.config_values:
        rows = constant(dict(zip(op.INSTRUCTION.config, op.config_values, strict=True))[ROWS])
        if rows is not None and min(rows) <= 0:
            return (0,)
    names = [operand.name for operand in op.read_operands()]
    return constant(op.operands[names.index("n")]) if "n" in names else None


def _meet(place: Known, count: Known, transfer: Transfer) -> bool:
    """Whether an access at ``place`` of the transfer's buffer meets it on every core, as far as constants tell."""
    cores = max(len(known) for known in (place, count, transfer.start, transfer.size, (0,)) if known is not None)
    for core in range(cores):
        if transfer.size is not None and _at(transfer.size, core) == 0:
            continue
        if count is not None and _at(count, core) == 0:
            return False
        if place is not None and transfer.start is not None and transfer.size is not None:
            start = _at(transfer.start, core)
            if not start <= _at(place, core) < start + _at(transfer.size, core):
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
