"""When each buffer of a program is in use: spans of places in program order.

A buffer lives from its first to its last access (throughout loops that it was allocated outside of).  Ports
live from the
start or to the end of the program.  What a stream accesses lives from the ``sigh`` that lets the stream
begin.  A remote
buffer lives, before its first use, from the last message by which this core let all senders go on; a faster
core may send
from there on.  Two buffers conflict if their spans meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from xdsl.ir import Block, Operation

from pimc.backends.access import AddressFlow
from pimc.backends.messages import Messages, undrained
from pimc.backends.order import ProgramOrder, enclosing_loops, is_conditional, is_inside
from pimc.ir.sram_structure import AllocOp, ForOp, PortOp, ProgramOp

#: Inclusive first and last place.
Span = tuple[int, int]


@dataclass
class Liveness:
    """Spans of the buffers of a program, and the pairs that conflict for another reason."""

    order: ProgramOrder
    spans: dict[AllocOp, list[Span]] = field(default_factory=dict)
    extra: dict[AllocOp, set[AllocOp]] = field(default_factory=dict)

    def conflict(self, a: AllocOp, b: AllocOp) -> bool:
        """Whether two buffers must not share memory."""
        if b in self.extra.get(a, ()) or a in self.extra.get(b, ()):
            return True
        mine, theirs = self.spans.get(a, ()), self.spans.get(b, ())
        return any(s <= t_end and t <= s_end for s, s_end in mine for t, t_end in theirs)


def analyse(
    program: ProgramOp,
    windows: Mapping[str, Iterable[Operation]] | None = None,
    senders: Messages | None = None,
) -> Liveness:
    """Spans of all buffers of a program.

    ``windows``: operations at which a buffer, by name, is in use for a reason that the program does not show
    (streams).
    ``senders``: who sends to whom in all programs of the entry; that of this program unless given.
    """
    order = ProgramOrder.of(program.body.block)
    flow = AddressFlow.analyse(order)
    messages = Messages.of(program, order, flow)
    live = Liveness(order)
    uses: dict[AllocOp, list[Span]] = {}
    allocs = {op.sym_name.data: op for op in order.operations if isinstance(op, AllocOp)}
    for op in order.operations:
        for alloc in flow.access(op).local:
            uses.setdefault(alloc, []).append(_span(order, alloc, op))
    for name, ops in (windows or {}).items():
        if name in allocs:
            alloc = allocs[name]
            uses.setdefault(alloc, []).extend(_span(order, alloc, op) for op in ops)
    for alloc in allocs.values():
        spans = uses.get(alloc)
        if spans:
            live.spans[alloc] = [(min(s for s, _ in spans), max(e for _, e in spans))]
    known = messages if senders is None else senders
    for alloc in allocs.values():
        if alloc.remote is not None:
            _arm(live, flow, alloc, messages, known.senders(alloc.sym_name.data))
    return live


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


def _arm(live: Liveness, flow: AddressFlow, alloc: AllocOp, messages: Messages, senders: Mapping[int, int]) -> None:
    """Extend a remote buffer's span back to where a sender may already write it."""
    order = live.order
    if alloc not in live.spans:
        uses = [op for op in order.operations if alloc in flow.access(op).sends]
        spans = [_span(order, alloc, op) for op in uses]
        if not spans:
            return
        live.spans[alloc] = [(min(s for s, _ in spans), max(e for _, e in spans))]
    syncs = messages.releasing(senders)
    (first, last) = live.spans[alloc][0]
    for op in order.operations:  # a message counts as a use: this core is itself a receiver
        if alloc in flow.access(op).sends:
            start, end = _span(order, alloc, op)
            first, last = min(first, start), max(last, end)
    spans = [(first, last)]
    block: Block | None = alloc.parent
    place = first
    while block is not None:
        found = _last_before(order, syncs, block, place)
        parent = block.parent_op()
        if found is not None:
            spans.append((order.start[found], place))
            _add_undrained(live, flow, alloc, found)
            break
        begin = order.start[parent] if isinstance(parent, Operation) and parent in order.start else 0
        spans.append((begin, place))
        if isinstance(parent, ForOp):
            turn = order.end[parent]
            around = _last_before(order, syncs, block, turn)
            after = order.start[parent] if around is None else order.start[around]
            spans.append((after, turn))
            if around is not None:
                _add_undrained(live, flow, alloc, around)
        if parent is None or parent not in order.start:
            break
        block, place = parent.parent, order.start[parent]
    live.spans[alloc] = spans


def _last_before(order: ProgramOrder, syncs: Iterable[Operation], block: Block, place: int) -> Operation | None:
    """The last of ``syncs`` that certainly runs in ``block`` before ``place``."""
    best: Operation | None = None
    for op in syncs:
        certain = is_inside(op, block) and not is_conditional(op, block)
        if certain and order.start[op] < place and (best is None or order.start[op] > order.start[best]):
            best = op
    return best


def _add_undrained(live: Liveness, flow: AddressFlow, alloc: AllocOp, sync: Operation) -> None:
    found = undrained(live.order, flow, sync)
    found.discard(alloc)
    live.extra.setdefault(alloc, set()).update(found)
