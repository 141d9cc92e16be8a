"""Two meanings of a core program for differential tests: the IR before ``allocate``, and the words after ``emit``.

Both give the events of a core: every instruction that is not scalar arithmetic, with the values of its registers and
configuration registers.  Local memory holds only what ``sw`` stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Block, SSAValue

from pimc.ir import sram
from pimc.ir.instruction_ops import numbers
from pimc.ir.sram_structure import AllocOp
from pimc.isa.codec import decode
from pimc.isa.spec import Instruction, OperandKind
from pimc.isa.sram import CONFIG_REGISTERS, SRAM_ISA

Event = tuple[str, tuple[int, ...]]
LIMIT = 200_000


def signed(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def arithmetic(mnemonic: str, a: int, b: int) -> int:
    unsigned_a, unsigned_b = a & 0xFFFFFFFF, b & 0xFFFFFFFF
    table = {
        "add": a + b, "sub": a - b, "mul": a * b, "and": a & b, "or": a | b, "xor": a ^ b,
        "sll": a << (b & 31), "srl": unsigned_a >> (b & 31), "sra": a >> (b & 31),
        "slt": int(a < b), "sltu": int(unsigned_a < unsigned_b), "min": min(a, b), "max": max(a, b),
    }  # fmt: skip
    return signed(table[mnemonic])


IMMEDIATE = {"addi": "add", "ori": "or", "andi": "and", "slli": "sll", "srli": "srl", "srai": "sra"}


@dataclass
class Core:
    """State common to both machines."""

    number: int
    memory: dict[int, int] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def scalar(self, instruction: Instruction, reads: list[int], immediates: list[int]) -> int | None:
        """The result of a scalar instruction, or None after recording another one as an event."""
        name = instruction.mnemonic
        if name in IMMEDIATE:
            return arithmetic(IMMEDIATE[name], reads[0], immediates[0])
        if name == "lui":
            return signed(immediates[0] << 16)
        if name == "cid":
            return self.number
        if name == "lw":
            return self.memory.get(reads[0] + immediates[0], 0)
        if name == "sw":
            self.memory[reads[1] + immediates[0]] = reads[0]
        if instruction.unit == "scu" and instruction.operands and instruction.operands[0].writes:
            return arithmetic(name, *reads)
        return None

    def record(self, instruction: Instruction, reads: list[int], immediates: list[int], config: list[int]) -> None:
        self.events.append((instruction.mnemonic, (*reads, *immediates, *config)))


@dataclass
class Reference(Core):
    """Runs the IR; ``addresses`` are those that ``allocate`` chose."""

    index: int = 0
    addresses: Mapping[str, int] = field(default_factory=dict)
    values: dict[SSAValue, int] = field(default_factory=dict)

    def pick(self, values: tuple[int, ...]) -> int:
        return values[0] if len(values) == 1 else values[self.index]

    def run(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, sram.ConstOp):
                self.values[op.result] = signed(self.pick(numbers(op.values)))
            elif isinstance(op, sram.AddressOp):
                alloc = op.buffer.owner
                assert isinstance(alloc, AllocOp)
                self.values[op.result] = self.addresses[alloc.sym_name.data] + self.pick(numbers(op.offset))
            elif isinstance(op, sram.ForOp):
                self.loop(op)
            elif isinstance(op, sram.IfOp):
                a, b = self.values[op.left], self.values[op.right]
                taken = {"eq": a == b, "ne": a != b, "lt": a < b, "ge": a >= b}[op.predicate.data]
                self.run((op.then_region if taken else op.else_region).block)
            elif isinstance(op, sram.SramInstruction):
                self.instruction(op)

    def loop(self, op: sram.ForOp) -> None:
        counter, upper = self.values[op.lower], self.values[op.upper]
        carried = [self.values[value] for value in op.initial]
        while counter < upper:
            self.values[op.counter] = counter
            self.values.update(zip(op.carried, carried, strict=True))
            self.run(op.body.block)
            carried = [self.values[value] for value in op.next_values]
            counter += op.step.value.data
        self.values.update(zip(op.finals, carried, strict=True))

    def instruction(self, op: sram.SramInstruction) -> None:
        reads = [self.values[value] for value in op.operands[: len(op.read_operands())]]
        immediates = [self.pick(numbers(op.properties[o.name])) for o in op.immediate_operands()]
        result = self.scalar(op.INSTRUCTION, reads, immediates)
        if result is not None:
            self.values[op.results[0]] = result
        else:
            config = [self.values[value] for value in op.config_values]
            self.record(op.INSTRUCTION, reads, immediates, config)


@dataclass
class Machine(Core):
    """Runs words."""

    registers: list[int] = field(default_factory=lambda: [0] * 32)
    config: dict[int, int] = field(default_factory=dict)

    def run(self, words: NDArray[np.unsignedinteger]) -> None:
        pc = 0
        for _ in range(LIMIT):
            instruction, operands = decode(SRAM_ISA, int(words[pc]))
            if instruction.mnemonic == "halt":
                return
            pc += self.step(instruction, operands)
        raise AssertionError("the program does not end")

    def step(self, instruction: Instruction, operands: tuple[int, ...]) -> int:
        reads, immediates, write = [], [], 0
        for operand, value in zip(instruction.operands, operands, strict=True):
            if operand.kind is not OperandKind.REGISTER:
                immediates.append(value)
            elif operand.writes:
                write = value
            else:
                reads.append(self.registers[value])
        if instruction.latency == "branch":
            a, b = reads
            taken = {"beq": a == b, "bne": a != b, "blt": a < b, "bge": a >= b}[instruction.mnemonic]
            return immediates[0] if taken else 1
        if instruction.mnemonic == "cfg":
            self.config[immediates[0]] = reads[0]
            return 1
        result = self.scalar(instruction, reads, immediates)
        if result is None:
            config = [self.config[CONFIG_REGISTERS[name][0]] for name in instruction.config]
            self.record(instruction, reads, immediates, config)
        elif write:
            self.registers[write] = result
        return 1
