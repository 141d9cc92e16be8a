"""Messages, semaphores, time, and what the simulator refuses: races, deadlocks, bad addresses, unwritten memory."""

from __future__ import annotations

import numpy as np
import pytest
from sim.programs import port, program, run, target

from pimc.diagnostics import (
    DeadlockError,
    DramTimingError,
    InputError,
    OutOfRangeError,
    RaceError,
    SimError,
    UninitialisedReadError,
)
from pimc.isa.program import Locations
from pimc.runtime_sim import Machine
from pimc.runtime_sim.generate_dispatch import OUTPUT, generate

ONES = np.ones((4, 16, 512), np.float16).view(np.uint16)


def test_dispatch_is_current() -> None:
    assert OUTPUT.read_text(encoding="utf-8") == generate(), "run python -m pimc.runtime_sim.generate_dispatch"


# -- messages ----------------------------------------------------------------------------------------------------


def test_message_to_one_core() -> None:
    n = 100
    sender = f"li r1, 0x1000\nli r2, 0x2000\nli r3, {2 * n}\nli r4, 9\nnsend r2, r1, r3, r4, 5\nhalt"
    loaded = program(
        {3: sender, 9: "wait s5, r0, 1\nhalt"},
        inputs=[port("a", "f16", n, 0x1000, 3)],
        outputs=[port("b", "f16", n, 0x2000, 9)],
    )
    a = np.arange(n, dtype=np.float16)
    result = run(loaded, {"a": a})
    np.testing.assert_array_equal(result.outputs["b"], a)
    assert result.stats.noc_bytes[3] == 2 * n


def test_all_gather_by_multicast() -> None:
    """Every core multicasts its element to all (itself too) and waits for all."""
    text = """
        cid r5
        slli r6, r5, 2
        addi r6, r6, 0x100
        sw r5, r6, 0
        config group_base, 0
        config group_size, 32
        li r3, 4
        nmcast r6, r6, r3, 1
        wait s1, r0, 32
        halt
    """
    outputs = [port(f"o{c}", "i32", 32, 0x100, c) for c in range(32)]
    result = run(program(dict.fromkeys(range(32), text), outputs=outputs)).outputs
    for c in range(32):
        assert result[f"o{c}"].tolist() == list(range(32))


@pytest.mark.parametrize("multicast", [False, True])
def test_strided_message(multicast: bool) -> None:
    send = "nmcast2 r2, r1, r3, 2" if multicast else "nsend2 r2, r1, r3, r4, 2"
    text = f"""
        config message_rows, 3
        config message_src_stride, 20
        config message_dst_stride, 12
        config group_base, 1
        config group_size, 2
        li r1, 0x1000
        li r2, 0x2000
        li r3, 8
        li r4, 1
        {send}
        halt
    """
    outputs = [port(f"o{i}", "f16", 4, 0x2000 + 12 * i, 1) for i in range(3)]
    cores = {0: text, 1: "wait s2, r0, 1\nhalt"}
    loaded = program(cores, inputs=[port("a", "f16", 30, 0x1000)], outputs=outputs)
    result = run(loaded, {"a": np.arange(30, dtype=np.float16)}).outputs
    assert [result[f"o{i}"].tolist() for i in range(3)] == [
        [10 * i, 10 * i + 1, 10 * i + 2, 10 * i + 3] for i in range(3)
    ]


def test_ports_are_shared() -> None:
    """Two long messages to one receiver take twice the time of one: its port is the bottleneck."""

    def cycles(senders: int) -> int:
        texts = {
            c: f"li r1, 0x1000\nli r2, {0x2000 * (c + 1)}\nli r3, 6400\nnsend r2, r1, r3, r0, 0\nhalt"
            for c in range(1, senders + 1)
        }
        inputs = [port(f"a{c}", "f16", 3200, 0x1000, c) for c in texts]
        values = {f"a{c}": np.zeros(3200, np.float16) for c in texts}
        return run(program({**texts, 0: f"wait s0, r0, {senders}\nhalt"}, inputs=inputs), values).cycles

    assert 95 < cycles(2) - cycles(1) < 110


# -- time --------------------------------------------------------------------------------------------------------


def vector_cycles(*instructions: str) -> int:
    text = "li r1, 0x1000\nli r2, 0x3000\nli r3, 0x5000\nli r4, 1024\nli r5, 16\n" + "\n".join(instructions) + "\nhalt"
    inputs = [port("a", "f16", 1024, 0x1000), port("b", "f16", 1024, 0x5000)]
    zero = np.zeros(1024, np.float16)
    return run(program(text, inputs=inputs), {"a": zero, "b": zero}).cycles


