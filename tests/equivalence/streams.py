"""What the streams of the cores do, one after the other: effects with their numbers.

A core's control flow and addresses depend on its registers and on words of its local memory that it or the host
wrote, so they can be followed without any data: :func:`core_effects` gives every instruction that does more than
change a register. That no one else wrote those words is checked later (``replay.py``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pimc.isa.program import LoadedProgram
from pimc.isa.spec import Instruction, OperandKind
from pimc.isa.sram import SRAM_ISA
from pimc.isa.sram_fields import CONFIG_REGISTERS

_LIMIT = 1 << 20
_LOW = 0xFFFFFFFF

Inputs = Mapping[str, NDArray[np.generic]]


class CannotTellError(Exception):
    """The checker cannot follow the program, or the programs differ; the message says where."""


@dataclass(frozen=True, slots=True)
class Effect:
    """An executed instruction: operand values (registers replaced by their contents) and captured configuration."""

    mnemonic: str
    values: tuple[int, ...]
    config: tuple[int, ...]
    pc: int = field(compare=False)

    @property
    def named(self) -> dict[str, int]:
        """Operands and configuration by name."""
        instruction = SRAM_ISA.instructions[SRAM_ISA.index[self.mnemonic]]
        operands = {operand.name: value for operand, value in zip(instruction.operands, self.values, strict=True)}
        return operands | dict(zip(instruction.config, self.config, strict=True))


def signed(value: int) -> int:
    """The 32-bit two's-complement number of the low bits."""
    return ((value & _LOW) ^ 0x80000000) - 0x80000000


#: Scalar instructions of two operands; the forms with an immediate do the same.
_SCALAR: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "add": operator.add,
        "sub": operator.sub,
        "mul": operator.mul,
        "and": operator.and_,
        "or": operator.or_,
        "xor": operator.xor,
        "sll": lambda a, b: a << (b & 31),
        "srl": lambda a, b: (a & _LOW) >> (b & 31),
        "sra": lambda a, b: a >> (b & 31),
        "slt": lambda a, b: int(a < b),
        "sltu": lambda a, b: int((a & _LOW) < (b & _LOW)),
        "min": min,
        "max": max,
        "divu": lambda a, b: (a & _LOW) // (b & _LOW),
        "remu": lambda a, b: (a & _LOW) % (b & _LOW),
    }
)
_BRANCH: Mapping[str, Callable[[int, int], bool]] = MappingProxyType(
    {"beq": operator.eq, "bne": operator.ne, "blt": operator.lt, "bge": operator.ge}
)


def input_words(program: LoadedProgram, entry: str, core: int, inputs: Inputs) -> dict[int, int]:
    """The 16-bit words that the host writes to a core before the entry, by byte address."""
    words: dict[int, int] = {}
    for port in program.entries[entry].inputs:
        dtype = {"f16": "<f2", "f32": "<f4", "i32": "<i4"}[port.dtype]
        flat = np.ascontiguousarray(inputs[port.name], dtype).reshape(-1)
        for piece in port.pieces:
            if piece.core == core:
                halves = flat[piece.offset : piece.offset + piece.count].view(np.uint16)
                words.update((piece.address + 2 * i, int(half)) for i, half in enumerate(halves))
    return words


@dataclass
class _Core:
    """The scalar state of a core."""

    number: int
    memory: dict[int, int]
    registers: list[int] = field(default_factory=lambda: [0] * 32)
    config: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(16), 0))

    def value(self, instruction: Instruction, index: int, raw: int) -> int:
        """The value of an operand that is read."""
        operand = instruction.operands[index]
        return self.registers[raw] if operand.kind is OperandKind.REGISTER and not operand.writes else raw

    def set(self, register: int, value: int) -> None:
        """Write a register; r0 stays zero."""
        if register:
            self.registers[register] = signed(value)

    def load(self, address: int) -> int:
        """A 32-bit word that this core or the host wrote."""
        if address not in self.memory or address + 2 not in self.memory:
            raise CannotTellError(f"core {self.number} branches or addresses by computed data (byte {address})")
        return signed(self.memory[address] | self.memory[address + 2] << 16)

    def store(self, address: int, value: int) -> None:
        """Write a 32-bit word."""
        self.memory[address], self.memory[address + 2] = value & 0xFFFF, value >> 16 & 0xFFFF


def core_effects(program: LoadedProgram, entry: str, number: int, inputs: Inputs) -> list[Effect]:
    """Every instruction of a core that does more than change a register, in the order executed."""
    decoded = program.decoded[program.entries[entry].cores[number]]
    rows = [
        (SRAM_ISA.instructions[op], tuple(values))
        for op, values in zip(decoded.op, decoded.operands.tolist(), strict=True)
    ]
    core = _Core(number, input_words(program, entry, number, inputs))
    effects: list[Effect] = []
    pc = 0
    for _ in range(_LIMIT):
        if not 0 <= pc < len(rows):
            raise CannotTellError(f"core {number} leaves its program")
        instruction, raw = rows[pc]
        values = tuple(core.value(instruction, i, raw[i]) for i in range(len(instruction.operands)))
        pc += _step(core, instruction, values, effects, pc)
        if instruction.mnemonic == "halt":
            return effects
    raise CannotTellError(f"core {number} runs for more than {_LIMIT} instructions")


def _step(core: _Core, instruction: Instruction, values: tuple[int, ...], effects: list[Effect], pc: int) -> int:
    """Execute an instruction; returns by how much the pc moves."""
    name = instruction.mnemonic
    if name in _BRANCH:
        return values[2] if _BRANCH[name](values[0], values[1]) else 1
    if name == "cfg":
        core.config[values[0]] = values[1]
    elif name == "cid":
        core.set(values[0], core.number)
    elif name == "lui":
        core.set(values[0], values[1] << 16)
    elif name == "lw":
        loaded = core.load(values[1] + values[2])
        core.set(values[0], loaded)
        effects.append(Effect(name, (loaded, values[1] + values[2], 0), (), pc))
    elif instruction.operands and instruction.operands[0].writes:
        core.set(values[0], _SCALAR[name if name in _SCALAR else name.removesuffix("i")](values[1], values[2]))
    elif name != "nop":
        if name == "sw":
            core.store(values[1] + values[2], values[0])
        config = tuple(core.config[CONFIG_REGISTERS[register][0]] for register in instruction.config)
        effects.append(Effect(name, values, config, pc))
    return 1
