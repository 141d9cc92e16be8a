"""The sram and hbm dialects: every instruction round-trips through text, bad operands are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import VerifyException

from pimc.backends.builder import HbmBuilder, SramBuilder
from pimc.diagnostics import InputError
from pimc.ir import hbm, sram
from pimc.ir.context import parse_module, print_module
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import OperandKind
from pimc.isa.sram import SRAM_ISA

SRAM_NAMES = sorted(sram.INSTRUCTION_OPS)
HBM_NAMES = sorted(hbm.COMMAND_OPS)


def round_trip(module: ModuleOp) -> None:
    module.verify()
    custom, generic = str(module), print_module(module)
    assert str(parse_module(custom)) == custom
    assert str(parse_module(generic)) == custom
    assert print_module(parse_module(generic)) == generic


def test_every_table_entry_has_an_operation() -> None:
    assert set(SRAM_NAMES) | set(sram.STRUCTURED) == {i.mnemonic for i in SRAM_ISA.instructions}
    assert set(HBM_NAMES) | set(hbm.STRUCTURED) == {i.mnemonic for i in HBM_ISA.instructions}


@pytest.mark.parametrize("mnemonic", SRAM_NAMES)
def test_instruction(mnemonic: str) -> None:
    b, program = SramBuilder.program("main", range(4))
    op = sram.INSTRUCTION_OPS[mnemonic]
    registers = [b.const(3 + i) for i, _ in enumerate(op.read_operands())]
    named: dict[str, int] = {o.name: o.maximum for o in op.immediate_operands()}
    named |= {name: 100 + i for i, name in enumerate(op.INSTRUCTION.config)}
    made = b.emit(mnemonic, *registers, **named)
    assert made.has_result() == bool(made.results)
    assert op.__doc__ == op.INSTRUCTION.doc
    round_trip(ModuleOp([program]))


@pytest.mark.parametrize("mnemonic", SRAM_NAMES)
def test_instruction_refuses_what_does_not_fit(mnemonic: str) -> None:
    op = sram.INSTRUCTION_OPS[mnemonic]
    b, _program = SramBuilder.program("main", range(2))
    registers = [b.const(i) for i, _ in enumerate(op.read_operands())]
    with pytest.raises(TypeError):
        b.emit(mnemonic, *registers, 7)
    with pytest.raises(TypeError):
        b.emit(mnemonic, *registers, nonsense=7)
    for operand in op.immediate_operands():
        named = {o.name: 0 for o in op.immediate_operands()} | {operand.name: operand.maximum + 1}
        made = b.emit(mnemonic, *registers, **named, **dict.fromkeys(op.INSTRUCTION.config, 0))
        with pytest.raises(VerifyException, match="out of range"):
            made.verify()


@pytest.mark.parametrize("mnemonic", HBM_NAMES)
def test_command(mnemonic: str) -> None:
    h, stream = HbmBuilder.program("main", range(4))
    operands = hbm.COMMAND_OPS[mnemonic].INSTRUCTION.operands
    h.emit(mnemonic, **{operand.name: operand.maximum for operand in operands})
    h.emit(mnemonic, **{operand.name: operand.minimum for operand in operands})
    if any(operand.kind is OperandKind.MASK for operand in operands):
        h.emit(mnemonic, **{o.name: 0 for o in operands if o.kind is not OperandKind.MASK})
    round_trip(ModuleOp([stream]))
    for operand in operands:
        made = h.emit(mnemonic, **({o.name: 0 for o in operands} | {operand.name: operand.maximum + 1}))
        with pytest.raises(VerifyException, match="out of range"):
            made.verify()


def everything() -> ModuleOp:
    b, program = SramBuilder.program("main", [0, 1])
    x = b.alloc("x", 128, memory="temp", align=64, remote=True)
    b.port(x, "in", "input", "f16", (1, 64), start=2, offset=[0, 32], count=[32, 0])
    with b.loop_carrying(0, b.const([7, 8]), [b.address(x, [0, 4]), 5], step=3) as loop:
        loop.next = [loop.carried[1], loop.carried[0]]
        with b.if_(loop.counter, "ge", 3) as branch:
            b.keep(x)
        with b.else_(branch), b.loop(0, loop.counter):
            b.sw(loop.carried[0], loop.carried[1])
    b.sw(loop.results[0], 0)
    h, stream = HbmBuilder.program("main", [0, 1])
    with h.loop(imm=[2, 3], rs=5), h.loop(imm=1):
        h.set(rd=3, imm=HbmBuilder.local("x", 16))
        h.wrgb(base=0, address=HbmBuilder.local("x"), column=0, count=1, stride=0, mask=0b0101)
    return ModuleOp([program, stream])


def test_structure_round_trips() -> None:
    round_trip(everything())


def test_generic_form_is_mlir(tmp_path: Path, iree_opt: str) -> None:
    path = tmp_path / "module.mlir"
    path.write_text(print_module(everything()))
    done = subprocess.run(  # a tool of the environment on a file of ours
        [iree_opt, "--allow-unregistered-dialect", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('sram.program "m" cores = [0, 0] {}', "distinct"),
        ('sram.program "m" cores = [0, 1] { %0 = sram.const [1, 2, 3] }', "one a core"),
        ('sram.program "m" cores = [0] { %0 = sram.const 5000000000 }', "32 bits"),
        (
            'sram.program "m" cores = [0] { %0 = sram.alloc "x" {bytes = 0 : i64, memory = "temp", align = 4 : i64} }',
            "positive",
        ),
        (
            'sram.program "m" cores = [0] { %0 = sram.alloc "x" {bytes = 4 : i64, memory = "l2", align = 4 : i64} }',
            "memory must be",
        ),
        ('sram.program "m" cores = [0] { %0 = sram.const 1 sram.if %0 gt %0 {} }', "expected one of"),
        ('hbm.program "m" groups = [0] { hbm.mac column = 0 }', "needs buffer"),
        ('hbm.program "m" groups = [0] { hbm.mac banana = 0 }', "needs"),
        ('hbm.program "m" groups = [0, 1] { hbm.set rd = 0, imm = [1, 2, 3] }', "one a group"),
        ('hbm.program "m" groups = [0] ' + "{ hbm.loop rs = 0, imm = 1 " * 9 + "{} " + "}" * 9, "8 deep"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parse_module(text)


def test_two_buffers_of_one_name() -> None:
    b, program = SramBuilder.program("main", [0])
    b.alloc("x", 4)
    b.alloc("x", 4)
    with pytest.raises(VerifyException, match="allocated twice"):
        program.verify()


def test_unknown_names() -> None:
    b, _ = SramBuilder.program("main", [0])
    h, _ = HbmBuilder.program("main", [0])
    with pytest.raises(AttributeError, match="frobnicate"):
        b.frobnicate(1)
    with pytest.raises(AttributeError, match="frobnicate"):
        h.frobnicate(rd=1)
    with pytest.raises(AttributeError, match="frobnicate"):
        b.emit("frobnicate")
    with pytest.raises(TypeError, match="needs parts"):
        b.vredp(0, 0, 0)