def test_units_overlap_and_dependences_stall() -> None:
    config = "config rows, 16\nconfig cols, 16\nconfig stride_a, 64\nconfig stride_b, 64"
    one = vector_cycles("vmov.h r2, r1, r4")
    assert one == 5 + 16 + 4
    dependent = vector_cycles("vmov.h r2, r1, r4", "vmov.h r2, r2, r4")
    independent = vector_cycles("vmov.h r2, r1, r4", "vmov.h r3, r1, r4")
    assert dependent == one + 16 + 4
    assert independent == one + 16
    alone = vector_cycles(config, "trans r2, r3")
    assert vector_cycles("vmov.h r2, r1, r4", config, "trans r3, r3") < one + alone - 10
    assert vector_cycles("vmov.h r2, r1, r4", config, "trans r3, r2") > vector_cycles(
        "vmov.h r2, r1, r4", config, "trans r3, r3"
    )


def test_strided_ranges_do_not_conflict_when_they_interleave() -> None:
    """Even and odd rows of 64 bytes are different memory."""
    config = "config rows, 16\nconfig cols, 32\nconfig stride_a, 128\nconfig stride_b, 64"
    same = vector_cycles(config, "trans r2, r1", "addi r1, r1, 0", "vmov.h r1, r3, r5")
    apart = vector_cycles(config, "trans r2, r1", "addi r1, r1, 64", "vmov.h r1, r3, r5")
    assert same > apart


def test_latencies_come_from_the_target() -> None:
    loaded = program("li r1, 0x100\nli r2, 64\nvmov.h r1, r1, r2\nhalt", inputs=[port("a", "f16", 64, 0x100)])
    a = np.zeros(64, np.float16)
    base = run(loaded, {"a": a}).cycles
    assert run(loaded, {"a": a}, on=target("latency.vector.pipeline=30")).cycles == base + 26


def test_timing_only_has_the_same_time() -> None:
    text = """
        li r1, 0x1000
        li r2, 0x800
        li r3, 2048
        hwr r1, r2, r3
        hrd r1, r2, r3
        li r4, 1024
        vexp.h r1, r1, r4
        li r6, 0x1000
        li r7, 3
        sw r7, r6, 0
        lw r8, r6, 0
        again:
        addi r8, r8, -1
        bne r8, r0, again
        halt
    """
    loaded = program(text, inputs=[port("a", "f16", 1024, 0x1000)])
    a = {"a": np.zeros(1024, np.float16)}
    full = run(loaded, a)
    assert run(loaded, a, functional=False).time_fs == full.time_fs
    assert run(loaded, a, checks=False).time_fs == full.time_fs
    assert run(loaded, a).stats.events == full.stats.events


# -- races -------------------------------------------------------------------------------------------------------

STREAM = """
    wait s0, 1
    wrgb 0b1111, h31, 0x1000, 0, 1, 0
    act 0b1111, h31, 0
    mac 0b1111, 0, 0, 1, 0, 1, h0
    pre 0b1111
    rdres 0b1111, h31, 0x2000, 0, 1
    sig s1
    halt
"""
CORE = """
    li r1, 0x1000
    li r2, 0x2000
    li r4, 16
    vadd.h r1, r1, r1, r4
    sigh s0
    wait s1, r0, 4
    vadd.f r2, r2, r2, r4
    halt
"""


def offload(core: str = CORE, stream: str = STREAM, locations: dict[str, Locations] | None = None) -> np.ndarray:
    loaded = program(
        core, stream, inputs=[port("x", "f16", 16, 0x1000)], outputs=[port("y", "f32", 16, 0x2000)],
        images=dict.fromkeys(range(4), ONES), locations=locations,
    )  # fmt: skip
    return run(loaded, {"x": np.ones(16, np.float16)}).outputs["y"]


def test_offload_with_its_waits_is_correct() -> None:
    assert offload().tolist() == [64.0] * 16


def test_missing_wait_in_the_stream_is_a_race() -> None:
    with pytest.raises(RaceError, match=r"race on local memory at byte 4096") as caught:
        offload(stream=STREAM.replace("wait s0, 1", "nop"))
    text = str(caught.value)
    assert "wrgb" in text
    assert "vadd.h" in text


