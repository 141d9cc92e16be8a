"""The codec against the tables: every instruction of both sets, random words, whole streams."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimc.diagnostics import IsaError
from pimc.isa.codec import DecodedProgram, decode, decode_words, encode, encode_words, word_dtype
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import MAX_OPERANDS, Instruction, InstructionSet
from pimc.isa.sram import SRAM_ISA

SETS = (SRAM_ISA, HBM_ISA)
EVERY = [pytest.param(isa, i, id=f"{isa.name}-{i.mnemonic}") for isa in SETS for i in isa.instructions]


def operands_of(instruction: Instruction) -> st.SearchStrategy[tuple[int, ...]]:
    """Values in range for each operand, its limits among them."""
    return st.tuples(*(st.integers(operand.minimum, operand.maximum) for operand in instruction.operands))


@pytest.mark.parametrize(("isa", "instruction"), EVERY)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_round_trip(isa: InstructionSet, instruction: Instruction, data: st.DataObject) -> None:
    operands = data.draw(operands_of(instruction))
    word = encode(isa, instruction.mnemonic, operands)
    assert decode(isa, word) == (instruction, operands)
    decoded = decode_words(isa, np.array([word], word_dtype(isa)))
    assert isa.instructions[decoded.op[0]] is instruction
    assert tuple(decoded.operands[0]) == operands + (0,) * (MAX_OPERANDS - len(operands))
    assert encode_words(isa, *decoded)[0] == word


@pytest.mark.parametrize(("isa", "instruction"), EVERY)
def test_limits(isa: InstructionSet, instruction: Instruction) -> None:
    for extreme in ("minimum", "maximum"):
        values = [getattr(operand, extreme) for operand in instruction.operands]
        assert list(decode(isa, encode(isa, instruction.mnemonic, values))[1]) == values
        for i, operand in enumerate(instruction.operands):
            beyond = list(values)
            beyond[i] += -1 if extreme == "minimum" else 1
            with pytest.raises(IsaError, match=f"{instruction.mnemonic}: operand {operand.name} = {beyond[i]} "):
                encode(isa, instruction.mnemonic, beyond)
            row = np.zeros((1, MAX_OPERANDS), np.int64)
            row[0, : len(beyond)] = beyond
            with pytest.raises(IsaError, match=f"entry 0: {instruction.mnemonic}: operand {operand.name} ="):
                encode_words(isa, np.array([isa.index[instruction.mnemonic]]), row)


def _word(isa: InstructionSet) -> st.SearchStrategy[int]:
    """Any word, and words that are an instruction but for a few bits."""
    near = st.builds(
        lambda instruction, operands, flips: (instruction.match | (operands & ~instruction.match_mask)) ^ flips,
        st.sampled_from(isa.instructions),
        st.integers(0, 2**isa.word_bits - 1),
        st.sampled_from([0, *(1 << bit for bit in range(isa.word_bits))]),
    )
    return st.integers(0, 2**isa.word_bits - 1) | near


@pytest.mark.parametrize("isa", SETS, ids=lambda isa: isa.name)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_word(isa: InstructionSet, data: st.DataObject) -> None:
    """A word decodes and encodes to itself, or it is refused; one by one and in a stream alike."""
    word = data.draw(_word(isa))
    stream = np.array([0, word], word_dtype(isa))
    try:
        instruction, operands = decode(isa, word)
    except IsaError:
        with pytest.raises(IsaError, match=rf"here: word 1 \({word:#0{isa.word_bits // 4 + 2}x}\)"):
            decode_words(isa, stream, where="here")
    else:
        assert encode(isa, instruction.mnemonic, operands) == word
        assert (encode_words(isa, *decode_words(isa, stream)) == stream).all()


def test_refused_arguments() -> None:
    with pytest.raises(IsaError, match="no instruction 'vaddd'"):
        encode(SRAM_ISA, "vaddd", ())
    with pytest.raises(IsaError, match="add takes 3 operands, not 2"):
        encode(SRAM_ISA, "add", (1, 2))
    for word in (-1, 1 << 32):
        with pytest.raises(IsaError, match="not an instruction"):
            decode(SRAM_ISA, word)
    with pytest.raises(IsaError, match="one-dimensional uint32"):
        decode_words(SRAM_ISA, np.zeros(1, np.uint64))
    with pytest.raises(IsaError, match="one-dimensional uint64"):
        decode_words(HBM_ISA, np.zeros((1, 1), np.uint64))
    with pytest.raises(IsaError, match="entry 0: sram has no instruction number 999"):
        encode_words(SRAM_ISA, np.array([999]), np.zeros((1, MAX_OPERANDS), np.int64))
    with pytest.raises(IsaError, match="halt takes 0 operands"):
        encode_words(SRAM_ISA, np.array([SRAM_ISA.index["halt"]]), np.ones((1, MAX_OPERANDS), np.int64))
    with pytest.raises(IsaError, match="shape"):
        encode_words(SRAM_ISA, np.array([0]), np.zeros((1, 3), np.int64))


def test_empty_stream() -> None:
    decoded = decode_words(SRAM_ISA, np.zeros(0, np.uint32))
    assert isinstance(decoded, DecodedProgram)
    assert decoded.op.shape == (0,)
    assert encode_words(SRAM_ISA, *decoded).shape == (0,)
