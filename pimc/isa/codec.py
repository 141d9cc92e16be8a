"""Instruction words <-> (instruction, operands), one at a time or a whole stream at once, derived from the
tables.

Decoding is strict: a word decodes only if encoding the result gives the same word back, so every bit is
either fixed by the table or belongs to an operand.  Operand values are in assembly order; SIGNED and LABEL
operands are sign-extended.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pimc.diagnostics import IsaError
from pimc.isa.spec import MAX_OPERANDS, Instruction, InstructionSet, Operand

#: Instruction words: uint32[n] of a core, uint64[n] of a pseudo-channel group.
Words: TypeAlias = NDArray[np.unsignedinteger]


class DecodedProgram(NamedTuple):
    """A decoded stream of n words.

    ``op``: int16[n], the position of each instruction in ``isa.instructions``.
    ``operands``: int64[n, MAX_OPERANDS] in assembly order; columns an instruction does not have are 0.
    """

    op: NDArray[np.int16]
    operands: NDArray[np.int64]


def word_dtype(isa: InstructionSet) -> np.dtype[np.unsignedinteger]:
    """The little-endian dtype of one instruction word."""
    return np.dtype(f"<u{isa.word_bits // 8}")


@lru_cache(maxsize=16)
def _groups(isa: InstructionSet) -> tuple[int, dict[int, tuple[int, ...]]]:
    """Bits fixed in every instruction (the opcode), and the instructions (by position) for each value of
    them."""
    common = (1 << isa.word_bits) - 1
    for instruction in isa.instructions:
        common &= instruction.match_mask
    groups: dict[int, tuple[int, ...]] = {}
    for index, instruction in enumerate(isa.instructions):
        key = instruction.match & common
        groups[key] = (*groups.get(key, ()), index)
    return common, groups


def _range_error(instruction: Instruction, operand: Operand, value: int, where: str | None = None) -> IsaError:
    return IsaError(
        f"{instruction.mnemonic}: operand {operand.name} = {value} is out of range "
        f"[{operand.minimum}, {operand.maximum}]",
        where=where,
    )


def encode(isa: InstructionSet, mnemonic: str, operands: Sequence[int]) -> int:
    """The word of one instruction.

    Raises :class:`IsaError` for an unknown mnemonic, a wrong number of operands, or an operand out of its
    range.
    """
    index = isa.index.get(mnemonic)
    if index is None:
        raise IsaError(f"{isa.name} has no instruction {mnemonic!r}")
    instruction = isa.instructions[index]
    if len(operands) != len(instruction.operands):
        raise IsaError(f"{mnemonic} takes {len(instruction.operands)} operands, not {len(operands)}")
    word = instruction.match
    for operand, value in zip(instruction.operands, operands, strict=True):
        if not operand.minimum <= value <= operand.maximum:
            raise _range_error(instruction, operand, value)
        word |= (int(value) << operand.field.low) & operand.field.mask
    return word


def _extract(operand: Operand, word: int) -> int:
    value = (word & operand.field.mask) >> operand.field.low
    return value - (1 << operand.field.width) if value > operand.maximum else value


def decode(isa: InstructionSet, word: int) -> tuple[Instruction, tuple[int, ...]]:
    """The instruction and operands of one word; raises :class:`IsaError` where it is not exactly one."""
    if 0 <= word < 1 << isa.word_bits:
        common, groups = _groups(isa)
        for index in groups.get(word & common, ()):
            instruction = isa.instructions[index]
            if word & instruction.match_mask == instruction.match:
                return instruction, tuple(_extract(operand, word) for operand in instruction.operands)
    raise IsaError(f"{word:#0{isa.word_bits // 4 + 2}x} is not an instruction of {isa.name}")


def decode_words(isa: InstructionSet, words: Words, *, where: str | None = None) -> DecodedProgram:
    """Decode a stream: ``words`` is unsigned[n] of the set's width.

    Raises :class:`IsaError` with the index and value of the first word that is not an instruction;
    ``where`` names the stream in it.
    """
    if words.dtype != word_dtype(isa) or words.ndim != 1:
        raise IsaError(f"{isa.name} words must be one-dimensional {word_dtype(isa)}, not {words.dtype}{words.shape}")
    op = np.full(words.shape, -1, np.int16)
    operands = np.zeros((len(words), MAX_OPERANDS), np.int64)
    common, groups = _groups(isa)
    keys = words & common
    for key in np.unique(keys):
        (positions,) = np.nonzero(keys == key)
        for index in groups.get(int(key), ()):
            instruction = isa.instructions[index]
            hits = positions[words[positions] & instruction.match_mask == instruction.match]
            op[hits] = index
            for column, operand in enumerate(instruction.operands):
                field = operand.field
                value = ((words[hits] & field.mask) >> field.low).astype(np.int64)
                operands[hits, column] = np.where(value > operand.maximum, value - (1 << field.width), value)
    if len(op) and op.min() < 0:
        bad = int(np.argmin(op))
        value = f"{int(words[bad]):#0{isa.word_bits // 4 + 2}x}"
        raise IsaError(f"word {bad} ({value}) is not an instruction of {isa.name}", where=where)
    return DecodedProgram(op, operands)


def encode_words(isa: InstructionSet, op: NDArray[np.integer], operands: NDArray[np.integer]) -> Words:
    """Encode a stream, the inverse of :func:`decode_words`: op[n], operands[n, MAX_OPERANDS] -> words[n].

    Raises :class:`IsaError` with the index of the first bad entry: an unknown ``op``, an operand out of
    range, or a value other than 0 in a column that the instruction does not have.
    """
    if operands.shape != (len(op), MAX_OPERANDS):
        raise IsaError(f"operands must have the shape ({len(op)}, {MAX_OPERANDS}), not {operands.shape}")
    values = operands.astype(np.int64)
    words = np.zeros(len(op), word_dtype(isa))
    for index in np.unique(op):
        (positions,) = np.nonzero(op == index)
        if not 0 <= index < len(isa.instructions):
            raise IsaError(f"entry {positions[0]}: {isa.name} has no instruction number {index}")
        instruction = isa.instructions[int(index)]
        word = np.full(len(positions), instruction.match, words.dtype)
        for column, operand in enumerate(instruction.operands):
            value = values[positions, column]
            bad = (value < operand.minimum) | (value > operand.maximum)
            if bad.any():
                first = int(np.argmax(bad))
                raise _range_error(instruction, operand, int(value[first]), f"entry {positions[first]}")
            word |= (value.astype(words.dtype) << operand.field.low) & operand.field.mask
        rest = values[positions, len(instruction.operands) :]
        if rest.any():
            raise IsaError(f"{instruction.mnemonic} takes {len(instruction.operands)} operands, more were given")
        words[positions] = word
    return words
