"""Words of core programs and streams, from operations that ``allocate`` has given registers and addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from pimc.backends.assemble import Assembler, Label, Value
from pimc.backends.fold import signed
from pimc.backends.order import identity, runs_at_least_once
from pimc.diagnostics import InputError
from pimc.ir import hbm
from pimc.ir.code_ops import Code
from pimc.ir.instruction_ops import LocalAddressAttr, numbers
from pimc.ir.locations import where
from pimc.ir.sram import SramInstruction
from pimc.ir.sram_control import ForOp, IfOp, ProgramOp, YieldOp
from pimc.ir.sram_structure import AddressOp, AllocOp, ArrivedOp, ConstOp, KeepOp, PortOp
from pimc.isa.hbm import HBM_ISA
from pimc.isa.spec import OperandKind
from pimc.isa.sram import SRAM_ISA

#: The branch that is taken where a predicate of ``sram.if`` does not hold.
_INVERSE: Mapping[str, str] = MappingProxyType({"eq": "bne", "ne": "beq", "lt": "bge", "ge": "blt"})

#: Instructions for one agent: mnemonic and operands.
_Lines: TypeAlias = list[tuple[str, tuple[Value, ...]]]


def encode_program(program: ProgramOp) -> Code:
    """The words of a program of the cores; a missing final ``halt`` is added.

    Raises :class:`InputError` for operations that ``allocate`` should have replaced.
    """
    emitter = _CoreEmitter(Assembler(SRAM_ISA, program.core_numbers))
    emitter.block(program.body.block)
    if not _ends_in_halt(program.body.block):
        emitter.assembler.add(program, "halt")
    return emitter.assembler.code(program.entry.data)


def encode_stream(stream: hbm.ProgramOp) -> Code:
    """The words of a stream of the controllers; a missing final ``halt`` is added."""
    assembler = Assembler(HBM_ISA, stream.group_numbers)
    _stream_block(assembler, stream.body.block)
    if not _ends_in_halt(stream.body.block):
        assembler.add(stream, "halt")
    return assembler.code(stream.entry.data)


def _ends_in_halt(block: Block) -> bool:
    last = block.last_op
    return isinstance(last, SramInstruction | hbm.HbmCommand) and last.INSTRUCTION.mnemonic == "halt"


def _stream_block(assembler: Assembler, block: Block) -> None:
    for op in block.ops:
        if isinstance(op, hbm.LoopOp):
            assembler.add(op, "loop", numbers(op.rs), numbers(op.imm))
            _stream_block(assembler, op.body.block)
            assembler.add(op, "endl")
        elif isinstance(op, hbm.HbmCommand):
            values = [op.properties[operand.name] for operand in op.INSTRUCTION.operands]
            if any(isinstance(value, LocalAddressAttr) for value in values):
                raise InputError(
                    f"{op.name} has the address of a buffer that is not resolved",
                    hint="run allocate before emit",
                    where=where(op),
                )
            assembler.add(op, op.INSTRUCTION.mnemonic, *(numbers(value) for value in values))
        else:
            raise _unexpected(op)


def register_of(value: SSAValue) -> int:
    """The register that ``allocate`` gave a value; raises :class:`InputError` where it gave none."""
    attribute = None
    if isinstance(value, BlockArgument):
        loop = value.block.parent_op()
        attribute = loop.attributes.get("registers") if loop is not None else None
        index = value.index
    else:
        assert isinstance(value.owner, Operation)  # what is no block argument is a result
        owner = value.owner
        attribute = owner.attributes.get("registers", owner.attributes.get("register"))
        index = 1 + next(i for i, result in enumerate(owner.results) if result is value)
    if isinstance(attribute, IntegerAttr):
        return attribute.value.data
    if isinstance(attribute, DenseArrayBase):
        return numbers(attribute)[index]
    owner_op = value.owner if isinstance(value.owner, Operation) else value.owner.parent_op()
    raise InputError(
        "a scalar value has no register",
        hint="run allocate before emit",
        where=where(owner_op) if owner_op is not None else None,
    )


def constant_lines(register: int, values: Sequence[int], *, wide: bool = False) -> list[_Lines]:
    """Instructions that load constants, word by word; each word one instruction for all agents, or one an
    agent.

    All agents take as many words as the longest; ``wide``: two in any case.
    """
    short = [None if wide else _short_constant(register, value) for value in values]
    if all(line is not None for line in short):
        return [[line for line in short if line is not None]]
    bits = [value & 0xFFFFFFFF for value in values]
    return [
        [("lui", (register, value >> 16)) for value in bits],
        [("ori", (register, register, value & 0xFFFF)) for value in bits],
    ]


def _short_constant(register: int, value: int) -> tuple[str, tuple[Value, ...]] | None:
    number = signed(value)
    if -(1 << 15) <= number < 1 << 15:
        return "addi", (register, 0, number)
    if 0 <= number < 1 << 16:
        return "ori", (register, 0, number)
    if number & 0xFFFF == 0:
        return "lui", (register, (number >> 16) & 0xFFFF)
    return None


class _CoreEmitter:
    """Emits the operations of a core program in order."""

    def __init__(self, assembler: Assembler) -> None:
        self.assembler = assembler

    def block(self, block: Block) -> None:
        """Emit a block."""
        for op in block.ops:
            if isinstance(op, SramInstruction):
                self._instruction(op)
            elif isinstance(op, ConstOp):
                if "register" in op.attributes:
                    self._constant(op, register_of(op.result), op.result)
            elif isinstance(op, ForOp):
                self._loop(op)
            elif isinstance(op, IfOp):
                self._if(op)
            elif not isinstance(op, AllocOp | ArrivedOp | KeepOp | PortOp | YieldOp):
                raise _unexpected(op)

    def _instruction(self, op: SramInstruction) -> None:
        if op.config_values:
            raise InputError(
                f"{op.name} still has configuration operands",
                hint="run allocate before emit",
                where=where(op),
            )
        reads = iter(op.operands)
        values: list[Value] = []
        for operand in op.INSTRUCTION.operands:
            if operand.kind is not OperandKind.REGISTER:
                values.append(numbers(op.properties[operand.name]))
            elif operand.writes:
                values.append(register_of(op.results[0]))
            else:
                values.append(register_of(next(reads)))
        self.assembler.add(op, op.INSTRUCTION.mnemonic, *values)

    def _constant(self, op: Operation, register: int, value: SSAValue) -> None:
        found = identity(value)
        if register == 0 or found is None:
            return
        for line in constant_lines(register, found.values, wide=bool(found.origin)):
            if len(line) == 1:
                self.assembler.add(op, line[0][0], *line[0][1])
            else:
                self.assembler.add_each(op, line)

    def _move(self, op: Operation, moves: Sequence[tuple[int, SSAValue]]) -> None:
        """Parallel moves of values into registers, constants last (they read nothing)."""
        pending = {to: register_of(value) for to, value in moves if identity(value) is None}
        pending = {to: source for to, source in pending.items() if to != source}
        while pending:
            ready = [to for to in pending if to not in pending.values()]
            if ready:
                self.assembler.add(op, "add", ready[0], pending.pop(ready[0]), 0)
                continue
            to, source = next(iter(pending.items()))  # only cycles are left: swap two registers
            for left, right in ((to, source), (source, to), (to, source)):
                self.assembler.add(op, "xor", left, left, right)
            del pending[to]
            pending = {t: (source if s == to else s) for t, s in pending.items()}
            pending = {t: s for t, s in pending.items() if t != s}
        for to, value in moves:
            self._constant(op, to, value)

    def _loop(self, op: ForOp) -> None:
        counter, *carried = (register_of(argument) for argument in op.body.block.args)
        self._move(op, [(counter, op.lower), *zip(carried, op.initial, strict=True)])
        head, end = Label(), Label()
        if not runs_at_least_once(op):
            self.assembler.add(op, "bge", counter, register_of(op.upper), end)
        self.assembler.place(head)
        self.block(op.body.block)
        self._move(op, list(zip(carried, op.next_values, strict=True)))
        self.assembler.add(op, "addi", counter, counter, op.step.value.data)
        bound = op.attributes.get("bound")
        upper = bound.value.data if isinstance(bound, IntegerAttr) else register_of(op.upper)
        self.assembler.add(op, "blt", counter, upper, head)
        self.assembler.place(end)

    def _if(self, op: IfOp) -> None:
        left, right = register_of(op.left), register_of(op.right)
        other, end = Label(), Label()
        self.assembler.add(op, _INVERSE[op.predicate.data], left, right, other)
        self.block(op.then_region.block)
        if op.else_region.block.first_op is not None:
            self.assembler.add(op, "beq", 0, 0, end)
            self.assembler.place(other)
            self.block(op.else_region.block)
        else:
            self.assembler.place(other)
        self.assembler.place(end)


def _unexpected(op: Operation) -> InputError:
    hint = "run allocate before emit" if isinstance(op, AddressOp) else None
    return InputError(f"{op.name} cannot be emitted", hint=hint, where=where(op))


def port_name(op: PortOp) -> str:
    """The name of the port a piece belongs to."""
    name = op.port
    assert isinstance(name, StringAttr)  # its definition says so
    return name.data
