"""Where a program lets its stream begin to access a buffer: the ``sigh`` for the stream's ``wait`` before the
access.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.ir import Block, Operation

from pimc.ir import hbm
from pimc.ir.instruction_ops import LocalAddressAttr, numbers
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ProgramOp
from pimc.ir.sram_structure import AllocOp


@dataclass(frozen=True)
class _Begin:
    """The stream's latest ``wait`` before an access: its semaphore, and how many waits on it stand before."""

    semaphore: int
    index: int


def stream_windows(program: ProgramOp, streams: list[hbm.ProgramOp]) -> dict[str, list[Operation]]:
    """Buffer name -> operations of ``program`` where a stream may begin to access it.

    The k-th ``wait`` on a semaphore in the text of a stream belongs to the k-th ``sigh`` in the text of the
    program; where their numbers differ the whole program counts.
    """
    signals: dict[int, list[Operation]] = {}
    allocs: dict[str, AllocOp] = {}
    for op in program.body.walk():
        if isinstance(op, AllocOp):
            allocs[op.sym_name.data] = op
        elif isinstance(op, SramInstruction) and op.INSTRUCTION.mnemonic == "sigh":
            signals.setdefault(numbers(op.properties["sem"])[0], []).append(op)
    cores = set(program.core_numbers)
    windows: dict[str, list[Operation]] = {}
    for stream in streams:
        if stream.entry != program.entry or not cores & set(stream.group_numbers):
            continue
        counts: dict[int, int] = {}
        for name, begin in _accesses(stream.body.block, counts):
            if name not in allocs:
                continue
            known = signals.get(begin.semaphore, []) if begin is not None else []
            if begin is not None and len(known) == counts_of(stream, begin.semaphore):
                windows.setdefault(name, []).append(known[begin.index])
            else:
                windows.setdefault(name, []).extend(_ends(allocs[name].parent))
    return windows


def counts_of(stream: hbm.ProgramOp, semaphore: int) -> int:
    """``wait`` commands on a semaphore in the text of a stream."""
    return sum(
        isinstance(op, hbm.HbmCommand)
        and op.INSTRUCTION.mnemonic == "wait"
        and numbers(op.properties["sem"])[0] == semaphore
        for op in stream.body.walk()
    )


def _accesses(block: Block, counts: dict[int, int]) -> Iterator[tuple[str, _Begin | None]]:
    """(buffer name, what the stream waited for before) of every address of a local buffer, in program order."""
    begin: _Begin | None = None
    for op in block.walk():
        if not isinstance(op, hbm.HbmCommand):
            continue
        if op.INSTRUCTION.mnemonic == "wait":
            semaphore = numbers(op.properties["sem"])[0]
            begin = _Begin(semaphore, counts.get(semaphore, 0))
            counts[semaphore] = begin.index + 1
        for value in op.properties.values():
            if isinstance(value, LocalAddressAttr):
                yield value.buffer.data, begin


def _ends(block: Block | None) -> list[Operation]:
    """The first and the last operation of a block."""
    if block is None or block.first_op is None or block.last_op is None:
        return []
    return [block.first_op, block.last_op]
