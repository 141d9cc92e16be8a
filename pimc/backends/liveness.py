"""When each buffer of a program is in use: spans of places in program order.

A buffer lives from its first to its last access (throughout loops that it was allocated outside of).  Ports live
from the start or to the end of the program.  What a stream accesses lives from the ``sigh`` that lets the stream
begin.  A remote buffer lives, before its first use, from the last message by which this core let all senders go
on; a faster core may send from there on.  Two buffers conflict if their spans meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from xdsl.ir import Block, Operation

from pimc.backends.access import AddressFlow
from pimc.backends.messages import Messages, Waits, undrained
from pimc.backends.order import (
    ProgramOrder,
    constant,
    enclosing_loops,
    in_block,
    is_conditional,
    is_inside,
    runs_at_least_once,
)
from pimc.backends.transfers import InFlight
from pimc.backends.windows import Window
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ForOp, ProgramOp
from pimc.ir.sram_structure import AddressOp, AllocOp, PortOp

#: Inclusive first and last place.
Span = tuple[int, int]


@dataclass
class Liveness:
    """Spans of the buffers of a program, and the pairs that conflict for another reason."""

    order: ProgramOrder
    flying: InFlight
    spans: dict[AllocOp, list[Span]] = field(default_factory=dict)
    extra: dict[AllocOp, set[AllocOp]] = field(default_factory=dict)

    def apart(self, alloc: AllocOp, others: Iterable[AllocOp]) -> None:
        """Say that ``alloc`` must not share memory with ``others``."""
        self.extra.setdefault(alloc, set()).update(other for other in others if other is not alloc)

    def conflict(self, a: AllocOp, b: AllocOp) -> bool:
        """Whether two buffers must not share memory."""
        if b in self.extra.get(a, ()) or a in self.extra.get(b, ()):
            return True
        mine, theirs = self.spans.get(a, ()), self.spans.get(b, ())
        return any(s <= t_end and t <= s_end for s, s_end in mine for t, t_end in theirs)


def analyse(
    program: ProgramOp,
    windows: Iterable[Window] = (),
    senders: Messages | None = None,
) -> Liveness:
    """Spans of all buffers of a program.

    Args:
        windows: where streams begin to use buffers.
        senders: who sends to whom in all programs of the entry; that of this program unless given.
    """
    order = ProgramOrder.of(program.body.block)
    flow = AddressFlow.analyse(order)
    messages = Messages.of(program, order, flow)
    live = Liveness(order, InFlight.of(program.body.block, flow))
    uses: dict[AllocOp, list[Span]] = {}
    accesses: dict[AllocOp, list[Operation]] = {}
    allocs = {op.sym_name.data: op for op in order.operations if isinstance(op, AllocOp)}
    for op in order.operations:
        for alloc in flow.access(op).local:
            uses.setdefault(alloc, []).append(_span(order, alloc, op))
            accesses.setdefault(alloc, []).append(op)
    streamed: set[AllocOp] = set()
    for window in windows:
        streamed.add(window.buffer)
        uses.setdefault(window.buffer, []).append(_span(order, window.buffer, window.begin))
        live.apart(window.buffer, live.flying.buffers(window.begin))
    for alloc in allocs.values():
        spans = uses.get(alloc)
        if spans:
            first, last = min(s for s, _ in spans), max(e for _, e in spans)
            gap = (
                None
                if alloc.remote is not None or alloc in streamed
                else _carried_gap(order, flow, alloc, accesses.get(alloc, []))
            )
            live.spans[alloc] = [(first, last)] if gap is None else [(first, gap[0]), (gap[1], last)]
    known = messages if senders is None else senders
    for alloc in allocs.values():
        if alloc.remote is not None:
            _arm(live, flow, alloc, messages, known)
    return live


def _carried_gap(order: ProgramOrder, flow: AddressFlow, alloc: AllocOp, accesses: list[Operation]) -> Span | None:
    """Between which places a value carried by a loop is not needed: behind its last use in the body, up to the copy at
    the body's end that replaces all of it.  None if the buffer is not used in this way.
    """
    by_loop: dict[ForOp, list[Operation]] = {}
    for op in accesses:
        loop = _loop_around(alloc, op)
        if loop is not None:
            by_loop.setdefault(loop, []).append(op)
    for loop, inside in by_loop.items():
        copy = max(inside, key=lambda op: order.start[op])
        if copy.parent is loop.body.block and runs_at_least_once(loop) and _replaces(flow, alloc, copy):
            uses = [in_block(op, loop.body.block) for op in inside if op is not copy]
            return max((order.end[op] for op in uses), default=order.start[loop]), order.start[copy]
    return None


def _loop_around(alloc: AllocOp, op: Operation) -> ForOp | None:
    """The outermost loop around ``op`` that ``alloc`` is outside of."""
    loops = [loop for loop in enclosing_loops(op) if not is_inside(alloc, loop.body.block)]
    return loops[-1] if loops else None


def _replaces(flow: AddressFlow, alloc: AllocOp, op: Operation) -> bool:
    """Whether ``op`` copies something else over all of a buffer."""
    if not isinstance(op, SramInstruction) or op.INSTRUCTION.mnemonic != "vmov.h" or alloc in flow.access(op).reads:
        return False
    to, count = op.operands[0].owner, constant(op.operands[-1])
    whole = isinstance(to, AddressOp) and to.buffer is alloc.buffer and set(numbers(to.offset)) == {0}
    return whole and count is not None and {2 * n for n in count} == {alloc.bytes.value.data}


def _span(order: ProgramOrder, alloc: AllocOp, op: Operation) -> Span:
    """Where a use of ``alloc`` by ``op`` counts."""
    if isinstance(op, PortOp):
        if op.direction.data == "input":
            return (0, order.start[op])
        return (order.start[op], order.length)
    span = (order.start[op], order.end[op])
    for loop in enclosing_loops(op):
        if is_inside(loop, alloc.parent) and not is_inside(alloc, loop.body.block):
            span = (order.start[loop], order.end[loop])
    return span


@dataclass(frozen=True)
class _Releases:
    """Where senders of a remote buffer are let go on: messages to all of them, and the waits for those.

    ``sent``: the place of the first message into the buffer.  A message releases the senders if they wait for
    it before.
    """

    order: ProgramOrder
    messages: list[Operation]
    waits: Waits
    sent: int

    def before(self, block: Block, place: int) -> Operation | None:
        """The last release that certainly runs in ``block`` before ``place`` (in the same iteration)."""
        return self._last(block, place, lambda op, at: self.waits.between(op, at, self.sent))

    def around(self, loop: ForOp) -> Operation | None:
        """The last release in the iteration before."""
        start, end = self.order.start[loop], self.order.end[loop]

        def waited(op: Operation, at: int) -> bool:
            return self.waits.between(op, at, end) or self.waits.between(op, start, self.sent)

        return self._last(loop.body.block, end, waited)

    def _last(self, block: Block, place: int, waited: Callable[[Operation, int], bool]) -> Operation | None:
        best: Operation | None = None
        for op in self.messages:
            at = self.order.start[op]
            if at < place and is_inside(op, block) and not is_conditional(op, block) and waited(op, at):
                best = op if best is None or at > self.order.start[best] else best
        return best


def _arm(live: Liveness, flow: AddressFlow, alloc: AllocOp, messages: Messages, everybody: Messages) -> None:
    """Extend a remote buffer's span back to where a sender may already write it."""
    order, name = live.order, alloc.sym_name.data
    own, all_sends = messages.sends.get(name, []), everybody.sends.get(name, [])
    spans = [_span(order, alloc, op) for op in own] + live.spans.get(alloc, [])  # this core may receive its own
    if not spans:
        return
    first, last = min(s for s, _ in spans), max(e for _, e in spans)
    known = len(own) == len(all_sends)  # all senders run this program
    releasing = messages.releasing(everybody.senders(name)) if known else []
    sent = min((order.start[op] for op in own), default=0)
    releases = _Releases(order, releasing, Waits.of(order), sent)
    live.spans[alloc] = [(first, last), *_armed(live, flow, alloc, releases, first)]


def _armed(live: Liveness, flow: AddressFlow, alloc: AllocOp, releases: _Releases, first: int) -> Iterator[Span]:
    """The spans before ``first`` in which a sender may write the buffer, from the inside out."""
    order, block, place = live.order, alloc.parent, first
    while block is not None:
        found = releases.before(block, place)
        if found is not None:
            _add_undrained(live, flow, alloc, found)
            yield order.start[found], place
            return
        parent = block.parent_op()
        if parent is None or parent not in order.start:  # the program itself
            yield 0, place
            return
        yield order.start[parent], place
        if isinstance(parent, ForOp):
            around = releases.around(parent)
            if around is not None:
                _add_undrained(live, flow, alloc, around)
            yield order.start[parent if around is None else around], order.end[parent]
        block, place = parent.parent, order.start[parent]


def _add_undrained(live: Liveness, flow: AddressFlow, alloc: AllocOp, sync: Operation) -> None:
    live.apart(alloc, undrained(live.order, flow, sync) | live.flying.buffers(sync))
