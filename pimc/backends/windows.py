"""Where a program lets its stream begin to access a buffer: the ``sigh`` for the stream's ``wait`` before it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.ir import Block, Operation

from pimc.ir import hbm
from pimc.ir.instruction_ops import LocalAddressAttr, numbers
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ProgramOp
from pimc.ir.sram_structure import AllocOp

#: Commands that write local memory; others with an address of it read.
_WRITES = frozenset({"rdres", "rd"})


@dataclass(frozen=True)
class _Begin:
    """The stream's latest ``wait`` before an access: its semaphore, and how many waits on it stand before."""

    semaphore: int
    index: int


@dataclass(frozen=True)
class Window:
    """A stream may access a buffer of the program from operation ``begin`` on, and may write it."""

    buffer: AllocOp
    begin: Operation
    writes: bool


def stream_windows(program: ProgramOp, streams: list[hbm.ProgramOp]) -> list[Window]:
    """Where streams may begin to access buffers of ``program``.

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
    windows: list[Window] = []
    for stream in streams:
        if stream.entry != program.entry or not cores & set(stream.group_numbers):
            continue
        counts: dict[int, int] = {}
        for name, writes, begin in _accesses(stream.body.block, counts):
            if name not in allocs:
                continue
            known = signals.get(begin.semaphore, []) if begin is not None else []
            if begin is not None and len(known) == counts_of(stream, begin.semaphore):
                begins = [known[begin.index]]
            else:
                begins = [*_ends(allocs[name].parent), *known]
            windows.extend(Window(allocs[name], op, writes) for op in begins)
    return list(dict.fromkeys(windows))


def counts_of(stream: hbm.ProgramOp, semaphore: int) -> int:
    """``wait`` commands on a semaphore in the text of a stream."""
    return sum(
        isinstance(op, hbm.HbmCommand)
        and op.INSTRUCTION.mnemonic == "wait"
        and numbers(op.properties["sem"])[0] == semaphore
        for op in stream.body.walk()
    )


def _accesses(block: Block, counts: dict[int, int]) -> Iterator[tuple[str, bool, _Begin | None]]:
    """(buffer name, whether it is written, what the stream waited for before) of every address of a local buffer."""
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
                yield value.buffer.data, op.INSTRUCTION.mnemonic in _WRITES, begin


def _ends(block: Block | None) -> list[Operation]:
    """The first and the last operation of a block."""
    if block is None or block.first_op is None or block.last_op is None:
        return []
    return [block.first_op, block.last_op]
