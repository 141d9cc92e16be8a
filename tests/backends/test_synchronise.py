"""The order of a core's transfers before its signals, and of its work before the next messages into a buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from graphs import compare, floats, weight
from xdsl.ir import SSAValue

from pimc.backends.builder import HbmBuilder, SramBuilder
from pimc.backends.synchronise import synchronise
from pimc.ir import nn
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ProgramOp

CORES = 4
Body = Callable[[SramBuilder, SSAValue], None]


def ordered(body: Body, command: str = "wrgb") -> list[str]:
    """The instructions of a program with a buffer that its stream accesses, after the rules."""
    b, program = SramBuilder.program("main", range(CORES))
    h, stream = HbmBuilder.program("main", range(CORES))
    body(b, b.alloc("x", 64))
    b.wait(sem=1, imm=4)
    h.wait(sem=0, count=1)
    if command == "wrgb":
        h.wrgb(base=0, address=HbmBuilder.local("x"), column=0, count=2, stride=0)
    else:
        h.rdres(base=0, address=HbmBuilder.local("x"), result=0, count=1)
    h.sig(sem=1)
    synchronise(program, [stream], 31)
    return instructions(program)


def instructions(program: ProgramOp) -> list[str]:
    return [op.INSTRUCTION.mnemonic for op in program.body.walk() if isinstance(op, SramInstruction)]


def read(b: SramBuilder, x: SSAValue, size: int | list[int] = 64) -> None:
    b.hrd(b.address(x), 0, b.const(size))


def signal_behind(*steps: Callable[[SramBuilder, SSAValue], None]) -> Body:
    def body(b: SramBuilder, x: SSAValue) -> None:
        for step in steps:
            step(b, x)
        b.sigh(sem=0)

    return body


def use(b: SramBuilder, x: SSAValue, count: int | list[int] = 4) -> None:
    b.vmov_h(b.address(x), b.address(x, 8), b.const(count))


def use_somewhere(b: SramBuilder, x: SSAValue) -> None:
    """At an offset that is known when the program runs."""
    offset = b.lw(b.address(b.alloc("offset", 4)), imm=0)
    b.vmov_h(b.add(b.address(x), offset), b.address(b.alloc("source", 64)), 4)


def read_and_use_somewhere(b: SramBuilder, x: SSAValue) -> None:
    """Both at the same address, which is known when the program runs."""
    at = b.add(b.address(x), b.lw(b.address(b.alloc("offset", 4)), imm=0))
    b.hrd(at, 0, 16)
    b.vmov_h(b.address(b.alloc("target", 64)), b.addi(at, imm=8), 4)


def read_and_use_rows(b: SramBuilder, x: SSAValue) -> None:
    """Each iteration brings a row, but uses the one behind it."""
    with b.loop(0, 32, 16) as row:
        at = b.add(b.address(x), row)
        b.hrd(at, 0, 16)
        b.vmov_h(b.address(b.alloc("target", 64)), b.addi(at, imm=16), 4)


def use_nothing(b: SramBuilder, x: SSAValue) -> None:
    """As many elements as a register says, perhaps none."""
    b.vmov_h(b.address(x), b.address(x, 8), b.lw(b.address(b.alloc("count", 4)), imm=0))


def other(b: SramBuilder, _: SSAValue) -> None:
    b.hrd(b.address(b.alloc("other", 64)), 64, 64)


def use_other(b: SramBuilder, x: SSAValue) -> None:
    later = b.alloc("later", 64)
    b.hrd(b.address(later), 64, 64)
    b.vmov_h(b.address(later), b.address(later), 4)


@pytest.mark.parametrize(
    ("steps", "added"),
    [
        ([read], True),
        ([read, use], False),  # touches what the transfer moves
        ([read, use_other], False),  # waits for a later transfer
        ([read, use_somewhere], True),  # perhaps behind what the transfer moves
        ([read, use_nothing], True),
        ([read_and_use_somewhere], False),
        ([read_and_use_rows], True),
        ([other], False),  # the stream does not touch it
        ([lambda b, x: read(b, x, [64, 64, 0, 64])], True),
        ([read, lambda b, x: use(b, x, [4, 4, 0, 4])], True),  # a core that touches nothing
        ([lambda b, x: b.hwr(b.address(x), 0, 64)], False),  # both read
    ],
)
def test_a_signal_waits_for_transfers_of_what_the_stream_reads(steps: Sequence[Body], added: bool) -> None:
    found = ordered(signal_behind(*steps))
    place = found.index("sigh")
    assert (found[place - 1] in ("lw", "vmov.f")) == added


def test_a_signal_waits_for_transfers_of_what_the_stream_writes() -> None:
    found = ordered(signal_behind(lambda b, x: b.hwr(b.address(x), 0, 64)), "rdres")
    assert found == ["hwr", "vmov.f", "sigh", "wait"]


def test_a_transfer_to_memory_is_not_waited_for_by_who_reads_the_same() -> None:
    def body(b: SramBuilder, x: SSAValue) -> None:
        b.hwr(b.address(x), 0, 16)
        b.vmov_h(b.address(x, 32), b.address(x), 4)
        b.sigh(sem=0)

    assert ordered(body, "rdres") == ["hwr", "vmov.h", "vmov.f", "sigh", "wait"]


def test_a_transfer_of_the_iteration_before() -> None:
    def body(b: SramBuilder, x: SSAValue) -> None:
        with b.loop(0, 3):
            b.sigh(sem=0)
            b.wait(sem=1, imm=4)
            read(b, x)

    assert ordered(body) == ["lw", "sigh", "wait", "hrd", "wait"]


def exchange(b: SramBuilder, whole: SSAValue, source: SSAValue, semaphore: int) -> None:
    to = b.address(whole, [16 * core for core in range(CORES)])
    b.nmcast(to, b.address(source), 16, sem=semaphore, group_base=0, group_size=CORES)
    b.wait(sem=semaphore, imm=CORES)


@pytest.mark.parametrize("exchanges", [1, 2])
def test_cores_meet_where_nothing_orders_the_next_messages(exchanges: int) -> None:
    b, program = SramBuilder.program("main", range(CORES))
    part = b.alloc("part", 16)
    wholes = [b.alloc(f"whole{index}", 64, remote=True) for index in range(exchanges)]
    with b.loop(0, 3):
        for index, whole in enumerate(wholes):
            exchange(b, whole, part, index)
            b.vmov_h(b.address(part), b.address(whole), 8)
    synchronise(program, [], 31)
    assert instructions(program).count("nmcast") == 2  # two exchanges order each other, one needs a meeting


def test_cores_meet_before_a_buffer_is_sent_into_again() -> None:
    b, program = SramBuilder.program("main", range(CORES))
    part, whole = b.alloc("part", 16), b.alloc("whole", 64, remote=True)
    for semaphore in range(2):
        exchange(b, whole, part, semaphore)
        b.vmov_h(b.address(part), b.address(whole), 8)
    synchronise(program, [], 31)
    exchanged, met = ["nmcast", "wait", "vmov.h"], ["sw", "vmov.f", "nmcast", "wait"]
    assert instructions(program) == [*exchanged, *met, *exchanged]


def test_gemv_of_a_stored_vector() -> None:
    """The stream reads what a transfer brings, with nothing in between."""
    w = {"h": floats(1, 32), "w": floats(32, 32) / 6}
    compare(
        [floats(1, 32)],
        lambda x: [nn.AddOp(x, nn.LinearOp(weight("h", w["h"]), weight("w", w["w"]))).result],
        w,
        tolerance=1e-2,
    )


@pytest.mark.parametrize("rows", [1, 4])
def test_layers_with_one_exchange(rows: int) -> None:
    """A loop over layers whose only messages are those of one gather."""
    w = {f"w.{layer}.w": floats(64, 64) / np.float32(8) for layer in range(4)}

    def build(x: SSAValue) -> list[SSAValue]:
        for name, values in w.items():
            y = nn.SinOp(nn.LinearOp(x, weight(name, values))).result
            x = nn.AddOp(x, nn.MulOp(y, nn.SigmoidOp(y))).result
        return [x]

    compare([floats(rows, 64)], build, w, tolerance=1e-2)


def test_more_products_at_once_than_semaphores() -> None:
    count = 40
    w = {f"w{index}": floats(8 + index, 32) / 6 for index in range(count)}

    def build(x: SSAValue) -> list[SSAValue]:
        rows = [nn.SliceOp(x, [index, 0], [index + 1, 32], [1, 1]).result for index in range(count)]
        return [nn.LinearOp(row, weight(*stored)).result for row, stored in zip(rows, w.items(), strict=True)]

    compare([floats(count, 32)], build, w, tolerance=1e-2)
