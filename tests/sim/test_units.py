"""Scalar and control instructions, the PIM and tensor units, transposition: against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from sim.programs import port, program, run

from pimc.isa.sram import SRAM_ISA

OUT = 0x3000
f32 = np.float32

SCALARS = {
    "add": (lambda a, b: a + b), "sub": (lambda a, b: a - b), "mul": (lambda a, b: a * b), "and": (lambda a, b: a & b),
    "or": (lambda a, b: a | b), "xor": (lambda a, b: a ^ b), "sll": (lambda a, b: a << (b & 31)),
    "srl": (lambda a, b: (a & 0xFFFFFFFF) >> (b & 31)), "sra": (lambda a, b: a >> (b & 31)),
    "slt": (lambda a, b: int(a < b)), "sltu": (lambda a, b: int(a & 0xFFFFFFFF < b & 0xFFFFFFFF)),
    "min": min, "max": max, "divu": (lambda a, b: (a & 0xFFFFFFFF) // (b & 0xFFFFFFFF)),
    "remu": (lambda a, b: (a & 0xFFFFFFFF) % (b & 0xFFFFFFFF)),
}  # fmt: skip
IMMEDIATES = {
    "addi": (-7, lambda a, b: a + b), "ori": (0xFF0F, lambda a, b: a | b), "andi": (0xFF0F, lambda a, b: a & b),
    "slli": (5, lambda a, b: a << b), "srli": (5, lambda a, b: (a & 0xFFFFFFFF) >> b), "srai": (5, lambda a, b: a >> b),
}  # fmt: skip
BRANCHES = {
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: a < b,
    "bge": lambda a, b: a >= b,
}
HERE = {
    *SCALARS,
    *IMMEDIATES,
    *BRANCHES,
    "lui",
    "lw",
    "sw",
    "cid",
    "cfg",
    "nop",
    "halt",
    "trans",
    "pimld",
    "twb",
    "twb.f",
    "tld.f",
}
HERE |= {f"pimmv.{f}" for f in ("a", "c", "aw", "cw")} | {f"tmm{c}.{o}" for c in ("", "c") for o in ("nk", "kn")}
#: Covered in the other files of this folder.
ELSEWHERE = {"wait", "sigh", "hset", "hrd", "hwr", "hrdb", "nsend", "nsend2", "nmcast", "nmcast2"}


def test_all_other_instructions_have_a_case() -> None:
    assert {i.mnemonic for i in SRAM_ISA.instructions if i.unit != "vcu"} == HERE | ELSEWHERE


def signed(value: int) -> int:
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def scalar_result(text: str, on: int = 0) -> int:
    text += f"\nli r30, {OUT}\nsw r3, r30, 0\nhalt"
    loaded = program({on: text}, outputs=[port("o", "i32", 1, OUT, on)])
    return int(run(loaded).outputs["o"][0])


@pytest.mark.parametrize(("a", "b"), [(13, 5), (-13, 5), (5, -13), (0x7FFFFFFF, 0x12345678), (7, 33)])
@pytest.mark.parametrize("name", SCALARS)
def test_scalar(name: str, a: int, b: int) -> None:
    assert scalar_result(f"li r1, {a}\nli r2, {b}\n{name} r3, r1, r2") == signed(SCALARS[name](a, b))


@pytest.mark.parametrize("a", [12345, -12345])
@pytest.mark.parametrize("name", IMMEDIATES)
def test_immediate(name: str, a: int) -> None:
    b, function = IMMEDIATES[name]
    assert scalar_result(f"li r1, {a}\n{name} r3, r1, {b}") == signed(function(a, b))


@pytest.mark.parametrize(("a", "b"), [(1, 2), (2, 1), (3, 3), (-1, 1)])
@pytest.mark.parametrize("name", BRANCHES)
def test_branch(name: str, a: int, b: int) -> None:
    text = f"li r1, {a}\nli r2, {b}\naddi r3, r0, 1\n{name} r1, r2, over\naddi r3, r0, 2\nover:\nnop"
    assert scalar_result(text) == (1 if BRANCHES[name](a, b) else 2)


def test_lui_cid_and_zero_register() -> None:
    assert scalar_result("lui r3, 0x8001") == signed(0x80010000)
    assert scalar_result("cid r3", on=5) == 5
    assert scalar_result("addi r0, r0, 9\nadd r3, r0, r0") == 0


def test_memory_words_and_loop() -> None:
    """Sums ten words with a loop of lw."""
    text = f"""
        li r1, 0x100
        li r2, 10
    again:
        lw r4, r1, 0
        add r3, r3, r4
        addi r1, r1, 4
        addi r2, r2, -1
        bne r2, r0, again
        li r30, {OUT}
        sw r3, r30, 0
        halt
    """
    loaded = program(text, inputs=[port("a", "i32", 10, 0x100)], outputs=[port("o", "i32", 1, OUT)])
    data = np.arange(10, dtype=np.int32) * 1000 - 3000
    assert run(loaded, {"a": data}).outputs["o"][0] == data.sum()


def tree(products: np.ndarray) -> np.ndarray:
    """Adder tree over the last axis of 16, by halves."""
    while products.shape[-1] > 1:
        half = products.shape[-1] // 2
        products = products[..., :half] + products[..., half:]
    return products[..., 0]


def pim_dot(x: np.ndarray, rows: np.ndarray, acc: np.ndarray) -> np.ndarray:
    """The PIM unit's order: blocks of 16 lanes, ascending, into the accumulator."""
    depth = len(x)
    padded = np.zeros((len(rows), -(-depth // 16) * 16), f32)
    padded[:, :depth] = rows.astype(f32) * x.astype(f32)
    total = acc.copy()
    for block in range(padded.shape[1] // 16):
        total += tree(padded[:, 16 * block : 16 * block + 16])
    return total


@pytest.mark.parametrize(("depth", "n"), [(128, 33), (64, 16), (20, 5)])
def test_pim_unit(depth: int, n: int) -> None:
    """pimld (in two halves of lanes), pimmv.c, .a, .aw and .cw."""
    rng = np.random.default_rng(1)
    w = rng.normal(size=(n, depth)).astype(np.float16)
    x = rng.normal(size=depth).astype(np.float16)
    half = depth // 2
    text = f"""
        li r1, 0x4000
        li r2, 0x100
        li r3, {n}
        li r4, 7
        config stride_a, {2 * depth}
        config depth, {half}
        pimld r4, r1, r3
        addi r1, r1, {2 * half}
        config lane, {half}
        config depth, {depth - half}
        pimld r4, r1, r3
        config depth, {depth}
        li r5, {OUT}
        pimmv.c r0, r2, r4, r3
        pimmv.a r0, r2, r4, r3
        pimmv.aw r5, r2, r4, r3
        addi r5, r5, {4 * n}
        pimmv.cw r5, r2, r4, r3
        halt
    """
    loaded = program(
        text,
        inputs=[port("w", "f16", n * depth, 0x4000), port("x", "f16", depth, 0x100)],
        outputs=[port("a", "f16", n, OUT), port("b", "f16", n, OUT + 4 * n)],
    )
    result = run(loaded, {"w": w.reshape(-1), "x": x}).outputs
    once = pim_dot(x, w, np.zeros(n, f32))
    np.testing.assert_array_equal(result["b"], once.astype(np.float16))
    np.testing.assert_array_equal(result["a"], pim_dot(x, w, pim_dot(x, w, once)).astype(np.float16))


@pytest.mark.parametrize("order", ["nk", "kn"])
@pytest.mark.parametrize(("m", "n", "k"), [(16, 64, 300), (3, 5, 7), (64, 64, 64)])
def test_tensor_unit(order: str, m: int, n: int, k: int) -> None:
    """tmmc then tmm, ascending k, one rounding in twb; rows further apart than their length."""
    rng = np.random.default_rng(2)
    a = rng.normal(size=(m, k + 2)).astype(np.float16)
    b = rng.normal(size=(n, k + 1) if order == "nk" else (k, n + 1)).astype(np.float16)
    b_at, c_at = 0x20000, 0x50000
    text = f"""
        config rows, {m}
        config cols, {n}
        config depth, {k}
        config stride_a, {2 * a.shape[1]}
        config stride_b, {2 * b.shape[1]}
        config stride_c, {2 * n + 4}
        li r1, 0x100
        li r2, {b_at}
        li r3, {c_at}
        tmmc.{order} r1, r2
        tmm.{order} r1, r2
        twb r3
        halt
    """
    rows = [port(f"c{i}", "f16", n, c_at + i * (2 * n + 4)) for i in range(m)]
    inputs = [port("a", "f16", a.size, 0x100), port("b", "f16", b.size, b_at)]
    outputs = run(program(text, inputs=inputs, outputs=rows), {"a": a.reshape(-1), "b": b.reshape(-1)}).outputs
    left, right = a[:, :k].astype(f32), (b[:, :k].T if order == "nk" else b[:, :n]).astype(f32)
    acc = np.zeros((m, n), f32)
    for _ in range(2):
        for step in range(k):
            acc += left[:, step : step + 1] * right[step : step + 1]
    np.testing.assert_array_equal(np.stack([outputs[f"c{i}"] for i in range(m)]), acc.astype(np.float16))


@pytest.mark.parametrize(("rows", "cols"), [(3, 5), (64, 64), (1, 64)])
def test_accumulators_leave_and_return(rows: int, cols: int) -> None:
    """Sums that leave as f32 and return go on to the bits of an accumulation that stays; one row may serve all."""
    rng = np.random.default_rng(7)
    a = rng.normal(size=(rows, 40)).astype(np.float16)
    b = rng.normal(size=(cols, 40)).astype(np.float16)
    bias = rng.normal(size=cols).astype(f32)
    b_at, sums_at, bias_at, c_at = 0x8000, 0x10000, 0x18000, 0x20000
    pitch = 4 * cols + 8
    text = f"""
        config rows, {rows}
        config cols, {cols}
        config depth, 20
        config stride_a, 80
        config stride_b, 80
        config stride_c, 0
        li r1, 0x100
        li r2, {b_at}
        li r3, {sums_at}
        li r4, {c_at}
        li r5, {bias_at}
        tld.f r5
        tmm.nk r1, r2
        config stride_c, {pitch}
        twb.f r3
        tmmc.nk r1, r2
        tld.f r3
        li r1, {0x100 + 40}
        li r2, {b_at + 40}
        tmm.nk r1, r2
        twb.f r4
        halt
    """
    outputs = [port(f"c{i}", "f32", cols, c_at + i * pitch) for i in range(rows)]
    inputs = [port("a", "f16", a.size, 0x100), port("b", "f16", b.size, b_at), port("bias", "f32", cols, bias_at)]
    result = run(program(text, inputs=inputs, outputs=outputs), {"a": a.ravel(), "b": b.ravel(), "bias": bias}).outputs
    acc = np.tile(bias, (rows, 1))
    for k in range(40):
        acc += a[:, k : k + 1].astype(f32) * b[:, k].astype(f32)
    np.testing.assert_array_equal(np.stack([result[f"c{i}"] for i in range(rows)]), acc)


def test_transposition() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(0, 0x7000, (5, 8)).astype(np.uint16).view(np.float16)
    text = f"""
        config rows, 5
        config cols, 6
        config stride_a, 16
        config stride_b, 14
        li r1, 0x100
        li r2, {OUT}
        trans r2, r1
        halt
    """
    rows = [port(f"r{i}", "f16", 5, OUT + 14 * i) for i in range(6)]
    outputs = run(program(text, inputs=[port("a", "f16", 40, 0x100)], outputs=rows), {"a": a.reshape(-1)}).outputs
    np.testing.assert_array_equal(np.stack([outputs[f"r{i}"] for i in range(6)]), a[:, :6].T)
