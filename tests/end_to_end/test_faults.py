"""Damage to a binary shows: other numbers, or an error that names what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from pimc.diagnostics import DeadlockError, RaceError, SimError, UninitialisedReadError
from pimc.isa.codec import encode
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import LoadedProgram, Program
from pimc.isa.spec import InstructionSet
from pimc.isa.sram import SRAM_ISA
from pimc.isa.validate import validate_program
from pimc.runtime_sim import Machine
from pimc.targets import load_target

FAMILY = "llama-gqa-9-3"
CORE = 1  # whose stream is damaged: it owns position 1, so it also reads the gathered keys and values
STEPS = 2  # decode steps: a missing wait may be harmless in the first


def logits(program: Program) -> NDArray[np.float16]:
    """Logits of a few decode steps."""
    machine = Machine(validate_program(program), load_target("hpim"))
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


def with_image(program: LoadedProgram, pch: int, image: NDArray[np.uint16]) -> Program:
    return replace(program, images={**program.images, pch: image})


def test_flipped_bit_in_a_weight_row(program: LoadedProgram, expected: NDArray[np.float16]) -> None:
    image = np.array(program.images[20])
    rows, elements = np.nonzero((image[:, 15] & 0x7FFF) > 0x2000)  # weights of gate and up, not tiny ones
    image[rows[-1], 15, elements[-1]] ^= 1 << 14  # top of the exponent: a small change may vanish in the rounding
    assert not np.array_equal(logits(with_image(program, 20, image)), expected)


def test_swapped_banks(program: LoadedProgram, expected: NDArray[np.float16]) -> None:
    image = np.array(program.images[20])
    image[:, [2, 3]] = image[:, [3, 2]]
    assert not np.array_equal(logits(with_image(program, 20, image)), expected)


@dataclass(frozen=True)
class Damage:
    """An instruction of a stream to replace by nothing."""

    tensor: str
    isa: InstructionSet
    pc: int

    def apply(self, program: LoadedProgram) -> Program:
        """The program with a nop in its place."""
        words = np.array(program.code[self.tensor])
        words[self.pc] = encode(self.isa, "nop", ())
        locations = {name: found for name, found in program.locations.items() if name != self.tensor}
        return replace(program, code={**program.code, self.tensor: words}, locations=locations)


def places(program: LoadedProgram, kind: str, number: int, mnemonic: str) -> Iterator[Damage]:
    """Every instruction of that mnemonic in the decode stream of an agent."""
    entry = program.entries["decode"]
    tensor = (entry.cores if kind == "core" else entry.groups)[number]
    isa = SRAM_ISA if kind == "core" else HBM_ISA
    decoded = program.decoded[tensor]
    index = [instruction.mnemonic for instruction in isa.instructions].index(mnemonic)
    for pc in np.flatnonzero(decoded.op == index):
        yield Damage(tensor, isa, int(pc))


def is_covered(program: LoadedProgram, damage: Damage) -> bool:
    """Whether nothing but sends stands between a wait and the next one.

    The next messages come from the same cores behind these, on a network that keeps their order: it covers both.
    """
    decoded = program.decoded[damage.tensor]
    for pc in range(damage.pc + 1, len(decoded.op)):
        instruction = damage.isa.instructions[decoded.op[pc]]
        if instruction.mnemonic == "wait":
            return True
        if instruction.unit not in ("scu", "noc"):
            return False
    return False


def outcome(program: LoadedProgram, damage: Damage, expected: NDArray[np.float16]) -> str | SimError:
    """What the damage led to: an error, or whether the numbers changed."""
    try:
        same = np.array_equal(logits(damage.apply(program)), expected)
    except SimError as error:
        return error
    return "same" if same else "changed"


def test_every_removed_wait_of_a_core_is_an_error(program: LoadedProgram, expected: NDArray[np.float16]) -> None:
    waits = list(places(program, "core", CORE, "wait"))
    assert len(waits) > 10  # embedding, gathers, exchanges, GEMV results
    for damage in waits:
        found = outcome(program, damage, expected)
        if found == "same" and is_covered(program, damage):
            continue
        assert isinstance(found, RaceError | UninitialisedReadError), f"wait at pc {damage.pc}: {found}"
        if isinstance(found, RaceError):
            assert str(found).count("pc ") == 2, found  # both instructions


def test_every_removed_wait_of_a_stream_is_an_error(program: LoadedProgram, expected: NDArray[np.float16]) -> None:
    waits = list(places(program, "hbm", CORE, "wait"))
    assert len(waits) == 5  # QKV, projection, gate and up, down, head
    for damage in waits:
        found = outcome(program, damage, expected)
        assert isinstance(found, RaceError | UninitialisedReadError), f"wait at pc {damage.pc}: {found}"


@pytest.mark.parametrize(("kind", "mnemonic"), [("core", "sigh"), ("hbm", "sig"), ("core", "nmcast")])
def test_every_removed_signal_is_a_deadlock(
    program: LoadedProgram, expected: NDArray[np.float16], kind: str, mnemonic: str
) -> None:
    signals = list(places(program, kind, CORE, mnemonic))
    assert signals
    for damage in signals:
        found = outcome(program, damage, expected)
        if mnemonic == "nmcast" and found == "same":
            continue  # the embedding's: another core owns these tokens
        assert isinstance(found, DeadlockError | RaceError | UninitialisedReadError), f"pc {damage.pc}: {found}"
        if isinstance(found, DeadlockError):
            assert "wait" in str(found)
