"""Words of a random program do what its IR says: registers, constants, configuration, loops and branches together."""

from __future__ import annotations

import random

import pytest
from scalar_machine import Machine, Reference
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from pimc.backends.builder import SramBuilder
from pimc.backends.encode import encode_program
from pimc.diagnostics import InputError
from pimc.ir import sram
from pimc.ir.context import parse_module
from pimc.ir.sram_structure import AllocOp
from pimc.passes.allocate import AllocatePass
from pimc.passes.base import PassContext
from pimc.targets import load_target

CORES = (3, 7, 20)
TARGET = load_target("hpim")
#: Where scalars go that the registers cannot hold; the programs here have no other use for it.
SPILLED = range(TARGET.memory("temp").base, TARGET.memory("temp").base + TARGET.memory("temp").bytes)


class Generator:
    """Random structured programs."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.b, self.program = SramBuilder.program("main", CORES)
        self.buffers = [self.b.alloc(f"b{i}", 64) for i in range(3)]

    def constant(self) -> SSAValue:
        r = self.random
        value = r.choice([0, 1, 2, r.randrange(-9, 9), r.randrange(-40000, 40000), r.randrange(-(2**31), 2**31)])
        if r.random() < 0.3:
            return self.b.const([value, r.randrange(-100, 100), r.randrange(-100000, 100000)])
        if r.random() < 0.3:
            return self.b.address(r.choice(self.buffers), r.choice([0, 4, [0, 4, 8]]))
        return self.b.const(value)

    def value(self, known: list[SSAValue]) -> SSAValue:
        return self.random.choice(known) if known and self.random.random() < 0.5 else self.constant()

    def statement(self, known: list[SSAValue], depth: int) -> None:
        b, r = self.b, self.random
        kind = r.randrange(12)
        if kind < 4:
            name = r.choice(["add", "sub", "mul", "and_", "or_", "xor", "slt", "min", "max", "sll", "srl", "sra"])
            known.append(getattr(b, name)(self.value(known), self.value(known)))
        elif kind == 4:
            known.append(b.addi(self.value(known), r.randrange(-50, 50)))
        elif kind == 5:
            b.vadd_h(*(self.value(known) for _ in range(4)))
        elif kind == 6:
            b.vredp(*(self.value(known) for _ in range(3)), parts=b.const(r.choice([1, 2])))
        elif kind == 7:
            names = ("rows", "cols", "depth", "stride_a", "stride_b")
            config = {name: self.value(known) if r.random() < 0.3 else b.const(r.choice([1, 64])) for name in names}
            b.tmm_nk(self.value(known), self.value(known), **config)
        elif kind == 8:
            b.sw(self.value(known), b.address(r.choice(self.buffers), 4 * r.randrange(8)))
            known.append(b.lw(b.address(r.choice(self.buffers), 4 * r.randrange(8))))
        elif depth < 3 and kind < 11:
            self.loop(known, depth)
        elif depth < 3:
            with b.if_(self.value(known), r.choice(["eq", "ne", "lt", "ge"]), self.value(known)) as branch:
                self.block(list(known), depth + 1, 3)
            if r.random() < 0.5:
                with b.else_(branch):
                    self.block(list(known), depth + 1, 3)

    def loop(self, known: list[SSAValue], depth: int) -> None:
        b, r = self.b, self.random
        lower = b.const(r.randrange(-2, 2))
        upper = b.const(r.choice([0, 1, 3, [0, 1, 2]])) if r.random() < 0.7 else b.and_(self.value(known), 3)
        initial = [self.value(known) for _ in range(r.randrange(3))]
        with b.loop_carrying(lower, upper, initial, step=r.choice([1, 2])) as loop:
            inner = [*known, loop.counter, *loop.carried]
            self.block(inner, depth + 1, 5)
            following = [r.choice([*loop.carried, self.value(inner)]) for _ in initial]
            loop.next = following
        known += loop.results

    def block(self, known: list[SSAValue], depth: int, count: int) -> None:
        for _ in range(self.random.randrange(1, count + 1)):
            self.statement(known, depth)
        del known[: max(0, len(known) - 8)]


def allocated(module: ModuleOp) -> sram.ProgramOp:
    AllocatePass().run(module, PassContext(machine=TARGET))
    module.verify()
    (program,) = module.body.block.ops
    assert isinstance(program, sram.ProgramOp)
    return program


def _spills(event: tuple[object, ...]) -> bool:
    """Whether an event is the store of a scalar that the registers cannot hold."""
    name, operands = event[:2]
    return name == "sw" and isinstance(operands, tuple) and operands[1] in SPILLED


def compare(module: ModuleOp) -> None:
    reference = parse_module(str(module))
    (original,) = reference.body.block.ops
    assert isinstance(original, sram.ProgramOp)
    program = allocated(module)
    addresses = {
        op.sym_name.data: op.address.value.data
        for op in program.body.walk()
        if isinstance(op, AllocOp) and op.address is not None
    }
    code = encode_program(program)
    for index, number in enumerate(CORES):
        expected = Reference(number, index=index, addresses=addresses)
        expected.run(original.body.block)
        found = Machine(number)
        found.run(code.of(index))
        assert [event for event in found.events if not _spills(event)] == expected.events
        kept = {address: word for address, word in found.memory.items() if address not in SPILLED}
        assert kept == expected.memory


@pytest.mark.parametrize("seed", range(60))
def test_random_program(seed: int) -> None:
    generator = Generator(seed)
    known: list[SSAValue] = []
    generator.block(known, 0, 25)
    for value in known:
        generator.b.sw(value, generator.b.const(4096))
    compare(ModuleOp([generator.program]))


def test_swap_of_carried_values() -> None:
    b, program = SramBuilder.program("main", CORES)
    with b.loop_carrying(0, 5, [1, 2, 3]) as loop:
        x, y, z = loop.carried
        loop.next = [y, z, x]
    for index, value in enumerate(loop.results):
        b.sw(value, 4 * index)
    compare(ModuleOp([program]))


def test_many_constants_in_one_place() -> None:
    b, program = SramBuilder.program("main", CORES)
    with b.loop(0, 3) as i:
        for k in range(40):
            b.vadd_h(100000 + k, b.add(i, 200000 + k), 300000 + k, 400000 + k)
        for k in range(40):
            b.vadd_h(100000 + k, i, 300000 + k, 7)
    compare(ModuleOp([program]))


def test_values_that_are_too_many_are_kept_in_memory() -> None:
    b, program = SramBuilder.program("main", CORES)
    values = [b.add(b.lw(4 * i), i) for i in range(70)]
    with b.loop(0, 3) as i:
        inner = [b.mul(value, b.add(i, k)) for k, value in enumerate(values)]
        with b.if_(i, "lt", 2):
            for k, value in enumerate(inner):
                b.sw(b.add(value, values[-1 - k]), 4 * (100 + k))
    for k, value in enumerate(values):
        b.sw(value, 4 * (200 + k))
    compare(ModuleOp([program]))


def test_carried_values_that_are_too_many_are_refused() -> None:
    b, program = SramBuilder.program("main", CORES)
    with b.loop_carrying(0, 5, list(range(30))) as loop:
        loop.next = [b.add(value, 1) for value in loop.carried]
    for index, value in enumerate(loop.results):
        b.sw(value, 4 * index)
    with pytest.raises(InputError, match="more than 27 scalar values"):
        allocated(ModuleOp([program]))


def test_constants_of_an_innermost_loop_are_loaded_once() -> None:
    b, program = SramBuilder.program("main", CORES)
    with b.loop(0, 8) as i:
        b.vadd_h(1000, 2000, i, 3000)
    module = ModuleOp([program])
    program = allocated(module)
    (loop,) = [op for op in program.body.walk() if isinstance(op, sram.ForOp)]
    assert not [op for op in loop.body.walk() if isinstance(op, sram.ConstOp)]
    assert len(encode_program(program).words) == 4 + 1 + 1 + 2 + 1  # constants and bound, counter, vadd, branch, halt


def test_configuration_is_set_once() -> None:
    b, program = SramBuilder.program("main", CORES)
    b.vredp(0, 0, 16, parts=2)
    b.vredp(0, 0, 32, parts=2)
    with b.loop(0, 8) as i:
        b.vrope(0, 0, 0, i, head_dim=64)
        b.vredp(0, 0, i, parts=b.add(i, 1))
    b.vredp(0, 0, 16, parts=2)
    program = allocated(ModuleOp([program]))
    set_in_loop = [op for op in program.body.walk() if op.name == "sram.cfg" and isinstance(op.parent_op(), sram.ForOp)]
    assert len([op for op in program.body.walk() if op.name == "sram.cfg"]) == 4
    assert len(set_in_loop) == 1
