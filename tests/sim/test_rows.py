"""Vector instructions on many rows: each is its instruction row after row, in one dispatch, with every check."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sim.programs import CONFIG, port, program, run

from pimc.diagnostics import OutOfRangeError, PimcError, SimError, UninitialisedReadError
from pimc.isa.spec import Instruction
from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_rows import STRIDES, SUFFIX, is_rows_form, moving_operands
from pimc.runtime_sim import RunResult

FORMS = {i.mnemonic: i for i in SRAM_ISA.instructions if is_rows_form(i)}
ROWS, N, DIM, PARTS = 3, 40, 8, 2
AT = {"dst": 0x4000, "a": 0x100, "b": 0x1800, "s": 0x1800}
SIZE = 0x6000
#: Strides in bytes: rows with gaps, rows in another order, and one row for all.
CASES = {
    "gaps": {"dst": 512, "a": 640, "b": 512, "s": 4},
    "backwards": {"dst": -512, "a": -640, "b": -512, "s": -4},
    "repeated": {"dst": 512, "a": 0, "b": 0, "s": 0},
}


def start(name: str, stride: int) -> int:
    """The first row's address: with a negative stride, that of the last place."""
    return AT[name] + (2 * -stride if stride < 0 else 0)


def text(form: Instruction, rows: bool, case: dict[str, int]) -> str:
    """The form, or its instruction for one row after the other."""
    lines = [f"config head_dim, {DIM}", f"config parts, {PARTS}", f"config vector_rows, {ROWS}"]
    moving = moving_operands(form)
    lines += [f"config {STRIDES[name]}, {case[name]}" for name in moving]
    names = [operand.name for operand in form.operands]
    for row in range(1 if rows else ROWS):
        for register, name in enumerate(names, 1):
            at = N if name == "n" else start(name, case[name]) + row * (case[name] if name in moving else 0)
            lines.append(f"li r{register}, {at}")
        mnemonic = form.mnemonic if rows else form.mnemonic.removesuffix(SUFFIX)
        lines.append(f"{mnemonic} {', '.join(f'r{register}' for register in range(1, len(names) + 1))}")
    return "\n".join([*lines, "halt"])


