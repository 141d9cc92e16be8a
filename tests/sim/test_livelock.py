"""A stream that repeats itself for ever is an error that names it; one that is only slow is not."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sim.programs import port, program, target

from pimc.cli.main import main
from pimc.diagnostics import LivelockError, RunLimitError, SimError
from pimc.isa.program import LoadedProgram, Locations
from pimc.runtime_sim import Machine, RunResult
from pimc.runtime_sim.run_limits import RunLimits
from pimc.targets import Target

_LOOP = """.pimx 1 0
.target "hpim" digest ""
.rows 1
.entry main
.stream core 0 entry main
again:
    beq r0, r0, again
    halt
"""


def small() -> Target:
    return target("cores.count=2", "hbm.stacks=1", "hbm.channels=4", "noc.columns=1")


def run(loaded: LoadedProgram, **options: bool) -> RunResult:
    return Machine(loaded, small(), **options).run("main", limits=RunLimits(max_cycles=100_000_000))


def test_a_branch_to_itself() -> None:
    table = Locations(("model.py:7",), np.zeros(2, np.int32))
    loaded = program("again:\nbeq r0, r0, again\nhalt", locations={"code/main/core/0": table})
    began = time.monotonic()
    with pytest.raises(LivelockError, match=r"main, core 0, pc 0: beq r0, r0, 0 \(model.py:7\): .* for ever"):
        run(loaded)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "body",
    [
        "addi r1, r1, 1\nandi r1, r1, 0xff",
        "xor r1, r1, r2\nxor r2, r1, r2\nxor r1, r1, r2",
        "vadds.h r5, r5, r4, r6",
        "wait s1, r0, 0",
        "cfg c3, r1\naddi r1, r1, 1\nandi r1, r1, 7",
    ],
    ids=["counter that wraps", "registers that swap", "vectors", "a wait that never waits", "configuration"],
)
def test_endless_loops(body: str) -> None:
    """Nothing outside can end them, whatever else they do."""
    with pytest.raises(LivelockError):
        run(program(f"addi r2, r0, 5\nli r5, 0x1000\nagain:\n{body}\nbeq r0, r0, again\nhalt"), checks=False)


def test_polls_of_what_nobody_changes() -> None:
    poll = "sw r0, r0, 0x100\nagain:\nlw r1, r0, 0x100\nbeq r1, r0, again\nhalt"
    with pytest.raises(LivelockError, match="nothing is left that could change what it reads"):
        run(program(poll))
    with pytest.raises(LivelockError):
        run(program({0: poll, 1: poll}))
    with pytest.raises(LivelockError):
        run(program({0: poll, 1: "wait s1, r0, 1\nhalt"}))


def test_polls_of_what_another_core_changes_are_none() -> None:
    """Much later: the other counts first, in registers alone."""
    poll = "sw r0, r0, 0x100\nagain:\nlw r1, r0, 0x100\nbeq r1, r0, again\nhalt"
    late = """
        lui r2, 0x10
    again:
        addi r1, r1, 1
        blt r1, r2, again
        addi r3, r0, 7
        sw r3, r0, 0x200
        li r4, 0x200
        li r5, 0x100
        li r6, 4
        nsend r5, r4, r6, r0, 1
        halt
    """
    loaded = program({0: poll, 1: late}, outputs=[port("seen", "i32", 1, 0x100)])
    assert run(loaded, checks=False).outputs["seen"].tolist() == [7]


def test_slow_is_not_endless() -> None:
    counts = "lui r2, 0x30\nagain:\naddi r1, r1, 1\nblt r1, r2, again\nhalt"
    assert run(program(counts)).cycles > 2 * 0x300000
    endless = counts.replace("0x30", "0x7fff")
    with pytest.raises(RunLimitError):
        run(program(endless))


_REGISTERS = st.integers(0, 3)
_INSTRUCTIONS = st.one_of(
    st.tuples(st.sampled_from(["addi", "andi"]), _REGISTERS, _REGISTERS, st.integers(0, 5)),
    st.tuples(st.sampled_from(["add", "sub", "xor", "and"]), _REGISTERS, _REGISTERS, _REGISTERS),
    st.tuples(st.sampled_from(["beq", "bne", "blt"]), _REGISTERS, _REGISTERS, st.integers(0, 8)),
)


def _reference(code: list[tuple[str, int, int, int]], steps: int) -> str:
    """What becomes of a program: it halts, it repeats a state, or neither within so many steps."""
    registers, pc, seen = [0] * 4, 0, set()
    for _ in range(steps):
        if pc == len(code):
            return "halts"
        if (state := (pc, *registers)) in seen:
            return "repeats"
        seen.add(state)
        name, x, y, z = code[pc]
        if name in ("beq", "bne", "blt"):
            a, b = registers[x], registers[y]
            pc = min(z, len(code)) if {"beq": a == b, "bne": a != b, "blt": a < b}[name] else pc + 1
            continue
        a, b = registers[y], z if name in ("addi", "andi") else registers[z]
        value = {"addi": a + b, "add": a + b, "andi": a & b, "and": a & b, "sub": a - b, "xor": a ^ b}[name]
        if x:
            registers[x] = ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
        pc += 1
    return "goes on"


@settings(max_examples=60, deadline=None)
@given(st.lists(_INSTRUCTIONS, min_size=1, max_size=8))
def test_random_programs_are_judged_as_a_reference_does(code: list[tuple[str, int, int, int]]) -> None:
    lines = []
    for place, (name, x, y, z) in enumerate(code):
        last = f"L{min(z, len(code))}" if name in ("beq", "bne", "blt") else str(z)
        last = f"r{z}" if name in ("add", "sub", "xor", "and") else last
        lines.append(f"L{place}:\n{name} r{x}, r{y}, {last}")
    loaded = program("\n".join([*lines, f"L{len(code)}:", "halt"]))
    expected = _reference(code, 3000)
    try:
        Machine(loaded, small()).run("main", limits=RunLimits(max_cycles=30_000_000))
        found = "halts"
    except LivelockError:
        found = "repeats"
    except RunLimitError:
        found = "goes on"
    except SimError as error:  # no other error is possible
        raise AssertionError from error
    assert expected in {found, "goes on"}


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A text of which nobody knows what it does: asm, run, one line."""
    (tmp_path / "loop.pasm").write_text(_LOOP.replace('digest ""', f'digest "{target().digest}"'))
    assert main(["asm", str(tmp_path / "loop.pasm"), "-o", str(tmp_path / "loop.pimx")]) == 0
    capsys.readouterr()
    assert main(["run", str(tmp_path / "loop.pimx")]) == 1
    assert capsys.readouterr().err.startswith("pimc: error: main, core 0, pc 0: beq r0, r0, 0: the stream repeats")
