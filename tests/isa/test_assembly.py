"""Binary -> text -> binary gives the same bytes; errors point at the place."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isa.samples import core_stream, hbm_stream, sample
from pimc.diagnostics import IsaError, UsageError
from pimc.isa.asm import assemble
from pimc.isa.codec import encode, word_dtype
from pimc.isa.container import load_program, write_program
from pimc.isa.disasm import disassemble
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import STREAM_ISAS, Entry, Program
from pimc.isa.spec import InstructionSet, OperandKind
from pimc.isa.sram import SRAM_ISA
from pimc.isa.syntax import AssemblyError

HEAD = '.pimx 1 0\n.target hpim digest ""\n.entry main\n.stream core 0 entry main\n'


def test_round_trip(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pimx", tmp_path / "b.pimx"
    write_program(first, sample())
    text = disassemble(load_program(first), reference="a.pimx")
    assert ".same core 2..3 entry decode as core 0 entry decode" in text
    assert ".same hbm 10 entry decode as hbm 0 entry decode" in text
    write_program(second, assemble(text, tmp_path / "a.pasm"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("isa", STREAM_ISAS.values(), ids=lambda isa: isa.name)
def test_every_instruction(isa: InstructionSet) -> None:
    """Each instruction at the limits of its operands, through text."""
    kind = "core" if isa is SRAM_ISA else "hbm"
    stream = []
    for instruction in isa.instructions:
        if instruction.mnemonic in ("loop", "endl", "halt"):
            continue
        for extreme in ("minimum", "maximum"):
            values = [
                0 if operand.kind is OperandKind.LABEL else getattr(operand, extreme)
                for operand in instruction.operands
            ]
            stream.append(encode(isa, instruction.mnemonic, values))
    stream.append(encode(isa, "halt", ()))
    tensor = f"code/main/{kind}/0"
    streams = {0: tensor}
    entry = Entry(streams, {}) if kind == "core" else Entry({}, streams)
    code = {tensor: np.array(stream, word_dtype(isa))}
    program = Program("hpim", "", 0, {"main": entry}, code)
    text = disassemble(program)
    assert (assemble(text).code[tensor] == code[tensor]).all()


def test_speed() -> None:
    """32 streams of 2000 words that differ in a few, and as many command streams, take seconds."""
    common = core_stream(0, 2000)
    code = {}
    for i in range(32):
        code[f"code/main/core/{i}"] = common.copy()
        code[f"code/main/core/{i}"][20 * i : 20 * i + 20] = encode(SRAM_ISA, "addi", (1, 2, i))
        code[f"code/main/hbm/{i}"] = np.concatenate([hbm_stream(1, 500)[:-1], hbm_stream(i, 3)])
    cores, groups = ({i: f"code/main/{kind}/{i}" for i in range(32)} for kind in ("core", "hbm"))
    program = Program("hpim", "", 0, {"main": Entry(cores, groups)}, code)
    start = time.perf_counter()
    again = assemble(disassemble(program))
    assert time.perf_counter() - start < 20  # about 2 s on an idle machine
    assert all((again.code[name] == value).all() for name, value in code.items())


def test_written_by_hand() -> None:
    program = assemble(
        HEAD
        + "start: addi r1, r0, -0x10   # comment\n\n   beq r1, r2, end\n  cfg head_dim, r3\n"
        + "  wait s3, r0, 1\n bne r1, r0, start\nend:\n beq r0, r0, 1\n halt\n"
        + ".stream hbm 0 entry main\n loop h1, 2\n  mac 0b0101, 0, 0, 32, 1, 1, h2\n endl\n halt\n"
        + ".same hbm 1..2 entry main as hbm 0 entry main\n"
    )
    words = program.code["code/main/core/0"]
    assert words.tolist() == [
        encode(SRAM_ISA, "addi", (1, 0, -16)),
        encode(SRAM_ISA, "beq", (1, 2, 4)),
        encode(SRAM_ISA, "cfg", (0, 3)),
        encode(SRAM_ISA, "wait", (3, 0, 1)),
        encode(SRAM_ISA, "bne", (1, 0, -4)),
        encode(SRAM_ISA, "beq", (0, 0, 1)),
        encode(SRAM_ISA, "halt", ()),
    ]
    assert program.code["code/main/hbm/0"][1] == encode(HBM_ISA, "mac", (5, 0, 0, 32, 1, 1, 2))
    assert program.entries["main"].groups == dict.fromkeys(range(3), "code/main/hbm/0")


def test_one_stream() -> None:
    text = disassemble(sample(), stream="decode/core/2")
    assert text.rstrip().endswith("halt")
    assert ".pimx" not in text
    with pytest.raises(UsageError, match="no stream 'decode/core/9'"):
        disassemble(sample(), stream="decode/core/9")


@pytest.mark.parametrize(
    ("body", "place", "message", "hint"),
    [
        (" vaddd.h r1, r2, r3, r4", "1:2", "unknown instruction 'vaddd.h'", "vadd.h"),
        (" vmuls r1, r2, r3, r4", "1:2", "unknown instruction 'vmuls'", "vmuls.h"),
        (" add r1, r2", "1:2", "takes 3 operands", None),
        (" add r1, r2, r32", "1:14", "operand rs2 must be a register r0..r31, not 'r32'", None),
        (" addi r1, r2, 32768", "1:15", "operand imm must be a number in", None),
        (" addi r1, r2 r3", "1:14", "unexpected 'r3'", None),
        (" addi r1, r2,", "1:14", "ends too early", None),
        (" cfg head_dmi, r1", "1:6", "not a configuration register", "head_dim"),
        (" wait r1, r0, 1", "1:7", "operand sem must be a semaphore s0..s31", None),
        ("loop:\n beq r0, r0, lop", "2:14", "no label 'lop'", "loop"),
        ("a:\na: halt", "2:1", "label 'a' is already at word 0", None),
        (" .strem core 1 entry main", "1:2", "unknown directive '.strem'", ".stream"),
        (" .stream core 0 entry main", "1:2", "has a stream already", None),
        (" .stream core 1 entry man", "1:23", "no entry 'man' so far", "main"),
        (" .stream cor 1 entry main", "1:10", "expected core or hbm, not 'cor'", None),
        (" .loc 0", "1:7", "0 locations so far", None),
        (' .images "nowhere.pimx" sha256 ""', "1:2", "cannot be read", None),
        (" halt\n.same core 1 entry main as core 9 entry main", "2:1", "core 1 of entry main has nothing", None),
        (" ?", "1:2", "unknown instruction '?'", None),
        (" .piece core 0", "1:2", "must follow .input", None),
        (" .range 0 1", "1:2", "must follow .input", None),
        (" .rows", "1:7", "needs the rows of a bank", None),
        (" .rows 1 2", "1:2", "too many arguments", None),
    ],
)
def test_errors(body: str, place: str, message: str, hint: str | None) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(HEAD + body, "x.pasm")
    line, column = place.split(":")
    assert str(caught.value).startswith(f"x.pasm:{int(line) + HEAD.count(chr(10))}:{column}: ")
    assert message in str(caught.value)
    if hint:
        assert hint in (caught.value.hint or "")
    source, caret = str(caught.value.excerpt).split("\n")
    assert source == "    " + body.split("\n")[int(line) - 1]
    assert caret.index("^") == 3 + int(column)


@pytest.mark.parametrize("digits", ["9" * 5000, "-" + "9" * 5000, "0x" + "f" * 5000, "1.." + "9" * 5000])
@pytest.mark.parametrize(
    "line", [" .rows {}", " addi x1, x0, {}", " .loc {}", ".same core {} entry main as core 0 entry main"]
)
def test_integers_of_thousands_of_digits_are_out_of_range(line: str, digits: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(HEAD + line.format(digits), "x.pasm")
    assert all(len(part) < 120 for part in str(caught.value.excerpt).split("\n"))


def test_error_of_the_whole() -> None:
    with pytest.raises(IsaError, match="run off its end"):
        assemble(HEAD + " nop")
    with pytest.raises(AssemblyError, match=r"must start with \.pimx"):
        assemble(".rows 3")
    with pytest.raises(IsaError, match=r"no \.target"):
        assemble(".pimx 1 0")


def test_wrong_images(tmp_path: Path) -> None:
    path = tmp_path / "a.pimx"
    write_program(path, sample())
    text = disassemble(load_program(path))
    write_program(path, replace(sample(), images={}))
    with pytest.raises(AssemblyError, match=r"the images of .* are not these"):
        assemble(text)