def data(form: Instruction) -> np.ndarray:
    """All of the memory that a case touches: numbers in the types of the instruction's operands."""
    rng = np.random.default_rng(7)
    memory = np.abs(rng.normal(size=SIZE // 2).astype(np.float16)).view(np.uint16)
    wide = np.abs(rng.normal(size=SIZE // 4).astype(np.float32)).view(np.uint16)
    base = form.mnemonic.removesuffix(SUFFIX)
    if base.endswith((".f", ".i")) != base.startswith("vcvt") or base in ("vitof", "vftoi", "vredp", "vredpb"):
        memory[: AT["b"] // 2] = wide[: AT["b"] // 2]
        if base != "vredpb" and not base.startswith("vsel"):
            memory[AT["b"] // 2 :] = wide[AT["b"] // 2 :]
    if any(operand.name == "s" for operand in form.operands):
        memory[AT["b"] // 2 :] = wide[AT["b"] // 2 :]
    return memory


@pytest.mark.parametrize(
    ("mnemonic", "case"),
    [
        *((mnemonic, "gaps") for mnemonic in FORMS),
        *(
            (mnemonic, case)
            for mnemonic in ("vadd.h.r", "vexps.f.r", "vfill.h.r", "vcvt.f.r", "vrsum.h.r", "vsel.f.r", "vrope.r")
            for case in ("backwards", "repeated")
        ),
    ],
)
def test_rows_are_the_instruction_row_after_row(mnemonic: str, case: str) -> None:
    form, memory = FORMS[mnemonic], data(FORMS[mnemonic]).view(np.float16)
    inputs, outputs = [port("x", "f16", SIZE // 2, 0)], [port("y", "f16", SIZE // 2, 0)]
    many, single = (
        run(program(text(form, rows, CASES[case]), inputs=inputs, outputs=outputs), {"x": memory})
        for rows in (True, False)
    )
    np.testing.assert_array_equal(many.outputs["y"].view(np.uint16), single.outputs["y"].view(np.uint16))
    changed = np.flatnonzero(many.outputs["y"].view(np.uint16) != memory.view(np.uint16))
    assert changed.size
    assert changed.min() >= AT["dst"] // 2


def test_every_vector_instruction_has_rows() -> None:
    """All but those that go over rows or at strides by themselves."""
    without = {i.mnemonic for i in SRAM_ISA.instructions if i.unit == "vcu" and i.mnemonic + SUFFIX not in FORMS}
    assert without - set(FORMS) == {"vwsum", "vmovs.h", "vmovs.f"}


def fill_then(line: str, **config: int) -> RunResult:
    """An instruction behind 1024 halves of 1.5 from byte 0 on: r1 = 0, r2 = 4096, r3 = 64, r5 = 384."""
    lines = ["li r4, 8192", "li r5, 0x3FC00000", "sw r5, r4, 0", "li r3, 1024", "vfill.h r0, r0, r4, r3"]
    lines += [f"li r31, {value}\ncfg c{CONFIG[name]}, r31" for name, value in config.items()]
    lines += ["li r1, 0", "li r2, 4096", "li r3, 64", "li r5, 384", line, "halt"]
    return run(program("\n".join(lines), outputs=[port("y", "f16", 1, 0)]))


def rows(count: int, dst: int, a: int, b: int = 0) -> dict[str, int]:
    return {"vector_rows": count, "vector_dst_stride": dst, "vector_a_stride": a, "vector_b_stride": b}


@pytest.mark.parametrize(
    ("line", "config", "error", "message"),
    [
        ("vmov.h.r r2, r1, r3", rows(-1, 128, 128), SimError, "negative"),
        ("vmov.h.r r2, r1, r3", rows(16, 126, 128), SimError, "meets another row"),
        ("vmov.h.r r2, r1, r3", rows(16, 0, 128), SimError, "meets another row"),
        ("vmov.h.r r2, r2, r3", rows(16, 128, 256), SimError, "meets another row"),
        ("vneg.h.r r1, r1, r3", rows(4, 256, 128), SimError, "meets another row"),
        ("vadd.h.r r1, r1, r5, r3", rows(4, 128, 128, -128), SimError, "meets another row"),
        ("vadd.h.r r1, r1, r1, r3", rows(4, 128, 128, 0), SimError, "meets another row"),
        ("vmov.h.r r2, r1, r3", rows(17, 128, 128), UninitialisedReadError, "read of local memory at byte 2048"),
        ("vmov.h.r r2, r1, r3", rows(1 << 14, 128, 0), OutOfRangeError, "outside local memory"),
        ("vmov.h.r r2, r1, r3", rows(4, 127, 128), SimError, "meets another row"),
        ("vmov.h.r r2, r1, r3", rows(4, 129, 128), OutOfRangeError, "misaligned"),
        ("vmov.h.r r2, r1, r3", rows(4, 128, -128), OutOfRangeError, "outside local memory"),
        ("vmov.h.r r2, r1, r3", rows(1 << 19, 128, 0), SimError, "too much work"),
        ("vrsum.h.r r2, r1, r3", rows(1 << 19, 4, 0), SimError, "too much work"),
    ],
)  # fmt: skip
def test_rows_are_checked(line: str, config: dict[str, int], error: type[PimcError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        fill_then(line, **config)


@pytest.mark.parametrize(
    ("line", "config"),
    [
        ("vmov.h.r r2, r1, r3", rows(0, 0, 0)),
        ("vmov.h.r r2, r1, r0", rows(1 << 30, 0, 0)),
        ("vneg.h.r r1, r1, r3", rows(16, 128, 128)),
        ("vadd.h.r r1, r1, r1, r3", rows(1, 128, 128, 0)),
        ("vcvt.f.r r1, r1, r3", rows(4, 256, 256)),
    ],
)
def test_rows_that_are_nothing_or_in_place_run(line: str, config: dict[str, int]) -> None:
    fill_then(line, **config)


@pytest.mark.parametrize(
    ("line", "per_row"), [("vmov.h.r r2, r1, r3", 1), ("vexp.h.r r2, r1, r3", 4), ("vrsum.h.r r2, r1, r3", 1)]
)
def test_time_is_one_dispatch_and_the_sum_over_rows(line: str, per_row: int) -> None:
    """docs/timing.md: ceil(64 / lanes) cycles a row, one pipeline."""
    dst = 4 if "vrsum" in line else 128
    one, many = (fill_then(line, **rows(count, dst, 128)).cycles for count in (1, 16))
    assert many - one == 15 * per_row


def test_an_instruction_waits_for_the_rows_that_it_meets() -> None:
    """A load from the last row waits until the rows are written; one from a source does not."""
    line = "vmov.h.r r2, r1, r3\nlw r6, {place}"
    source, last = (fill_then(line.format(place=place), **rows(16, 128, 128)).cycles for place in ("r1, 0", "r2, 2044"))
    assert last > source
    with pytest.raises(UninitialisedReadError):
        fill_then(line.format(place="r2, 2048"), **rows(16, 128, 128))
