"""Every vector instruction against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from sim.programs import port, program, run

from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_rows import rows_forms
from pimc.isa.sram_vector import VECTOR
from pimc.isa.sram_words import WORDS

A, B, S, OUT = 0x100, 0x1000, 0x2000, 0x3000
N = 77
f32 = np.float32


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(float(v)) for v in x], f32)


def _mod(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x.astype(np.float64) - y * np.floor(x.astype(np.float64) / y)).astype(f32)


BINARY: dict[str, Callable[..., np.ndarray]] = {
    "vadd": np.add, "vsub": np.subtract, "vmul": np.multiply, "vdiv": np.divide, "vmax": np.maximum, "vmin": np.minimum,
    "veq": np.equal, "vlt": np.less, "vle": np.less_equal, "vpow": np.power, "vrem": np.fmod, "vmod": _mod,
}  # fmt: skip
SCALAR: dict[str, Callable[..., np.ndarray]] = {
    "vadds": np.add, "vsubs": np.subtract, "vmuls": np.multiply, "vdivs": np.divide, "vmaxs": np.maximum,
    "vmins": np.minimum, "vexps": lambda x, s: np.exp(x - s), "vfill": np.full_like,
    "veqs": np.equal, "vlts": np.less, "vles": np.less_equal, "vgts": np.greater, "vges": np.greater_equal,
}  # fmt: skip
UNARY: dict[str, Callable[..., np.ndarray]] = {
    "vmov": lambda x: x, "vneg": np.negative, "vabs": np.abs, "vrelu": lambda x: np.maximum(x, 0), "vexp": np.exp,
    "vsqrt": np.sqrt, "vrsqrt": lambda x: 1 / np.sqrt(x), "vrecip": np.reciprocal, "vtanh": np.tanh,
    "vsigmoid": lambda x: 1 / (1 + np.exp(-x)), "vsilu": lambda x: x / (1 + np.exp(-x)),
    "vgelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "vgelut": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "verf": _erf, "vlog": np.log, "vfloor": np.floor, "vceil": np.ceil, "vround": np.round, "vsign": np.sign,
    "vsin": np.sin, "vcos": np.cos, "vatan": np.arctan, "vexpm1": np.expm1, "vlog1p": np.log1p,
}  # fmt: skip
EXACT = {"vadd", "vsub", "vmul", "vdiv", "vmax", "vmin", "vadds", "vsubs", "vmuls", "vdivs", "vmaxs", "vmins", "vfill",
         "vmov", "vneg", "vabs", "vrelu", "vsqrt", "veq", "vlt", "vle", "vrem", "vfloor", "vceil", "vround", "vsign",
         "veqs", "vlts", "vles", "vgts", "vges"}  # fmt: skip
REDUCE = {"vrsum", "vrmax", "vrsumsq", "vrmin", "vrprod"}
COVERED = {f"{base}.{t}" for base in (*BINARY, *SCALAR, *UNARY, *REDUCE, "vcvt") for t in "hf"}
COVERED |= {"vredp", "vredpb", "vrope", "vwsum"}


def kind(t: str) -> tuple[str, type]:
    return ("f16", np.float16) if t == "h" else ("f32", np.float32)


def check(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    expected = expected.astype(f32).astype(got.dtype)
    if name in EXACT:
        np.testing.assert_array_equal(got, expected)
    else:
        rtol = 2e-3 if got.dtype == np.float16 else 1e-6
        np.testing.assert_allclose(got.astype(f32), expected.astype(f32), rtol=rtol, atol=1e-6)


def values(name: str, dtype: type, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=N) * 2
    if name in ("vsqrt", "vrsqrt", "vlog", "vlog1p") or (name == "vpow" and seed == 0):
        x = np.abs(x) + 0.1
    if name in ("veq", "vlt", "vle", "vround"):
        x = np.round(2 * x) / 2  # equal pairs, ties
    if name in ("veqs", "vlts", "vles", "vgts", "vges"):
        x[::3] = f32(0.7) if dtype is f32 else 0.5  # equal to the scalar
    if name in ("vexpm1", "vlog1p"):
        x[0] = 1e-5  # where exp(x) - 1 and log(1 + x) lose the digits
    return x.astype(dtype)


def test_all_vector_instructions_have_a_case() -> None:
    others = {i.mnemonic for i in (*WORDS, *rows_forms((*VECTOR, *WORDS)))}  # in test_words.py, test_rows.py
    assert {i.mnemonic for i in SRAM_ISA.instructions if i.unit == "vcu"} - others == COVERED


@pytest.mark.parametrize("t", ["h", "f"])
@pytest.mark.parametrize("name", BINARY)
def test_binary(name: str, t: str) -> None:
    dtype, numpy_type = kind(t)
    a, b = values(name, numpy_type), values(name, numpy_type, 1)
    text = f"li r1, {A}\nli r2, {B}\nli r3, {OUT}\nli r4, {N}\n{name}.{t} r3, r1, r2, r4\nhalt"
    loaded = program(text, inputs=[port("a", dtype, N, A), port("b", dtype, N, B)], outputs=[port("o", dtype, N, OUT)])
    check(name, run(loaded, {"a": a, "b": b}).outputs["o"], BINARY[name](a.astype(f32), b.astype(f32)))


@pytest.mark.parametrize("t", ["h", "f"])
@pytest.mark.parametrize("name", SCALAR)
def test_scalar_operand(name: str, t: str) -> None:
    dtype, numpy_type = kind(t)
    a, s = values(name, numpy_type), np.array([0.5 if t == "h" else 0.7], f32)
    source = "r3" if name == "vfill" else "r1"
    text = f"li r1, {A}\nli r2, {S}\nli r3, {OUT}\nli r4, {N}\n{name}.{t} r3, {source}, r2, r4\nhalt"
    loaded = program(text, inputs=[port("a", dtype, N, A), port("s", "f32", 1, S)], outputs=[port("o", dtype, N, OUT)])
    check(name, run(loaded, {"a": a, "s": s}).outputs["o"], SCALAR[name](a.astype(f32), s[0]))


@pytest.mark.parametrize("t", ["h", "f"])
@pytest.mark.parametrize("name", [*UNARY, "vcvt"])
def test_unary(name: str, t: str) -> None:
    dtype, numpy_type = kind(t)
    source, source_type = kind("f" if t == "h" else "h") if name == "vcvt" else (dtype, numpy_type)
    a = values(name, source_type)
    text = f"li r1, {A}\nli r3, {OUT}\nli r4, {N}\n{name}.{t} r3, r1, r4\nhalt"
    loaded = program(text, inputs=[port("a", source, N, A)], outputs=[port("o", dtype, N, OUT)])
    check(name, run(loaded, {"a": a}).outputs["o"], UNARY.get(name, UNARY["vmov"])(a.astype(f32)))


def by_lanes(combine: np.ufunc, x: np.ndarray, lanes: int = 64) -> np.float32:
    """Sum or product in the order of docs/numerics.md."""
    partial = np.full(lanes, combine.identity, f32)
    for i, v in enumerate(x.astype(f32)):
        partial[i % lanes] = combine(partial[i % lanes], v)
    while len(partial) > 1:
        half = len(partial) // 2
        partial = combine(partial[:half], partial[half:])
    return partial[0]


@pytest.mark.parametrize("t", ["h", "f"])
@pytest.mark.parametrize("n", [300, 0])
@pytest.mark.parametrize("name", sorted(REDUCE))
def test_reduction(name: str, t: str, n: int) -> None:
    dtype, numpy_type = kind(t)
    a = np.random.default_rng(2).normal(size=n).astype(numpy_type)
    text = f"li r1, {A}\nli r3, {OUT}\nli r4, {n}\n{name}.{t} r3, r1, r4\nhalt"
    loaded = program(text, inputs=[port("a", dtype, n, A)], outputs=[port("o", "f32", 1, OUT)])
    got = run(loaded, {"a": a}).outputs["o"][0]
    x = a.astype(f32)
    expected = {
        "vrsum": lambda: by_lanes(np.add, x),
        "vrsumsq": lambda: by_lanes(np.add, x * x),
        "vrprod": lambda: by_lanes(np.multiply, x),
        "vrmax": lambda: x.max(initial=-np.inf),
        "vrmin": lambda: x.min(initial=np.inf),
    }
    assert got == expected[name]()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("parts", "n"), [(1, 40), (2, 32), (4, 45)])
def test_vredp(parts: int, n: int, bias: bool) -> None:
    rng = np.random.default_rng(3)
    groups = -(-n // 16)
    a = rng.normal(size=groups * parts * 16).astype(f32)
    b = rng.normal(size=n).astype(np.float16)
    text = f"config parts, {parts}\nli r1, {A}\nli r2, {B}\nli r3, {OUT}\nli r4, {n}\n"
    text += "vredpb r3, r1, r2, r4\nhalt" if bias else "vredp r3, r1, r4\nhalt"
    loaded = program(
        text, inputs=[port("a", "f32", len(a), A), port("b", "f16", n, B)], outputs=[port("o", "f16", n, OUT)]
    )
    cells = a.reshape(groups, parts, 16)
    total = cells[:, 0].copy()
    for v in range(1, parts):
        total += cells[:, v]
    expected = total.reshape(-1)[:n] + (b.astype(f32) if bias else 0)
    np.testing.assert_array_equal(run(loaded, {"a": a, "b": b}).outputs["o"], expected.astype(np.float16))


def test_vrope() -> None:
    rng = np.random.default_rng(4)
    dim, heads = 16, 3
    x = rng.normal(size=dim * heads).astype(np.float16)
    angle = rng.normal(size=dim // 2)
    table = np.concatenate([np.tile(np.cos(angle), 2), np.tile(np.sin(angle), 2)]).astype(np.float16)
    text = f"config head_dim, {dim}\nli r1, {A}\nli r2, {B}\nli r3, {OUT}\nli r4, {dim * heads}\n"
    text += "vrope r3, r1, r2, r4\nhalt"
    loaded = program(
        text,
        inputs=[port("x", "f16", dim * heads, A), port("t", "f16", 2 * dim, B)],
        outputs=[port("o", "f16", dim * heads, OUT)],
    )
    cos, sin = table[:dim].astype(f32), table[dim:].astype(f32)
    v = x.astype(f32).reshape(heads, dim)
    rotated = np.concatenate([-v[:, dim // 2 :], v[:, : dim // 2]], axis=1)
    expected = (v * cos + rotated * sin).astype(np.float16).reshape(-1)
    np.testing.assert_array_equal(run(loaded, {"x": x, "t": table}).outputs["o"], expected)


def test_vwsum() -> None:
    rng = np.random.default_rng(5)
    rows, n, stride = 5, 24, 64
    a = rng.normal(size=rows * stride // 2).astype(np.float16)
    w = rng.normal(size=rows).astype(f32)
    text = f"config rows, {rows}\nconfig stride_a, {stride}\nli r1, {A}\nli r2, {B}\nli r3, {OUT}\nli r4, {n}\n"
    loaded = program(
        text + "vwsum r3, r1, r2, r4\nhalt",
        inputs=[port("a", "f16", len(a), A), port("w", "f32", rows, B)],
        outputs=[port("o", "f16", n, OUT)],
    )
    total = np.zeros(n, f32)
    for i in range(rows):
        total += w[i] * a.reshape(rows, stride // 2)[i, :n].astype(f32)
    np.testing.assert_array_equal(run(loaded, {"a": a, "w": w}).outputs["o"], total.astype(np.float16))
