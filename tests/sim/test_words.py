"""Instructions that move, select, index or count: strided copies, selections, 32-bit integers; and their checks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sim.programs import port, program, run

from pimc.diagnostics import OutOfRangeError, SimError, UninitialisedReadError
from pimc.isa.sram_words import WORDS

A, B, OUT, WHERE = 0x400, 0x1000, 0x3000, 0x5000
N = 77
TYPES = {"h": ("f16", np.float16, np.uint16), "f": ("i32", np.int32, np.uint32)}
LEAST, GREATEST = -(2**31), 2**31 - 1


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    wide = a.astype(np.int64)
    safe = np.where(b == 0, 1, b).astype(np.int64)
    return np.where(b == 0, 0, np.sign(wide) * np.sign(safe) * (np.abs(wide) // np.abs(safe)))


INTEGER: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "vadd.i": np.add, "vsub.i": np.subtract, "vmul.i": np.multiply, "vdiv.i": _divided, "vmax.i": np.maximum,
    "vmin.i": np.minimum, "vrem.i": lambda a, b: np.where(b == 0, 0, a - b * _divided(a, b)),
    "vmod.i": lambda a, b: np.where(b == 0, 0, np.mod(a, np.where(b == 0, 1, b))),
    "vand.i": np.bitwise_and, "vor.i": np.bitwise_or, "vxor.i": np.bitwise_xor,
    "vsll.i": lambda a, b: np.left_shift(a.astype(np.int64), b & 31), "vsra.i": lambda a, b: np.right_shift(a, b & 31),
    "veq.i": np.equal, "vlt.i": np.less, "vle.i": np.less_equal,
}  # fmt: skip
OTHERS = {"vsel.h", "vsel.f", "vmovs.h", "vmovs.f", "vargmax.h", "vargmax.f", "vitof", "vftoi"}


def test_every_instruction_has_a_case() -> None:
    assert {i.mnemonic for i in WORDS} == {*INTEGER, *OTHERS}


@pytest.mark.parametrize("name", INTEGER)
def test_integers(name: str) -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(-40, 40, (2, N)).astype(np.int32)
    a[:6] = b[:6]
    a[6:9], b[6:9] = (LEAST, GREATEST, -7), (-1, 3, GREATEST)
    output = "f16" if name in ("veq.i", "vlt.i", "vle.i") else "i32"
    text = f"li r1, {A}\nli r2, {B}\nli r3, {OUT}\nli r4, {N}\n{name} r3, r1, r2, r4\nhalt"
    loaded = program(text, inputs=[port("a", "i32", N, A), port("b", "i32", N, B)], outputs=[port("o", output, N, OUT)])
    with np.errstate(over="ignore"):
        expected = INTEGER[name](a, b)
    got = run(loaded, {"a": a, "b": b}).outputs["o"]
    np.testing.assert_array_equal(got, expected.astype(np.int64).astype(np.int32).astype(got.dtype))


def test_conversions() -> None:
    x = np.array([1.9, -1.9, 0.0, 3e9, -3e9, np.inf, np.nan, 16777217.0, 2147483520.0], np.float32)
    i = np.array([0, -5, 16777217, GREATEST, LEAST], np.int32)
    text = f"li r1, {A}\nli r2, {B}\nli r3, {OUT}\nli r4, {len(x)}\nli r5, {len(i)}\nli r6, {WHERE}\n"
    loaded = program(
        text + "vftoi r3, r1, r4\nvitof r6, r2, r5\nhalt",
        inputs=[port("x", "f32", len(x), A), port("i", "i32", len(i), B)],
        outputs=[port("as_i", "i32", len(x), OUT), port("as_x", "f32", len(i), WHERE)],
    )
    outputs = run(loaded, {"x": x, "i": i}).outputs
    assert outputs["as_i"].tolist() == [1, -1, 0, GREATEST, LEAST, GREATEST, 0, 16777216, 2147483520]
    np.testing.assert_array_equal(outputs["as_x"], i.astype(np.float32))


@pytest.mark.parametrize("t", ["h", "f"])
def test_argmax(t: str) -> None:
    dtype, kind = ("f16", np.float16) if t == "h" else ("f32", np.float32)
    cases = [[1, 5, 2, 5], [-3], [1, np.nan, 7, np.nan], [-np.inf, -np.inf], [2, np.inf]]
    text, inputs, outputs = "", [], []
    for k, case in enumerate(cases):
        at, to = A + 64 * k, OUT + 4 * k
        text += f"li r1, {at}\nli r3, {to}\nli r4, {len(case)}\nvargmax.{t} r3, r1, r4\n"
        inputs.append(port(f"a{k}", dtype, len(case), at))
        outputs.append(port(f"o{k}", "i32", 1, to))
    given = {f"a{k}": np.array(case, kind) for k, case in enumerate(cases)}
    got = run(program(text + "halt", inputs=inputs, outputs=outputs), given).outputs
    assert [int(got[f"o{k}"][0]) for k in range(len(cases))] == [int(np.argmax(case)) for case in cases]


@pytest.mark.parametrize("t", TYPES)
def test_select(t: str) -> None:
    dtype, kind, bits = TYPES[t]
    random = np.random.default_rng(1)
    a, old = random.integers(0, 2**15, (2, N)).astype(bits).view(kind)
    where = random.integers(0, 2, N).astype(np.float16)
    text = f"li r1, {A}\nli r2, {WHERE}\nli r3, {OUT}\nli r4, {N}\nvsel.{t} r3, r1, r2, r4\nhalt"
    inputs = [port("a", dtype, N, A), port("w", "f16", N, WHERE), port("old", dtype, N, OUT)]
    got = run(program(text, inputs=inputs, outputs=[port("o", dtype, N, OUT)]), {"a": a, "w": where, "old": old})
    np.testing.assert_array_equal(got.outputs["o"].view(bits), np.where(where != 0, a, old).view(bits))
    with pytest.raises(UninitialisedReadError):  # what is not selected stays, so it must be there
        run(program(text, inputs=inputs[:2]), {"a": a, "w": where})


def strided(t: str, n: int, a: int, stride_a: int, dst: int, stride_b: int) -> str:
    return (
        f"config stride_a, {stride_a}\nconfig stride_b, {stride_b}\nli r1, {a}\nli r3, {dst}\nli r4, {n}\n"
        f"vmovs.{t} r3, r1, r4\n"
    )


@pytest.mark.parametrize("t", TYPES)
@pytest.mark.parametrize(("step_a", "step_b"), [(3, 1), (1, 5), (-2, 1), (0, 1), (2, -3), (-1, -1), (4, 0)])
def test_strided(t: str, step_a: int, step_b: int) -> None:
    dtype, kind, bits = TYPES[t]
    size, n, total = np.dtype(kind).itemsize, 20, 200
    source = np.random.default_rng(2).integers(0, 2**15, total).astype(bits).view(kind)
    start_a, start_b = (100 if step < 0 else 7 for step in (step_a, step_b))
    text = strided(t, n, A + start_a * size, step_a * size, OUT + start_b * size, step_b * size) + "halt"
    inputs = [port("a", dtype, total, A), port("old", dtype, total, OUT)]
    old = np.arange(total).astype(kind)
    expected = old.copy()
    for i in range(n):
        expected[start_b + i * step_b] = source[start_a + i * step_a]
    loaded = program(text, inputs=inputs, outputs=[port("o", dtype, total, OUT)])
    got = run(loaded, {"a": source, "old": old}).outputs["o"]
    np.testing.assert_array_equal(got.view(bits), expected.view(bits))


def test_strided_reads_before_it_writes() -> None:
    loaded = program(
        strided("h", 9, A + 16, -2, A, 2) + "halt", inputs=[port("a", "f16", 9, A)], outputs=[port("o", "f16", 9, A)]
    )
    x = np.arange(9).astype(np.float16)
    np.testing.assert_array_equal(run(loaded, {"a": x}).outputs["o"], x[::-1])


def test_strided_checks() -> None:
    inputs = [port("a", "f16", 40, A)]
    data = {"a": np.zeros(40, np.float16)}

    def attempt(text: str) -> None:
        run(program(text + "halt", inputs=inputs), data)

    attempt(strided("h", 20, A, 4, OUT, 2))
    attempt(strided("h", 20, A + 76, -4, OUT + 38, -2))
    attempt(strided("h", 0, A, 4, OUT, 2))
    with pytest.raises(UninitialisedReadError):
        attempt(strided("h", 21, A, 4, OUT, 2))
    with pytest.raises(UninitialisedReadError):
        attempt(strided("h", 21, A + 78, -4, OUT, 2))
    with pytest.raises(UninitialisedReadError):  # only every third of the destination is written
        attempt(strided("h", 10, A, 2, OUT, 6) + strided("h", 10, OUT, 4, B, 2))
    with pytest.raises(OutOfRangeError):
        attempt(strided("h", 40, A, 2, 38, -2))
    with pytest.raises(OutOfRangeError):
        attempt(strided("h", 40, A, 2, 416 * 1024 - 78, 4))
    with pytest.raises(SimError, match="align"):
        attempt(strided("h", 4, A, 3, OUT, 2))
    with pytest.raises(SimError, match="align"):
        attempt(strided("f", 4, A, 2, OUT, 4))
    with pytest.raises(SimError, match="length"):
        attempt(strided("h", 2**22, A, 0, OUT, 0))


def test_strided_waits_for_what_it_meets() -> None:
    """Elements between those written by an instruction in flight are free; those it writes are not."""
    x = np.arange(4000).astype(np.float16)

    def cycles(second: int) -> int:
        text = strided("h", 2000, A, 2, 0x8000, 4)
        text += f"li r5, {0x8000 + second}\nli r6, 1\nconfig rows, 1\nconfig cols, 1\nconfig stride_a, 2\n"
        text += f"li r7, {A}\nconfig stride_b, 2\ntrans r5, r7\nli r8, {0x100}\nlw r9, r0, {0x100}\nhalt"
        loaded = program(text, inputs=[port("a", "f16", 4000, A), port("w", "i32", 1, 0x100)])
        result = run(loaded, {"a": x, "w": np.zeros(1, np.int32)})
        return int(result.cycles)

    assert cycles(2) < cycles(4)
