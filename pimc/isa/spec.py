"""What an instruction is, as data: fields, operands, instructions, instruction sets.

One :class:`InstructionSet` is the single source from which the encoder, decoder, assembler, disassembler,
reference page, IR dialect and the simulator's dispatch derive.  Adding an instruction is one
:class:`Instruction` entry in a table (``sram.py`` or ``hbm.py``) and one semantic function in
``pimc.runtime_sim``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from types import MappingProxyType

#: The most operands an instruction may have: the second dimension of decoded operand arrays.
MAX_OPERANDS = 8


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

    ``writes``: the instruction writes this REGISTER operand (and does not read it); the other ones it reads.
    """

    name: str
    kind: OperandKind
    field: Field
    doc: str
    writes: bool = False

    @property
    def signed(self) -> bool:
        """Whether the field holds a two's-complement number."""
        return self.kind in (OperandKind.SIGNED, OperandKind.LABEL)

    @property
    def minimum(self) -> int:
        """The least value the operand takes."""
        return -(1 << (self.field.width - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """The greatest value the operand takes."""
        return (1 << (self.field.width - self.signed)) - 1


@dataclass(frozen=True)
class Instruction:
    """One instruction: mnemonic, unit, fixed bits, operands in assembly order, timing and meaning by name.

    ``latency`` names a latency model of the target (``[core.latency]`` or the DRAM timing table),
    ``config`` the configuration registers read, by name (see ``CONFIG_REGISTERS``).
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


@dataclass(frozen=True, eq=False)
class InstructionSet:
    """A complete instruction set of fixed-width words.

    Raises ``ValueError`` at construction where two instructions overlap, a field leaves the word, two
    fields of one instruction share a bit, or a bit is neither fixed nor an operand's: a table with such a
    conflict must never load.
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
        for field, value in instruction.fixed:
            if value & ~((1 << field.width) - 1):
                raise ValueError(f"{self.name}: {instruction.mnemonic}: {value} does not fit field {field.name}")
        free = ((1 << self.word_bits) - 1) & ~used
        if free:
            raise ValueError(f"{self.name}: {instruction.mnemonic}: bits {free:#x} are neither fixed nor an operand")
        if len(instruction.operands) > MAX_OPERANDS:
            raise ValueError(f"{self.name}: {instruction.mnemonic} has more than {MAX_OPERANDS} operands")

    @cached_property
    def index(self) -> Mapping[str, int]:
        """The position of every mnemonic in ``instructions``: the number decoded programs call it by."""
        return MappingProxyType({instruction.mnemonic: i for i, instruction in enumerate(self.instructions)})

    def by_mnemonic(self) -> dict[str, Instruction]:
        """Every instruction by its mnemonic."""
        return {instruction.mnemonic: instruction for instruction in self.instructions}