def test_missing_wait_in_the_core_is_noticed() -> None:
    """The core reads before the results are there."""
    with pytest.raises((RaceError, UninitialisedReadError)):
        offload(core=CORE.replace("wait s1, r0, 4", "nop"))
    late = CORE.replace(
        "wait s1, r0, 4", "wait s1, r0, 1" + "\nli r9, 2000\nagain:\naddi r9, r9, -1\nbne r9, r0, again"
    )
    with pytest.raises(RaceError, match="rdres"):  # late enough to find the data, but not ordered after all four
        offload(core=late.replace("wait s1, r0, 1", "nop"))


def test_overwriting_what_a_stream_still_reads_is_a_race() -> None:
    with pytest.raises(RaceError) as caught:
        offload(core=CORE.replace("wait s1, r0, 4", "vmov.h r1, r1, r4\nwait s1, r0, 4"))
    assert "vmov.h" in str(caught.value)


def test_message_without_wait_is_a_race() -> None:
    sender = "li r1, 0x1000\nli r2, 0x2000\nli r3, 8\nli r4, 1\nnsend r2, r1, r3, r4, 5\nhalt"
    spin = "li r9, 200\nagain:\naddi r9, r9, -1\nbne r9, r0, again\n"
    receiver = f"{spin}li r2, 0x2000\nlw r3, r2, 0\nhalt"
    with pytest.raises(RaceError, match="message of core 0") as caught:
        run(program({0: sender, 1: receiver}, inputs=[port("a", "f16", 4, 0x1000)]), {"a": np.zeros(4, np.float16)})
    assert "lw" in str(caught.value)
    assert "nsend" in str(caught.value)


def test_message_into_memory_in_use_is_a_race() -> None:
    sender = "li r1, 0x1000\nli r2, 0x2000\nli r3, 8\nli r4, 1\nnsend r2, r1, r3, r4, 5\nhalt"
    receiver = "li r2, 0x2000\nli r4, 4\nvexp.h r2, r2, r4\nwait s5, r0, 1\nhalt"
    inputs = [port("a", "f16", 4, 0x1000), port("b", "f16", 4, 0x2000, 1)]
    zero = np.zeros(4, np.float16)
    with pytest.raises(RaceError):
        run(program({0: sender, 1: receiver}, inputs=inputs), {"a": zero, "b": zero})


def test_transfer_in_flight_is_not_covered_by_sigh() -> None:
    """sigh does not wait for HBM transfers; an instruction that needs the data does."""
    core = "li r1, 0x1000\nli r2, 0\nli r3, 32\nhrd r1, r2, r3\n{}sigh s0\nwait s1, r0, 4\nhalt"
    images = dict.fromkeys(range(4), ONES)
    with pytest.raises((RaceError, UninitialisedReadError)):
        run(program(core.format(""), STREAM, images=images))
    run(program(core.format("lw r5, r1, 0\n"), STREAM, images=images))


def test_register_set_too_early_is_a_race() -> None:
    stream = "wait s0, 1\nadd h1, h5, 0\nsig s1\nhalt"
    good = "hset 5, r1\nsigh s0\nwait s1, r0, 4\nhset 5, r1\nhalt"
    run(program(good, stream))
    with pytest.raises(RaceError, match="controller register 5"):
        run(program(good.replace("wait s1, r0, 4", "nop\n" * 50), stream))


# -- other errors ------------------------------------------------------------------------------------------------


def test_deadlock_names_who_waits_for_what() -> None:
    with pytest.raises(DeadlockError) as caught:
        run(program({0: "wait s3, r0, 2\nhalt", 7: "halt"}, "wait s1, 1\nhalt"))
    text = str(caught.value)
    assert "5 streams wait" in text
    assert "core 0, pc 0: wait s3, r0, 2] waits for semaphore 3 >= 2 (is 0)" in text
    assert "hbm 3, pc 0: wait s1, 1]" in text


