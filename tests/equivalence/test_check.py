"""The checker on small programs: what it calls the same, and what it refuses to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from sim.programs import port, program, target

from equivalence.check import Reference, difference
from pimc.isa.program import LoadedProgram

SETUP = "li r1, 0x1000\nli r2, 0x2000\nli r3, 0x3000\nli r4, 8\nli r5, 16\nli r6, 9\n"
#: Core 3 adds its input to itself, squares it, and sends the sum to core 9, which doubles it.
ADD, SQUARE = "vadd.h r2, r1, r1, r4", "vmul.h r3, r1, r1, r4"
SENDER = SETUP + f"{ADD}\n{SQUARE}\nnsend r2, r2, r5, r6, 5\nhalt"
RECEIVER = SETUP + "wait s5, r0, 1\nvadd.h r3, r2, r2, r4\nhalt"


def make(cores: Mapping[int, str]) -> LoadedProgram:
    return program(cores, inputs=[port("a", "f16", 8, 0x1000, 3)], outputs=[port("b", "f16", 8, 0x3000, 9)])


def compare(changed: Mapping[int, str]) -> str | None:
    """What the checker says of the program with some cores' streams replaced."""
    cores = {3: SENDER, 9: RECEIVER}
    inputs = [{"a": np.zeros(8, np.float16)}]
    return difference(Reference(make(cores), target(), "main", inputs), make(cores | dict(changed)))


def replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("core", "text"),
    [
        pytest.param(3, SENDER, id="nothing changed"),
        pytest.param(3, SENDER + "\nnop", id="what is never executed"),
        pytest.param(3, replaced(SENDER, "li r5, 16", "addi r7, r0, 5\nli r5, 16"), id="a register nobody reads"),
        pytest.param(
            3,
            replaced(SENDER, f"{ADD}\n{SQUARE}", f"{SQUARE}\n{ADD}"),
            id="independent neighbours",
        ),
        pytest.param(3, replaced(SENDER, SQUARE, "vsub.h r3, r1, r1, r4"), id="a value nobody reads"),
        pytest.param(9, replaced(RECEIVER, "wait s5, r0, 1", "wait s5, r0, 1\nwait s5, r0, 0"), id="no wait more"),
    ],
)  # fmt: skip
def test_same(core: int, text: str) -> None:
    assert compare({core: text}) is None


@pytest.mark.parametrize(
    ("core", "text", "reason"),
    [
        pytest.param(3, replaced(SENDER, "vadd.h", "vsub.h"), "another term", id="another operation"),
        pytest.param(3, replaced(SENDER, "vadd.h r2, r1, r1, r4\n", "vadd.h r2, r1, r1, r0\n"), "nothing has written",
                     id="nothing computed"),
        pytest.param(9, replaced(RECEIVER, "wait s5, r0, 1\n", ""), "nothing", id="no wait"),
        pytest.param(9, replaced(RECEIVER, "wait s5", "wait s4"), "wait for ever", id="a wait for nobody"),
        pytest.param(3, replaced(SENDER, "nsend r2, r2, r5, r6, 5\n", ""), "wait for ever", id="no message"),
        pytest.param(
            9,
            replaced(RECEIVER, "wait s5, r0, 1\nvadd.h r3, r2, r2, r4", "vadd.h r3, r2, r2, r4\nwait s5, r0, 1"),
            "nothing",
            id="a read before the wait",
        ),
    ],
)  # fmt: skip
def test_not_same(core: int, text: str, reason: str) -> None:
    found = compare({core: text})
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(("scores", "same"), [(1, True), (2, False)])
def test_the_softmax_of_one_score_is_one(scores: int, same: bool) -> None:
    """Its sum is the f32 number 1, whatever the score: as good as a constant."""
    setup = SETUP + f"li r7, {scores}\nli r8, 0x2100\nli r9, 0x3c00\n"
    softmax = setup + "vrmax.h r2, r1, r7\nvexps.h r1, r1, r2, r7\nvrsum.h r3, r1, r7\nhalt"
    one = setup + "lui r10, 0x3f80\nsw r10, r3, 0\nhalt"

    def make_one(text: str) -> LoadedProgram:
        ports = {"inputs": [port("a", "f16", 8, 0x1000, 3)], "outputs": [port("b", "f32", 1, 0x3000, 3)]}
        return program({3: text}, **ports)

    reference = Reference(make_one(softmax), target(), "main", [{"a": np.zeros(8, np.float16)}])
    assert (difference(reference, make_one(one)) is None) == same


@pytest.mark.parametrize(("reads", "runs", "reason"), [(0, 1, "row of HBM"), (0, 2, None), (1, 2, "another term")])
def test_what_memory_keeps_counts_where_it_is_read(reads: int, runs: int, reason: str | None) -> None:
    """A core writes a row; another value in it shows in what one run leaves, or in an output of one that reads it."""
    keep = SETUP + "li r7, 32\nvadd.h r2, r1, r1, r5\nvmul.h r3, r1, r1, r5\nhwr {kept}, r0, r7\n"
    keep += "hrd r2, r0, r7\n" * reads + "vadd.h r2, r2, r2, r5\nhalt"

    def make_one(kept: str) -> LoadedProgram:
        ports = {"inputs": [port("a", "f16", 16, 0x1000, 3)], "outputs": [port("b", "f16", 16, 0x2000, 3)]}
        return program({3: keep.format(kept=kept)}, **ports)

    inputs = [{"a": np.zeros(16, np.float16)}] * runs
    found = difference(Reference(make_one("r2"), target(), "main", inputs), make_one("r3"))
    assert found is None if reason is None else reason in str(found)


def test_partial_wait_orders_nothing() -> None:
    """Two senders, a wait for one of them: whichever came first, the receiver may read too early."""
    sender = SETUP + "vadd.h r2, r1, r1, r4\nnsend r{dst}, r2, r5, r6, 5\nhalt"
    base = {3: sender.format(dst=2), 4: sender.format(dst=3), 9: SETUP + "wait s5, r0, 2\nvadd.h r3, r2, r3, r4\nhalt"}
    early = base | {9: replaced(base[9], "wait s5, r0, 2", "wait s5, r0, 1")}
    inputs = [{name: np.zeros(8, np.float16) for name in "acxy"}]

    def both(cores: Mapping[int, str]) -> LoadedProgram:
        ports = [port("a", "f16", 8, 0x1000, 3), port("c", "f16", 8, 0x1000, 4)]
        ports += [port("x", "f16", 8, 0x2000, 9), port("y", "f16", 8, 0x3000, 9)]  # what an early reader would find
        return program(cores, inputs=ports, outputs=[port("b", "f16", 8, 0x3000, 9)])

    reference = Reference(both(base), target(), "main", inputs)
    assert difference(reference, both(base)) is None
    assert "nothing orders" in str(difference(reference, both(early)))
