"""The order between what a core has under way and what its signals and messages let others do.

Lowerings write instructions and leave this order to the rules here, which ``lower`` applies to every program:

* A stream that a ``sigh`` lets begin may access a buffer that a transfer in flight still moves.  The core waits for the
  transfer first, by an instruction that touches what it moves.
* A buffer that other cores send into may be in use here when they send again, if nothing that they wait for has left
  this core since.  All cores meet in between.

Both follow from dependences: where an instruction waits anyway, or a message orders the cores, nothing is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xdsl.ir import Block, Operation
from xdsl.rewriter import InsertPoint, Rewriter

from pimc.backends.access import AddressFlow
from pimc.backends.builder import SramBuilder
from pimc.backends.messages import Messages, Waits, unit_of
from pimc.backends.order import ProgramOrder, enclosing_loops, in_block, is_conditional, is_inside
from pimc.backends.transfers import InFlight, Transfer
from pimc.backends.windows import stream_windows
from pimc.ir import hbm
from pimc.ir.sram_control import ForOp, ProgramOp
from pimc.ir.sram_structure import AllocOp

_WORD = 4
_HALF = 2
#: Units whose instructions have taken their data when the message behind them is sent: scalars, earlier messages.
_PROMPT = frozenset({"scu", "noc"})
#: The unit that takes up an instruction when it is through with the one before, however many elements that has.
_VECTOR = frozenset({"vcu"})
TOKEN = "order.token"
"""The buffer of the messages by which cores meet."""
_READY = "order.ready"
"""A word that the vector unit moves onto itself behind what uses an exchanged buffer; the message waits for it."""


def synchronise(program: ProgramOp, streams: Sequence[hbm.ProgramOp], semaphore: int) -> None:
    """Add to a program what its transfers, signals and messages need to be in order.

    Args:
        program: the program of all cores of an entry, before ``allocate``.
        streams: what the controllers run.
        semaphore: one of the cores' that nothing else uses.
    """
    _order_transfers(program, list(streams))
    _order_exchanges(program, semaphore)


# -- transfers before signals -----------------------------------------------------------------------------------------


def _order_transfers(program: ProgramOp, streams: list[hbm.ProgramOp]) -> None:
    """Wait, before each ``sigh``, for transfers of what the stream accesses then (both reading is no conflict)."""
    windows: dict[Operation, dict[AllocOp, bool]] = {}
    for window in stream_windows(program, streams):
        begun = windows.setdefault(window.begin, {})
        begun[window.buffer] = begun.get(window.buffer, False) or window.writes
    flow = AddressFlow.analyse(ProgramOrder.of(program.body.block))

    def conflicts(found: InFlight, sync: Operation) -> frozenset[Operation]:
        touched = windows[sync]
        return frozenset(
            op
            for op in found.before.get(sync, ())
            if any(
                buffer in touched and (touched[buffer] or found.transfers[op].writes)
                for buffer in found.transfers[op].buffers
            )
        )

    drained: dict[Operation, frozenset[Operation]] = {}
    while True:
        found = InFlight.of(program.body.block, flow, drained)
        again = {sync: conflicts(found, sync) for sync in windows}
        if again == drained:
            break
        drained = again
    for sync, transfers in drained.items():
        for transfer in found.last(sync, transfers):
            with _before(sync) as b:
                _await(b, found.transfers[transfer])


def _await(b: SramBuilder, transfer: Transfer) -> None:
    """Touch what a transfer moves, so that the core waits for it."""
    for buffer in transfer.buffers:
        start, size = transfer.start, transfer.size
        if transfer.writes and start is not None and size is not None and min(size) >= _WORD and not _odd(start):
            b.lw(b.address(buffer.buffer, start), imm=0)
        else:
            _touch(b, buffer)


def _odd(start: Sequence[int]) -> bool:
    return any(offset % _WORD for offset in start)


def _touch(b: SramBuilder, buffer: AllocOp) -> None:
    """Move all of a buffer onto itself: the core waits for whatever reads or writes it."""
    at, size = b.address(buffer.buffer), buffer.bytes.value.data
    if size % _WORD:
        b.vmov_h(at, at, size // _HALF)
    else:
        b.vmov_f(at, at, size // _WORD)


# -- exchanges --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Missing:
    """Nothing orders the use of a buffer before the next message into it.

    Cores must meet at the end of ``loop``, or before operation ``before``.  ``units`` are those that use the buffer.
    """

    buffer: AllocOp
    units: frozenset[str]
    loop: ForOp | None
    before: Operation


def _order_exchanges(program: ProgramOp, semaphore: int) -> None:
    """Let all cores meet where a buffer is sent into again without an order."""
    while (missing := next(_Exchanges.of(program).missing(), None)) is not None:
        last = missing.loop.body.block.last_op if missing.loop is not None else missing.before
        assert last is not None  # a loop's body ends in a yield
        used = missing.buffer
        with _before(last) as b:
            if missing.units - _PROMPT - _VECTOR:
                _touch(b, used)
            elif missing.units & _VECTOR:  # a message waits for its own data alone
                used = _buffer_of(program, _READY, _WORD)
                at = b.address(used.buffer)
                b.sw(b.const(0), at, imm=0)
                b.vmov_f(at, at, 1)
        meet_before(last, used, token_of(program), len(program.core_numbers), semaphore)


def token_of(program: ProgramOp) -> AllocOp:
    """The buffer of the messages by which the cores of a program meet; made where it is first needed."""
    return _buffer_of(program, TOKEN, _WORD * len(program.core_numbers), remote=True)


def _buffer_of(program: ProgramOp, name: str, size: int, *, remote: bool = False) -> AllocOp:
    """A buffer at the start of a program, made where it is first needed."""
    for op in program.body.block.ops:
        if isinstance(op, AllocOp) and op.sym_name.data == name:
            return op
    first = program.body.block.first_op
    assert first is not None  # there is a message
    with _before(first) as b:
        buffer = b.alloc(name, size, memory="temp", remote=remote).owner
    assert isinstance(buffer, AllocOp)
    return buffer


def meet_before(op: Operation, used: AllocOp, token: AllocOp, cores: int, semaphore: int) -> None:
    """Before an operation, tell all cores that what wrote the start of a buffer has finished, and wait until all have
    said so.
    """
    with _before(op) as b:
        to = b.address(token.buffer, [_WORD * number for number in range(cores)])
        group = {"group_base": b.const(0), "group_size": b.const(cores)}
        b.nmcast(to, b.address(used.buffer), _HALF, sem=semaphore, **group)
        b.wait(sem=semaphore, imm=cores)


@dataclass(frozen=True)
class _Exchanges:
    """The messages of a program, and the uses of the buffers that they write."""

    order: ProgramOrder
    messages: Messages
    waits: Waits
    uses: dict[AllocOp, list[Operation]]
    sends: dict[AllocOp, list[Operation]]

    @staticmethod
    def of(program: ProgramOp) -> _Exchanges:
        order = ProgramOrder.of(program.body.block)
        flow = AddressFlow.analyse(order)
        found = _Exchanges(order, Messages.of(program, order, flow), Waits.of(order), {}, {})
        for op in found.messages.receivers:
            for alloc in flow.access(op).sends:
                found.sends.setdefault(alloc, []).append(op)
        for op in order.operations:
            for alloc in flow.access(op).local:
                if alloc in found.sends:
                    found.uses.setdefault(alloc, []).append(op)
        return found

    def missing(self) -> Iterator[_Missing]:
        """Uses of buffers that nothing orders before the next message into them."""
        for alloc, sends in self.sends.items():
            uses = self.uses.get(alloc, [])
            pairs = [(use, send) for send in sends for use in uses if self._precedes(use, send)]
            if not pairs:
                continue
            senders = self.messages.senders(alloc.sym_name.data)
            releases = self.messages.releasing(senders) if any(senders.values()) else None
            for use, send in pairs if releases is not None else ():
                block, loop = self._common(use, send)
                if not any(self._orders(op, use, send, block, loop) for op in releases or ()):
                    units = frozenset(unit for op in uses if (unit := unit_of(op)) is not None)
                    yield _Missing(alloc, units, loop, in_block(send, block))

    def _precedes(self, use: Operation, send: Operation) -> bool:
        """Whether a use may come before a message into the buffer: by text, or in the iteration before."""
        return self.order.start[use] < self.order.start[send] or self._common(use, send)[1] is not None

    def _common(self, use: Operation, send: Operation) -> tuple[Block, ForOp | None]:
        """The innermost block with both, and, where the use stands behind the message, the loop that leads back."""
        block = send.parent
        while block is not None and not is_inside(use, block):
            parent = block.parent_op()
            block = parent.parent if parent is not None else None
        assert block is not None  # both are in the program
        if self.order.start[use] < self.order.start[send]:
            return block, None
        around = (loop for loop in enclosing_loops(send) if is_inside(use, loop.body.block))
        return block, next(around, None)

    def _orders(self, release: Operation, use: Operation, send: Operation, block: Block, loop: ForOp | None) -> bool:
        """Whether a message to all senders leaves behind the use, and is waited for before the message."""
        start, end = self.order.start, self.order.end
        place = start[release]
        within = loop.body.block if loop is not None else block
        if not is_inside(release, within) or is_conditional(release, within):
            return False
        if loop is None:
            behind = (end[in_block(use, block)] < place or use is release) and place < start[send]
            return behind and self.waits.between(release, place, start[send])
        behind = end[in_block(use, within)] < place or use is release  # a message takes its data when it is sent
        if behind and self.waits.between(release, place, end[loop]):
            return True
        return (behind or place < start[send]) and (
            self.waits.between(release, start[loop] if behind else place, start[send])
        )


def _before(op: Operation) -> _Inserter:
    return _Inserter(op)


class _Inserter:
    """Collects what a builder makes, and puts it before an operation, with its location."""

    def __init__(self, op: Operation) -> None:
        self.op, self.block = op, Block()

    def __enter__(self) -> SramBuilder:
        return SramBuilder(self.block, self.op.location)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            made = list(self.block.ops)
            for op in made:
                op.detach()
            Rewriter.insert_op(made, InsertPoint.before(self.op))
