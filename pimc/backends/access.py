"""Which buffers an instruction reads and writes: addresses followed from ``sram.address`` through scalar
arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xdsl.ir import Operation, SSAValue

from pimc.backends.order import ProgramOrder
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ForOp
from pimc.ir.sram_structure import AddressOp, AllocOp, KeepOp, PortOp

#: Register operands that name local memory which the instruction writes (all others are read).
_WRITTEN = frozenset({"dst"})
#: Instructions whose ``dst`` is not local memory here: HBM, or the memory of the receivers.
_ELSEWHERE = frozenset({"hwr", "nsend", "nsend2", "nmcast", "nmcast2"})
#: Scalar instructions that access local memory.
_SCALAR_MEMORY = frozenset({"lw", "sw"})

_NOTHING: frozenset[AllocOp] = frozenset()


@dataclass(frozen=True)
class Access:
    """The buffers that an operation reads, writes, and (messages) writes at the receivers."""

    reads: frozenset[AllocOp] = _NOTHING
    writes: frozenset[AllocOp] = _NOTHING
    sends: frozenset[AllocOp] = _NOTHING

    @property
    def local(self) -> frozenset[AllocOp]:
        """What is accessed on this core."""
        return self.reads | self.writes


@dataclass
class AddressFlow:
    """For every scalar, the buffers it may be an address of."""

    sources: dict[SSAValue, frozenset[AllocOp]] = field(default_factory=dict)
    _accesses: dict[Operation, Access] = field(default_factory=dict)

    def of(self, value: SSAValue) -> frozenset[AllocOp]:
        """The buffers that ``value`` may be an address in."""
        return self.sources.get(value, _NOTHING)

    def _join(self, value: SSAValue, more: frozenset[AllocOp]) -> bool:
        before = self.of(value)
        if more <= before:
            return False
        self.sources[value] = before | more
        return True

    @staticmethod
    def analyse(order: ProgramOrder) -> AddressFlow:
        """Follow addresses through arithmetic and loops until nothing changes."""
        flow = AddressFlow()
        while flow._sweep(order):
            pass
        return flow

    def _sweep(self, order: ProgramOrder) -> bool:
        again = False
        for op in order.operations:
            if isinstance(op, AddressOp):
                owner = op.buffer.owner
                self._join(op.result, frozenset({owner}) if isinstance(owner, AllocOp) else _NOTHING)
            elif isinstance(op, ForOp):
                again |= self._loop(op)
            elif isinstance(op, SramInstruction) and op.results and op.INSTRUCTION.mnemonic != "lw":
                for operand in op.operands:
                    self._join(op.results[0], self.of(operand))
        return again

    def _loop(self, op: ForOp) -> bool:
        again = False
        self._join(op.counter, self.of(op.lower))
        for first, inner, following, final in zip(op.initial, op.carried, op.next_values, op.finals, strict=True):
            again |= self._join(inner, self.of(first) | self.of(following))
            again |= self._join(final, self.of(inner) | self.of(first))
        return again

    def access(self, op: Operation) -> Access:
        """The buffers that ``op`` accesses."""
        if op not in self._accesses:
            self._accesses[op] = self._access(op)
        return self._accesses[op]

    def _access(self, op: Operation) -> Access:
        if isinstance(op, KeepOp | PortOp):
            owner = op.buffer.owner
            found = frozenset({owner}) if isinstance(owner, AllocOp) else _NOTHING
            return Access(found, found)
        if not isinstance(op, SramInstruction):
            return Access()
        mnemonic, unit = op.INSTRUCTION.mnemonic, op.INSTRUCTION.unit
        if unit == "scu":
            return self._scalar_access(op, mnemonic)
        reads, writes, sends = _NOTHING, _NOTHING, _NOTHING
        for operand, value in zip(op.read_operands(), op.operands, strict=False):
            found = self.of(value)
            if operand.name not in _WRITTEN:
                reads |= found
            elif mnemonic not in _ELSEWHERE:
                writes |= found
            elif unit == "noc":
                sends |= found
        return Access(reads, writes, sends)

    def _scalar_access(self, op: SramInstruction, mnemonic: str) -> Access:
        if mnemonic in _SCALAR_MEMORY or mnemonic == "hset":
            base = self.of(op.operands[-1])
            return Access(writes=base) if mnemonic == "sw" else Access(reads=base)
        return Access()


def local_operands(op: SramInstruction, *, written: bool) -> list[SSAValue]:
    """The operands that are addresses in the core's own memory: those that ``op`` writes, or all that it accesses."""
    mnemonic, unit = op.INSTRUCTION.mnemonic, op.INSTRUCTION.unit
    if unit == "scu":
        reads = mnemonic == "sw" if written else mnemonic in _SCALAR_MEMORY
        return [op.operands[-1]] if reads else []
    pairs = list(zip(op.read_operands(), op.operands, strict=False))
    stored = [value for operand, value in pairs if operand.name in _WRITTEN and mnemonic not in _ELSEWHERE]
    return stored if written else [*stored, *(value for operand, value in pairs if operand.name not in _WRITTEN)]
