"""What an instruction is, as data: fields, operands, instructions, instruction sets.

One :class:`InstructionSet` is the single source from which the encoder, decoder, assembler, disassembler, reference page,
IR dialect and the simulator's dispatch derive.  Adding an instruction is one :class:`Instruction` entry in a table
(``sram.py`` or ``hbm.py``) and one semantic function in ``pimc.runtime_sim``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class OperandKind(Enum):
    """How an operand is written in assembly and what its field holds."""

    REGISTER = "register"  # scalar register number
    CONFIG = "config"  # configuration register number (SRAM-PIM cores)
    SEMAPHORE = "semaphore"  # semaphore number
    UNSIGNED = "unsigned"  # unsigned immediate
    SIGNED = "signed"  # two's-complement immediate
    LABEL = "label"  # program-counter-relative offset in words, two's complement
    MASK = "mask"  # bit mask, written in binary


@dataclass(frozen=True)
class Field:
    """A contiguous bit range ``[low, low + width)`` of an instruction word."""

    name: str
    low: int
    width: int

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << self.width) - 1) << self.low


@dataclass(frozen=True)
class Operand:
    """One assembly operand: its name, kind, the field that holds it, and what it means (``doc``).

    ``reads``/``writes`` say whether a REGISTER operand is read or written by the instruction.
    """

    name: str
    kind: OperandKind
    field: Field
    doc: str
    writes: bool = False


@dataclass(frozen=True)
class Instruction:
    """One instruction: mnemonic, unit, fixed bits, operands in assembly order, timing and meaning by name.

    ``latency`` names a latency model of the target (``[core.latency]`` or the DRAM timing table), ``config`` the
    configuration registers read, by name (see ``CONFIG_REGISTERS``).
    """

    mnemonic: str
    unit: str
    fixed: tuple[tuple[Field, int], ...]
    operands: tuple[Operand, ...]
    latency: str
    semantics: str
    doc: str
    config: tuple[str, ...] = ()

    @property
    def match(self) -> int:
        """The value of the fixed bits."""
        return sum(value << field.low for field, value in self.fixed)

    @property
    def match_mask(self) -> int:
        """Which bits are fixed."""
        return sum(field.mask for field, _ in self.fixed)


@dataclass(frozen=True)
class InstructionSet:
    """A complete instruction set of fixed-width words.

    Raises ``ValueError`` at construction where two instructions overlap, a field leaves the word, or two fields of one
    instruction share a bit: a table with such a conflict must never load.
    """

    name: str
    word_bits: int
    register_prefix: str
    instructions: tuple[Instruction, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for instruction in self.instructions:
            if instruction.mnemonic in seen:
                raise ValueError(f"{self.name}: mnemonic {instruction.mnemonic} appears twice")
            seen.add(instruction.mnemonic)
            self._check_bits(instruction)
        for i, a in enumerate(self.instructions):
            for b in self.instructions[i + 1 :]:
                common = a.match_mask & b.match_mask
                if a.match & common == b.match & common:
                    raise ValueError(f"{self.name}: {a.mnemonic} and {b.mnemonic} cannot be told apart")

    def _check_bits(self, instruction: Instruction) -> None:
        used = 0
        fields = [field for field, _ in instruction.fixed] + [operand.field for operand in instruction.operands]
        for field in fields:
            if field.low < 0 or field.low + field.width > self.word_bits:
                raise ValueError(f"{self.name}: {instruction.mnemonic}: field {field.name} leaves the word")
            if used & field.mask:
                raise ValueError(f"{self.name}: {instruction.mnemonic}: field {field.name} overlaps another")
            used |= field.mask

    def by_mnemonic(self) -> dict[str, Instruction]:
        """Every instruction by its mnemonic."""
        return {instruction.mnemonic: instruction for instruction in self.instructions}
