"""Words of programs and streams, and the linked program of hand-written entries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64

from pimc.backends.builder import HbmBuilder, SramBuilder
from pimc.backends.encode import constant_lines
from pimc.backends.link import ROWS, link_program
from pimc.diagnostics import InputError
from pimc.ir.code_ops import SramCodeOp
from pimc.ir.context import parse_module
from pimc.ir.locations import set_location, source_location
from pimc.isa.codec import decode, encode
from pimc.isa.container import load_program, write_program
from pimc.isa.hbm import HBM_ISA
from pimc.isa.program import Program
from pimc.isa.sram import SRAM_ISA
from pimc.passes.base import PassContext
from pimc.passes.pipeline import PassManager, parse_pipeline
from pimc.targets import load_target

TARGET = load_target("hpim")


def emitted(module: ModuleOp) -> ModuleOp:
    for op in module.body.block.ops:
        set_location(op, source_location("test"))
    PassManager(parse_pipeline("allocate,emit,link")).run(module, PassContext(machine=TARGET))
    return module


def linked(module: ModuleOp) -> Program:
    return link_program(emitted(module), None, TARGET)


def vector_add(cores: range = range(32)) -> ModuleOp:
    """x + y, 32 elements a core, each twice: through a core-dependent constant and a loop."""
    b, program = SramBuilder.program("add", cores)
    b.at(source_location("add"))
    x, y, z = (b.alloc(name, 64) for name in "xyz")
    offset = [32 * core for core in cores]
    for name, buffer in (("x", x), ("y", y)):
        b.port(buffer, name, "input", "f16", (32 * len(cores),), offset=offset, count=32)
    with b.loop(0, 64, 16) as i:
        b.vadd_h(b.add(b.address(z), i), b.add(b.address(x), i), b.add(b.address(y), i), 8)
    b.port(z, "z", "output", "f16", (32 * len(cores),), offset=offset, count=32)
    module = ModuleOp([program])
    module.attributes[ROWS] = IntegerAttr(0, i64)
    return module


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((5,), 1),
        ((-32768,), 1),
        ((0xFFFF,), 1),
        ((0x10000,), 1),
        ((0x12345,), 2),
        ((-32769,), 2),
        ((1, 2), 1),
        ((1, 0x12345), 2),
    ],
)
def test_constants(values: tuple[int, ...], words: int) -> None:
    lines = constant_lines(7, values)
    assert len(lines) == words
    for agent, value in enumerate(values):
        registers = [0] * 32
        for line in lines:
            mnemonic, (rd, *rest) = line[agent]
            operands = [int(v) for v in rest if isinstance(v, int)]
            assert isinstance(rd, int)
            if mnemonic == "lui":
                registers[rd] = operands[0] << 16
            else:
                encode(SRAM_ISA, mnemonic, [rd, *operands])
                left = registers[operands[0]]
                registers[rd] = left + operands[1] if mnemonic == "addi" else left | operands[1]
        assert registers[7] & 0xFFFFFFFF == value & 0xFFFFFFFF


def test_stream_words() -> None:
    h, stream = HbmBuilder.program("main", range(2))
    with h.loop(imm=[2, 3]):
        h.mac(column=0, buffer=1, count=32, result=4, clear=1, base=3, mask=0b0011)
    program = linked(ModuleOp([stream]))
    words = [program.code[f"code/main/hbm/{group}"] for group in range(2)]
    names = [[decode(HBM_ISA, int(word)) for word in column] for column in words]
    assert [[item[0].mnemonic for item in column] for column in names] == [["loop", "mac", "endl", "halt"]] * 2
    assert [column[0][1] for column in names] == [(0, 2), (0, 3)]
    assert names[0][1][1] == (0b0011, 0, 1, 32, 4, 1, 3)


def test_equal_streams_are_shared_and_located() -> None:
    program = linked(vector_add())
    assert list(program.code) == ["code/add/core/0"]
    assert set(program.entries["add"].cores.values()) == {"code/add/core/0"}
    locations = program.locations["code/add/core/0"]
    assert {locations.at(pc) for pc in range(len(program.code["code/add/core/0"]))} >= {"add"}
    pieces = program.entries["add"].inputs[0].pieces
    assert [(p.core, p.offset, p.count) for p in pieces] == [(core, 32 * core, 32) for core in range(32)]


def test_linking_is_deterministic(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pimx", tmp_path / "b.pimx"]
    for path in paths:
        write_program(path, linked(vector_add()))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert load_program(paths[0]).entries["add"].outputs[0].name == "z"


def test_code_survives_text() -> None:
    module = emitted(vector_add())
    again = parse_module(str(module))
    for before, after in zip(module.body.block.ops, again.body.block.ops, strict=True):
        assert isinstance(before, SramCodeOp)
        assert isinstance(after, SramCodeOp)
        np.testing.assert_array_equal(before.code.words, after.code.words)


def test_two_programs_on_one_core() -> None:
    programs = [SramBuilder.program("main", range(2))[1], SramBuilder.program("main", range(1, 3))[1]]
    with pytest.raises(InputError, match="two streams for core 1"):
        linked(ModuleOp(programs))


def test_nothing_to_link() -> None:
    with pytest.raises(InputError, match="no code to link"):
        linked(ModuleOp([]))


def test_a_port_behind_its_buffer() -> None:
    b, program = SramBuilder.program("main", range(2))
    b.port(b.alloc("x", 4), "x", "input", "f16", (4,), count=[2, 4])
    with pytest.raises(InputError, match="reaches behind its buffer on core 1"):
        linked(ModuleOp([program]))


def test_vector_add_runs(tmp_path: Path) -> None:
    from pimc.runtime_sim import Machine

    path = tmp_path / "add.pimx"
    write_program(path, linked(vector_add()))
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(1024).astype(np.float16) for _ in range(2))
    result = Machine(load_program(path), TARGET).run("add", {"x": x, "y": y})
    np.testing.assert_array_equal(result.outputs["z"], (x.astype(np.float32) + y).astype(np.float16))
