"""Instructions whose counts are zero: what counts as written afterwards has been written, by every instruction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sim.programs import CONFIG, port, program, target

from pimc.isa.spec import Instruction, OperandKind
from pimc.isa.sram import SRAM_ISA
from pimc.runtime_sim import Machine

#: Counts that may be zero, and a value for what is not.
COUNTS = {"n": 4, "rows": 2, "cols": 4, "depth": 4, "message_rows": 2, "vector_rows": 2}
ADDRESSES = {"a": 0, "b": 1024, "s": 1024, "x": 0, "src": 0, "dst": 4096, "row": 0, "core": 0, "column": 0}
OTHERS = {
    "head_dim": 4, "parts": 1, "lane": 0, "stride_a": 32, "stride_b": 32, "stride_c": 32, "group_base": 0,
    "group_size": 1, "pch_mask": 1, "pch_stride": 32, "message_src_stride": 32, "message_dst_stride": 32,
    "vector_dst_stride": 32, "vector_a_stride": 32, "vector_b_stride": 32,
}  # fmt: skip
MARK = 0x77
SMALL = ("cores.count=1", "noc.columns=1", "noc.rows=1", "hbm.stacks=1", "hbm.channels=2")
INSTRUCTIONS = {i.mnemonic: i for i in SRAM_ISA.instructions if i.unit in ("vcu", "tcu", "pim", "trans", "noc")}


def _text(instruction: Instruction, zeros: tuple[str, ...]) -> str:
    """The instruction alone, its counts zero where ``zeros`` says so, after the array and accumulators are filled."""
    values = {name: 0 if name in zeros else value for name, value in COUNTS.items()}
    lines = ["config rows, 2", "config cols, 4", "config depth, 4", "config lane, 0", "config stride_a, 32"]
    lines += [
        "config stride_b, 32",
        "li r1, 0",
        "li r2, 1024",
        "li r3, 4",
        "pimld r1, r1, r3",
        "pimmv.c r1, r1, r1, r3",
    ]
    lines += ["tmmc.nk r1, r2"]
    lines += [f"config {name}, {values.get(name, OTHERS.get(name))}" for name in instruction.config if name in CONFIG]
    operands = []
    for place, operand in enumerate(instruction.operands, 1):
        if operand.kind is OperandKind.REGISTER:
            lines.append(f"li r{place}, {values[operand.name] if operand.name in values else ADDRESSES[operand.name]}")
            operands.append(f"r{place}")
        else:
            operands.append("s0")
    lines.append(f"{instruction.mnemonic} {', '.join(operands)}")
    if instruction.unit == "noc":
        lines.append("wait s0, r0, 1")
    return "\n".join([*lines, "halt"])


@pytest.mark.parametrize("mnemonic", INSTRUCTIONS)
def test_what_counts_as_written_is_written(mnemonic: str) -> None:
    instruction = INSTRUCTIONS[mnemonic]
    named = {*instruction.config, *(operand.name for operand in instruction.operands)}
    counts = [name for name in COUNTS if name in named]
    # sources hold 1.0 and 2.0 (no result is MARK), the destination MARK
    sources = np.tile(np.array([0x3C00, 0x4000], np.uint16).view(np.float16), 1024)
    marks = np.full(1024, MARK * 0x01010101, np.int32)
    for zeros in (z for size in range(1, len(counts) + 1) for z in itertools.combinations(counts, size)):
        loaded = program(_text(instruction, zeros), inputs=[port("x", "f16", 2048, 0), port("mark", "i32", 1024, 4096)])
        machine = Machine(loaded, target(*SMALL))
        machine.run("main", {"x": sources, "mark": marks})
        elements = machine.local_memory(0)[4096:8192].view(np.uint16)
        written = machine.written(0)[2048:4096]
        assert not np.any(written & (elements == MARK * 0x0101)), f"{zeros}: counts as written, and is not"
        assert not np.any(~written & (elements != MARK * 0x0101)), f"{zeros}: is written, and does not count as such"


@pytest.mark.parametrize("zeros", [("depth",), ("rows",), ("cols",), ("rows", "cols", "depth")])
def test_tmmc_of_nothing_clears(zeros: tuple[str, ...]) -> None:
    """An accumulation of nothing that clears leaves zeros in all accumulators."""
    text = _text(INSTRUCTIONS["tmmc.kn"], zeros).removesuffix("halt")
    text += "config rows, 2\nconfig cols, 4\nconfig stride_c, 32\nli r1, 4096\ntwb r1\nhalt"
    ones = np.ones(2048, np.float16)
    loaded = program(text, inputs=[port("x", "f16", 2048, 0)])
    machine = Machine(loaded, target())
    machine.run("main", {"x": ones})
    assert not machine.local_memory(0)[4096:4104].any()
    assert not machine.local_memory(0)[4128:4136].any()


def test_vwsum_without_rows_writes_zeros() -> None:
    text = "li r1, 256\nli r2, 4\nconfig rows, 0\nvwsum r1, r0, r0, r2\nhalt"
    machine = Machine(program(text, outputs=[port("y", "f16", 4, 256)]), target())
    assert machine.run("main").outputs["y"].tolist() == [0, 0, 0, 0]


def test_vargmax_of_nothing_is_zero() -> None:
    text = "li r1, 256\nvargmax.h r1, r0, r0\nhalt"
    loaded = program(text, inputs=[port("mark", "i32", 4, 256)], outputs=[port("y", "i32", 1, 256)])
    assert Machine(loaded, target()).run("main", {"mark": np.full(4, -1, np.int32)}).outputs["y"].tolist() == [0]
