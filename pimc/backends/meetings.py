"""Meetings of all cores that free memory: a remote buffer that nobody sends into early need not be kept free early.

A buffer that other cores send into is kept free from the last message on by which this core let them all go
(:mod:`pimc.backends.liveness`).  Where no message does so for long, as between two exchanges of a layer, it takes
memory beside what has nothing to do with it.  If memory is short, all cores meet right before the first message into
it: that takes a few hundred cycles, and the buffer is kept free from there on only.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.ir import Operation

from pimc.backends.access import AddressFlow
from pimc.backends.liveness import Liveness, Span
from pimc.backends.messages import Messages
from pimc.backends.order import ProgramOrder, constant, enclosing_loops, in_block, is_conditional, is_inside
from pimc.backends.synchronise import meet_before, token_of
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ProgramOp
from pimc.ir.sram_structure import AllocOp


def shorten(program: ProgramOp, live: Liveness, failed: AllocOp, space: int, semaphore: int) -> bool:
    """Let all cores meet where this gives room to a buffer that does not fit; whether there was such a place.

    Args:
        program: the program that all cores of the entry run.
        live: its buffers' lives.
        failed: the buffer that found no room.
        space: bytes of its memory.
        semaphore: one of the cores' that no exchange uses.
    """
    rivals = [
        op for op in live.spans if op.memory.data == failed.memory.data and (op is failed or live.conflict(failed, op))
    ]
    excess = sum(_size(op) for op in rivals) - space
    found = {op: freed for op in rivals if (freed := _freed(live, failed, op, rivals))}
    met = False
    for op in sorted(found, key=lambda op: (-found[op], op.sym_name.data)):
        if _meet(program, op, semaphore):
            met, excess = True, excess - found[op]
            if excess <= 0:
                break
    return met or any(_meet(program, op, semaphore) for op in _early_at_peak(live, failed.memory.data))


def _early_at_peak(live: Liveness, memory: str) -> list[AllocOp]:
    """Where most memory is in use, the remote buffers that are only kept free for early messages; largest first."""
    own = [(op, spans) for op, spans in live.spans.items() if op.memory.data == memory]

    def used(place: int) -> int:
        return sum(_size(op) for op, spans in own if _meets(spans, (place, place)))

    peak = max((start for _, spans in own for start, _ in spans), key=used, default=0)
    early = [
        op
        for op, spans in own
        if op.remote is not None and _meets(spans[1:], (peak, peak)) and not _meets(spans[:1], (peak, peak))
    ]
    return sorted(early, key=lambda op: (-_size(op), op.sym_name.data))


def _freed(live: Liveness, failed: AllocOp, early: AllocOp, rivals: Sequence[AllocOp]) -> int:
    """Bytes that no longer conflict with ``failed`` if ``early`` is kept free from its first message on only."""
    if early.remote is None or len(live.spans[early]) < 2:
        return 0
    own = live.spans[early][0]
    if early is not failed:
        return 0 if _meets(live.spans[failed], own) else _size(early)
    return sum(_size(op) for op in rivals if op is not failed and not _meets(live.spans[op], own))


def _meets(spans: Sequence[Span], own: Span) -> bool:
    return any(start <= own[1] and own[0] <= end for start, end in spans)


def _meet(program: ProgramOp, buffer: AllocOp, semaphore: int) -> bool:
    """Let all cores meet before the first message into a buffer; False where not all of them would come, or do so."""
    order = ProgramOrder.of(program.body.block)
    flow = AddressFlow.analyse(order)
    messages = Messages.of(program, order, flow)
    sends = messages.sends.get(buffer.sym_name.data, [])
    block = buffer.parent
    if not sends or block is None or not all(is_inside(op, block) for op in sends):
        return False
    source = next(iter(sorted(flow.access(sends[0]).reads, key=lambda op: order.start[op])), None)
    first = in_block(min(sends, key=lambda op: order.start[op]), block)
    token = token_of(program)
    known = (
        source is not None
        and source is not buffer
        and _by_all(first, program)
        and not _meets_before(first, token, flow)
    )
    if source is None or not known or not _is_free(order, flow, token, semaphore):
        return False
    meet_before(first, source, token, len(program.core_numbers), semaphore)
    return True


def _by_all(op: Operation, program: ProgramOp) -> bool:
    """Whether all cores come by an operation, and equally often."""
    bounds = [constant(bound) for loop in enclosing_loops(op) for bound in (loop.lower, loop.upper)]
    same = all(numbers is not None and len(set(numbers)) == 1 for numbers in bounds)
    return same and not is_conditional(op, program.body.block)


def _is_free(order: ProgramOrder, flow: AddressFlow, token: AllocOp, semaphore: int) -> bool:
    """Whether a program uses a semaphore for meetings only."""
    found = (op for op in order.operations if isinstance(op, SramInstruction) and "sem" in op.properties)
    return all(
        flow.access(op).sends == {token} or _meets_before(op.next_op, token, flow)
        for op in found
        if op.INSTRUCTION.mnemonic != "sigh" and numbers(op.properties["sem"])[0] == semaphore
    )


def _meets_before(op: Operation | None, token: AllocOp, flow: AddressFlow) -> bool:
    """Whether the cores meet right before an operation: a message to all and the wait for theirs."""
    before = op.prev_op if op is not None else None
    while before is not None and flow.access(before).sends != {token}:
        if isinstance(before, SramInstruction) and before.INSTRUCTION.mnemonic != "wait":
            return False
        before = before.prev_op
    return before is not None


def _size(alloc: AllocOp) -> int:
    return alloc.bytes.value.data