@pytest.mark.parametrize(
    ("core", "error", "words"),
    [
        ("li r1, 0x68000\nlw r2, r1, 0\nhalt", OutOfRangeError, "outside local memory"),
        ("li r1, -4\nlw r2, r1, 0\nhalt", OutOfRangeError, "outside local memory"),
        ("li r1, 2\nlw r2, r1, 0\nhalt", OutOfRangeError, "misaligned"),
        ("li r1, 3\nli r2, 4\nvmov.h r1, r1, r2\nhalt", OutOfRangeError, "misaligned"),
        ("li r2, -4\nvmov.h r1, r1, r2\nhalt", SimError, "negative"),
        ("lw r2, r1, 0\nhalt", UninitialisedReadError, "local memory at byte 0"),
        ("li r2, 4\nvmov.h r0, r0, r2\nhalt", UninitialisedReadError, "local memory at byte 0"),
        ("li r3, 32\nhrd r0, r0, r3\nhalt", UninitialisedReadError, "HBM row 0 of bank 0"),
        ("li r2, 0x40000\nli r3, 32\nhrd r0, r2, r3\nhalt", OutOfRangeError, "outside HBM"),
        ("li r2, 16\nli r3, 32\nhrd r0, r2, r3\nhalt", OutOfRangeError, "misaligned"),
        (
            "sw r0, r0, 0\nconfig depth, 2\nli r4, 1\npimmv.c r0, r0, r0, r4\nhalt",
            UninitialisedReadError,
            "PIM array row 0",
        ),
        ("config rows, 2\nconfig cols, 2\nconfig stride_c, 4\ntwb r0\nhalt", UninitialisedReadError, "accumulator"),
        ("config rows, 65\nconfig cols, 2\ntmm.nk r0, r0\nhalt", SimError, "tensor unit"),
        ("divu r1, r2, r0\nhalt", SimError, "division by zero"),
        ("nop", SimError, "runs past its end"),
        ("li r4, 32\nnsend r0, r0, r0, r4, 0\nhalt", SimError, "receiving core"),
        ("sigh s0\n" * 2 + "halt", None, ""),
    ],
)
def test_core_errors(core: str, error: type[Exception] | None, words: str) -> None:
    if error is None:
        run(program(core))
        return
    with pytest.raises(error, match=words) as caught:
        run(program(core))
    assert "main, core 0, pc" in str(caught.value)


@pytest.mark.parametrize(
    ("stream", "error", "words"),
    [
        ("act 0b0001, h0, 4\nhalt", OutOfRangeError, "HBM"),
        ("act 0b0001, h0, 0\nact 0b0001, h0, 1\nhalt", DramTimingError, "already open"),
        ("mac 0b0001, 0, 0, 1, 0, 1, h0\nhalt", DramTimingError, "no row is open"),
        ("act 0b0001, h0, 0\nhalt", DramTimingError, "ends with open banks"),
        ("act 0b0001, h0, 0\nmac 0b0001, 0, 0, 1, 0, 1, h0\nhalt", UninitialisedReadError, "HBM row 0"),
        ("rdres 0b0001, h0, 0, 3, 1\nhalt", UninitialisedReadError, "result register 3"),
        ("rdres 0b0001, h0, 0, 31, 2\nhalt", OutOfRangeError, "result register"),
        ("wrgb 0b0001, h0, 0, 0, 1, 0\nhalt", UninitialisedReadError, "local memory"),
        ("wrgb 0b0001, h0, 0, 31, 2, 0\nhalt", OutOfRangeError, "global buffer"),
        ("endl\nhalt", SimError, "loop and endl"),
        ("loop h0, 0\nhalt", SimError, "loop and endl"),
        ("loop h0, 2\n" * 9 + "halt", SimError, "nested loops"),
        ("nop", SimError, "runs past its end"),
    ],
)
def test_stream_errors(stream: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        run(program("", stream))
    assert "main, hbm 0, pc" in str(caught.value)


def test_errors_name_the_source_operation() -> None:
    locations = {"code/main/core/0": Locations(("model.py:12 layer 3 mlp",), np.array([-1, 0, -1], np.int32))}
    with pytest.raises(UninitialisedReadError, match=r"lw r2, r0, 8 \(model.py:12 layer 3 mlp\)"):
        run(program("nop\nlw r2, r0, 8\nhalt", locations=locations))


def test_inputs_are_checked() -> None:
    machine = Machine(program("halt", inputs=[port("a", "f16", 4, 0)]), target())
    with pytest.raises(InputError, match="missing"):
        machine.run("main")
    with pytest.raises(InputError, match="shape"):
        machine.run("main", {"a": np.zeros(5, np.float16)})
    with pytest.raises(InputError, match="no entry"):
        machine.run("other")


def test_semaphore_overflow() -> None:
    text = "li r1, 65536\nagain:\nsigh s0\naddi r1, r1, -1\nbne r1, r0, again\nhalt"
    with pytest.raises(SimError, match="semaphore 0 overflows"):
        run(program(text, "wait s1, 1\nhalt"), checks=False)
