"""Damage to a binary shows: other numbers, or an error that names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pimc.diagnostics import DeadlockError, RaceError, SimError, UninitialisedReadError
from pimc.isa.codec import decode_words, encode
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import LoadedProgram
from pimc.isa.spec import InstructionSet
from pimc.isa.sram import SRAM_ISA
from pimc.runtime_sim import Machine
from pimc.targets import load_target

FAMILY = "llama-gqa-9-3"
CORE = 1  # whose stream is damaged: it owns position 1, so it also reads the gathered keys and values
STEPS = 2  # decode steps: a missing wait may be harmless in the first


def logits(program: LoadedProgram) -> NDArray[np.float16]:
    """Logits of a few decode steps."""
    machine = Machine(program, load_target("hpim"))
    found = []
    for position, token in enumerate((9, 120)[:STEPS]):
        inputs = {"tokens": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        found.append(machine.run("decode", inputs).outputs["logits"].reshape(-1))
    return np.stack(found)


@pytest.fixture(scope="module")
def program(compiled: Callable) -> LoadedProgram:
    return compiled(FAMILY).executable.program


@pytest.fixture(scope="module")
def expected(program: LoadedProgram) -> NDArray[np.float16]:
    return logits(program)


def with_image(program: LoadedProgram, pch: int, image: NDArray[np.uint16]) -> LoadedProgram:
    return replace(program, images={**program.images, pch: image})


@pytest.mark.parametrize("bit", [9, 14, 15])  # top of the significand, top of the exponent, sign
def test_flipped_bit_in_a_weight_row(program: LoadedProgram, expected: NDArray[np.float16], bit: int) -> None:
    image = np.array(program.images[20])
    rows, elements = np.nonzero((image[:, 15] & 0x7FFF) > 0x2000)  # not tiny: a small change may vanish in the rounding
    image[rows[-1], 15, elements[-1]] ^= 1 << bit
    assert not np.array_equal(logits(with_image(program, 20, image)), expected)


def test_swapped_banks(program: LoadedProgram, expected: NDArray[np.float16]) -> None:
    image = np.array(program.images[20])
    image[:, [2, 3]] = image[:, [3, 2]]
    assert not np.array_equal(logits(with_image(program, 20, image)), expected)


@dataclass(frozen=True)
class Damage:
    """Instructions of a stream to replace by nothing."""

    tensor: str
    isa: InstructionSet
    pcs: tuple[int, ...]

    def apply(self, program: LoadedProgram) -> LoadedProgram:
        """The program with nops in their place."""
        words = np.array(program.code[self.tensor])
        words[list(self.pcs)] = encode(self.isa, "nop", ())
        locations = {name: found for name, found in program.locations.items() if name != self.tensor}
        decoded = {**program.decoded, self.tensor: decode_words(self.isa, words)}
        return replace(program, code={**program.code, self.tensor: words}, locations=locations, decoded=decoded)

    def operand(self, program: LoadedProgram, position: int) -> int:
        """An operand of the (first) instruction."""
        return int(program.decoded[self.tensor].operands[self.pcs[0]][position])


def places(program: LoadedProgram, kind: str, number: int, mnemonic: str) -> list[Damage]:
    """Every instruction of that mnemonic in the decode stream of an agent."""
    entry = program.entries["decode"]
    tensor = (entry.cores if kind == "core" else entry.groups)[number]
    isa = SRAM_ISA if kind == "core" else HBM_ISA
    index = [instruction.mnemonic for instruction in isa.instructions].index(mnemonic)
    return [Damage(tensor, isa, (int(pc),)) for pc in np.flatnonzero(program.decoded[tensor].op == index)]


def outcome(program: LoadedProgram, damage: Damage, expected: NDArray[np.float16]) -> str | SimError:
    """What the damage led to: an error, or whether the numbers changed."""
    try:
        same = np.array_equal(logits(damage.apply(program)), expected)
    except SimError as error:
        return error
    return "same" if same else "changed"


def assert_names_its_instructions(found: str | SimError, what: str) -> None:
    """A race names both instructions; a read of what nothing has written yet, the only one there is."""
    assert isinstance(found, RaceError | UninitialisedReadError), f"{what}: {found}"
    assert str(found).count("pc ") == (2 if isinstance(found, RaceError) else 1), f"{what}: {found}"


@pytest.mark.parametrize("core", [CORE, pytest.param(31, marks=pytest.mark.slow)])  # 31 owns none of the positions
def test_every_removed_wait_of_a_core_is_an_error(
    program: LoadedProgram, expected: NDArray[np.float16], core: int
) -> None:
    waits = places(program, "core", core, "wait")
    assert len(waits) > 10  # embedding, gathers, exchanges, GEMV results
    races, redundant = 0, []
    for number, wait in enumerate(waits):
        found = outcome(program, wait, expected)
        if found == "same":
            redundant.append(number)
            continue
        assert_names_its_instructions(found, f"wait at pc {wait.pcs[0]}")
        races += isinstance(found, RaceError)
    # Two waits order nothing for a core that owns none of these positions: it never reads the new keys and values.
    idle = 2 if core >= STEPS else 1
    assert races >= len(waits) - 2 - idle  # but for the embedding, the first exchange, and the redundant ones
    assert len(redundant) <= idle
    if core >= STEPS:
        assert not redundant or redundant[-1] - redundant[0] == len(redundant) - 1  # those of k and v
        return
    # One wait orders nothing that the next does not: q, k and v are gathered one behind the other, from the same cores,
    # and two messages between two cores keep their order.  That the checker is not blind to it: without both, its own
    # messages race.
    for number in redundant:
        wait, following = waits[number], waits[number + 1]
        found = outcome(program, replace(wait, pcs=(*wait.pcs, *following.pcs)), expected)
        assert isinstance(found, RaceError), found
        semaphore = wait.operand(program, 0)
        assert re.search(rf"message of core \d+, pc \d+: (nmcast|nsend)[^\]]*, s{semaphore}\b", str(found)), found


def test_every_removed_wait_of_a_stream_is_an_error(program: LoadedProgram, expected: NDArray[np.float16]) -> None:
    waits = places(program, "hbm", CORE, "wait")
    assert len(waits) == 5  # QKV, projection, gate and up, down, head
    for wait in waits:
        assert_names_its_instructions(outcome(program, wait, expected), f"wait at pc {wait.pcs[0]}")


@pytest.mark.parametrize(
    ("kind", "mnemonic", "operand"),
    [
        ("core", "sigh", 0),
        ("hbm", "sig", 0),
        ("core", "nmcast", 3),
        ("core", "nsend", 4),
    ],
)
def test_every_removed_signal_is_a_deadlock(
    program: LoadedProgram, expected: NDArray[np.float16], kind: str, mnemonic: str, operand: int
) -> None:
    """The error names a stream that waits for the signal, and its instruction."""
    signals = places(program, kind, CORE, mnemonic)
    assert signals
    for signal in signals:
        found = outcome(program, signal, expected)
        assert isinstance(found, DeadlockError), f"pc {signal.pcs[0]}: {found}"
        waits = re.findall(r"\[decode, (core|hbm) (\d+), pc \d+: wait s(\d+), ", str(found))
        if mnemonic == "sigh":  # of 160 streams that wait, eight are shown: the core is, its controllers may not be
            assert ("core", str(CORE)) in [wait[:2] for wait in waits], found
        else:
            assert ("core", str(signal.operand(program, operand))) in [wait[::2] for wait in waits], found
