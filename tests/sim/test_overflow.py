"""Results that leave the range of fp16 though their operands were finite: counted by instruction and source."""

from __future__ import annotations

import numpy as np
import pytest
from sim.programs import port, program, run

from pimc.isa.program import Locations
from pimc.runtime_sim import RunResult
from pimc.runtime_sim.results import Overflow

N = 4
SETUP = "li r1, 0x1000\nli r2, 0x2000\nli r3, 0x3000\nli r4, 4\nli r5, 0x4000\nli r6, 1\n"


def execute(instruction: str, a: list[float], b: list[float], s: float = 0.0, form: str = "h") -> RunResult:
    """Run one vector instruction: a at r1, b at r2, the scalar at r5, the result at r3, n in r4."""
    dtype, name = (np.float16, "f16") if form == "h" else (np.float32, "f32")
    loaded = program(
        SETUP + instruction + "\nhalt",
        inputs=[port("a", name, N, 0x1000), port("b", name, N, 0x2000), port("s", "f32", 1, 0x4000)],
    )
    with np.errstate(over="ignore"):
        values = {"a": np.array(a, dtype), "b": np.array(b, dtype), "s": np.array([s], np.float32)}
    return run(loaded, values)


INF = float("inf")


@pytest.mark.parametrize(
    ("instruction", "a", "b", "s", "count"),
    [
        ("vmul.h r3, r1, r2, r4", [300, 300, 1, 200], [300, -300, 1, 200], 0, 2),
        ("vadd.h r3, r1, r2, r4", [60000, INF, -60000, 1], [60000, 1, -60000, INF], 0, 2),
        ("vadd.h r3, r1, r2, r4", [65504, 65504, 0, 0], [15, 16, 0, 0], 0, 1),  # 65519 rounds down, 65520 to infinity
        ("vexp.h r3, r1, r4", [11, 12, -5, 0], [0] * 4, 0, 1),
        ("vexp.h r3, r1, r4", [100, INF, 0, 0], [0] * 4, 0, 1),  # beyond fp32 already
        ("vdiv.h r3, r1, r2, r4", [1, 0, INF, 1], [0, 0, 1, 1], 0, 0),  # a pole, NaN, an infinite operand
        ("vdiv.h r3, r1, r2, r4", [60000, 1, 1, 1], [0.001, 1, 1, 1], 0, 1),
        ("vlog.h r3, r1, r4", [0, 1, 2, 3], [0] * 4, 0, 0),
        ("vlog1p.h r3, r1, r4", [-1, 1, 2, 3], [0] * 4, 0, 0),
        ("vmuls.h r3, r1, r5, r4", [1, 2, 3, INF], [0] * 4, 1e5, 3),
        ("vfill.h r3, r3, r5, r4", [0] * 4, [0] * 4, 1e5, 4),
        ("vfill.h r3, r3, r5, r4", [0] * 4, [0] * 4, INF, 0),
        ("vmov.h r3, r1, r4", [INF, 65504, 0, 0], [0] * 4, 0, 0),
    ],
)
def test_half(instruction: str, a: list[float], b: list[float], s: float, count: int) -> None:
    mnemonic = instruction.split(maxsplit=1)[0]
    expected = (Overflow(mnemonic, None, count),) if count else ()
    assert execute(instruction, a, b, s).overflows == expected


@pytest.mark.parametrize(
    ("instruction", "a", "b", "count"),
    [
        ("vmul.f r3, r1, r2, r4", [1e30, 1e5, 1e10, INF], [1e30, 1e5, 1, 1], 1),  # 1e10 is no overflow in fp32
        ("vexp.f r3, r1, r4", [100, 80, 0, INF], [0] * 4, 1),
        ("vrsum.f r3, r1, r4", [3e38, 3e38, 0, 0], [0] * 4, 1),
        ("vrsum.f r3, r1, r4", [3e38, INF, 0, 0], [0] * 4, 0),
        ("vrmax.f r3, r1, r0", [0] * 4, [0] * 4, 0),  # of no elements: minus infinity
        ("vcvt.h r3, r1, r4", [1e5, -1e5, 65504, INF], [0] * 4, 2),
    ],
)
def test_single(instruction: str, a: list[float], b: list[float], count: int) -> None:
    result = execute(instruction, a, b, form="f")
    assert sum(overflow.count for overflow in result.overflows) == count


def test_weighted_sum_and_partial_sums() -> None:
    config = "config rows, 2\nconfig stride_a, 8\nconfig parts, 1\n"
    text = SETUP + config + "li r7, 0x5000\nvwsum r3, r1, r5, r4\nvredp r7, r2, r4\nhalt"
    loaded = program(
        text,
        inputs=[port("a", "f16", 2 * N, 0x1000), port("p", "f32", N, 0x2000), port("w", "f32", 2, 0x4000)],
    )
    rows = np.array([60000, 1, 2, 3, 60000, 1, 2, 3], np.float16)
    partial = np.array([7e4, -7e4, 1, 65504], np.float32)
    result = run(loaded, {"a": rows, "p": partial, "w": np.ones(2, np.float32)})
    assert set(result.overflows) == {Overflow("vwsum", None, 1), Overflow("vredp", None, 2)}


def test_tensor_unit() -> None:
    config = (
        "config rows, 1\nconfig cols, 2\nconfig depth, 4\nconfig stride_a, 8\nconfig stride_b, 8\nconfig stride_c, 4\n"
    )
    loaded = program(
        SETUP + config + "tmmc.nk r1, r2\ntwb r3\nhalt",
        inputs=[port("a", "f16", 4, 0x1000), port("b", "f16", 8, 0x2000)],
    )
    b = np.array([300, 0, 0, 0, 1, 1, 1, 1], np.float16)
    result = run(loaded, {"a": np.full(4, 300, np.float16), "b": b})
    assert result.overflows == (Overflow("twb", None, 1),)


def test_counts_add_up_by_source_operation() -> None:
    """Two instructions of one operation, run by two cores with the same stream."""
    text = SETUP + "vmul.h r3, r1, r1, r4\nvmul.h r3, r1, r1, r4\nvadd.h r3, r1, r1, r4\nhalt"
    inputs = [port("a", "f16", N, 0x1000, 0), port("b", "f16", N, 0x1000, 5)]
    words = len(program(text).code["code/main/core/0"])
    index = np.full(words, -1, np.int32)
    index[-4:-2] = 0
    loaded = program(
        {0: text, 5: text},
        inputs=inputs,
        locations={f"code/main/core/{c}": Locations(("mlp.py:3",), index) for c in (0, 5)},
    )
    result = run(loaded, {"a": np.full(N, 300, np.float16), "b": np.full(N, 300, np.float16)})
    assert result.overflows == (Overflow("vmul.h", "mlp.py:3", 16),)
    assert "overflow: vmul.h of mlp.py:3: 16" in result.summary()


def test_the_next_run_starts_at_zero_and_timing_alone_counts_nothing() -> None:
    loaded = program(SETUP + "vmul.h r3, r1, r1, r4\nhalt", inputs=[port("a", "f16", N, 0x1000)])
    assert run(loaded, {"a": np.full(N, 300, np.float16)}, functional=False).overflows == ()
    from pimc.runtime_sim import Machine
    from pimc.targets import load_target

    machine = Machine(loaded, load_target("hpim"))
    assert machine.run("main", {"a": np.full(N, 300, np.float16)}).overflows[0].count == N
    assert machine.run("main", {"a": np.full(N, 3, np.float16)}).overflows == ()
