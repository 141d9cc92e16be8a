"""Builders for the programs of the cores and the streams of the controllers: what a lowering is written with.

One method an instruction, from the ISA tables: ``b.vadd_h(dst, a, b, n)`` takes the register operands in table
order (values of ``!sram.reg``; an ``int`` becomes a constant), immediates by name (``b.addi(x, imm=4)``,
``b.wait(sem=3, imm=4)``) and configuration by name (``b.vredp(dst, a, n, parts=2)``).  See docs/backend.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from xdsl.dialects.builtin import LocationAttr, UnknownLoc
from xdsl.ir import Attribute, Block, Operation, SSAValue

from pimc.ir import hbm, sram
from pimc.ir.instruction_ops import LocalAddressAttr, Number, identifier
from pimc.isa.hbm import MASK
from pimc.isa.sram_rows import ROWS, STRIDES, SUFFIX, moving_operands

OpT = TypeVar("OpT", bound=Operation)

#: A register operand: a value, or a number that becomes a constant.
Register: TypeAlias = "SSAValue | int"
#: Rows of an operand: the address of the first one, and the bytes from each to the next.
Place: TypeAlias = "tuple[Register, Register]"
#: A named operand: an immediate, or a configuration value.
Named: TypeAlias = "SSAValue | Number"

_SRAM_METHODS = {identifier(mnemonic): op for mnemonic, op in sram.INSTRUCTION_OPS.items()}
_HBM_METHODS = {identifier(mnemonic): op for mnemonic, op in hbm.COMMAND_OPS.items()}


@dataclass
class _BlockBuilder:
    """Appends operations to a block, with a location; regions nest."""

    block: Block
    location: LocationAttr = field(default_factory=UnknownLoc)

    def insert(self, op: OpT) -> OpT:
        """Append ``op`` here, with the current location."""
        op.location = self.location
        self.block.add_op(op)
        return op

    def at(self, location: LocationAttr) -> None:
        """Give this location to every operation from here on."""
        self.location = location

    @contextmanager
    def located(self, location: LocationAttr) -> Iterator[None]:
        """Give this location to the operations inserted meanwhile."""
        before, self.location = self.location, location
        try:
            yield
        finally:
            self.location = before

    @contextmanager
    def inside(self, block: Block) -> Iterator[None]:
        """Insert at the end of ``block`` meanwhile."""
        before, self.block = self.block, block
        try:
            yield
        finally:
            self.block = before


@dataclass
class CarriedLoop:
    """A loop with carried values: set ``next`` in its body; ``results`` are the values after the loop."""

    counter: SSAValue
    carried: tuple[SSAValue, ...]
    next: Sequence[SSAValue]
    results: tuple[SSAValue, ...]


class SramBuilder(_BlockBuilder):
    """Builds a program of the cores; see the module."""

    @classmethod
    def of(cls, program: sram.ProgramOp) -> SramBuilder:
        """A builder at the end of a program."""
        return cls(program.body.block, program.location)

    @classmethod
    def program(cls, entry: str, cores: Iterable[int]) -> tuple[SramBuilder, sram.ProgramOp]:
        """A new program and its builder."""
        op = sram.ProgramOp(entry, cores)
        return cls.of(op), op

    # -- constants and buffers -------------------------------------------------------------------------------

    def const(self, values: int | Iterable[int], origin: str | None = None) -> SSAValue:
        """A 32-bit constant: one for all cores, or one a core in the order of the program's cores.

        ``origin`` names what a number that depends on the layout of memory is; see ``sram.const``.
        """
        return self.insert(sram.ConstOp(values, origin)).result

    def alloc(
        self, name: str, size: int, *, memory: str = "activation", align: int = 32, remote: bool = False
    ) -> SSAValue:
        """A buffer of ``size`` bytes in every core.

        ``name`` is unique in the program (streams refer to it); ``remote``: other cores write it by messages.
        """
        return self.insert(sram.AllocOp(name, size, memory=memory, align=align, remote=remote)).buffer

    def address(self, buffer: SSAValue, offset: int | Iterable[int] = 0) -> SSAValue:
        """A register with the address of byte ``offset`` (one, or one a core) of a buffer."""
        return self.insert(sram.AddressOp(buffer, offset)).result

    def keep(self, buffer: SSAValue) -> None:
        """The buffer is in use at this place by another agent: the stream, or other cores."""
        self.insert(sram.KeepOp(buffer))

    def arrived(self, buffer: SSAValue) -> None:
        """Say that instructions so far have waited for all transfers into ``buffer``."""
        self.insert(sram.ArrivedOp(buffer))

    def port(
        self,
        buffer: SSAValue,
        name: str,
        direction: str,
        dtype: str,
        shape: Sequence[int],
        *,
        start: int | Iterable[int] = 0,
        offset: int | Iterable[int] = 0,
        count: int | Iterable[int] | None = None,
        range: tuple[int, int] | None = None,  # the word of the file format
    ) -> None:
        """Say that the bytes of ``buffer`` from ``start`` on are elements of the entry's port ``name``.

        ``direction`` is input or output, ``dtype`` f16, f32 or i32, ``shape`` that of the whole tensor; elements
        ``offset`` .. ``offset + count`` of the flat tensor, one number or one a core (``count`` None: all, 0: none
        here).  ``range``: the least and the greatest value that the host may give.
        """
        self.insert(
            sram.PortOp(buffer, name, direction, dtype, shape, start=start, offset=offset, count=count, range=range)
        )

    # -- control ---------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, lower: Register, upper: Register, step: int = 1) -> Iterator[SSAValue]:
        """A loop from ``lower`` while below ``upper`` (signed); gives the counter."""
        op = self.insert(sram.ForOp(self.register(lower), self.register(upper), step))
        with self.inside(op.body.block):
            yield op.counter
            self.insert(sram.YieldOp())

    @contextmanager
    def loop_carrying(
        self, lower: Register, upper: Register, initial: Sequence[Register], step: int = 1
    ) -> Iterator[CarriedLoop]:
        """A loop with scalars carried from one iteration to the next: see :class:`CarriedLoop`."""
        first, last = self.register(lower), self.register(upper)
        op = self.insert(sram.ForOp(first, last, step, [self.register(value) for value in initial]))
        loop = CarriedLoop(op.counter, tuple(op.carried), tuple(op.carried), tuple(op.finals))
        with self.inside(op.body.block):
            yield loop
            self.insert(sram.YieldOp(*loop.next))

    @contextmanager
    def if_(self, left: Register, predicate: str, right: Register) -> Iterator[sram.IfOp]:
        """What is inserted meanwhile runs if ``left predicate right`` (eq, ne, lt or ge, signed)."""
        op = self.insert(sram.IfOp(self.register(left), predicate, self.register(right)))
        with self.inside(op.then_region.block):
            yield op

    @contextmanager
    def else_(self, op: sram.IfOp) -> Iterator[None]:
        """What is inserted meanwhile runs if the condition of ``op`` (given by ``if_``) does not hold."""
        with self.inside(op.else_region.block):
            yield

    # -- instructions ----------------------------------------------------------------------------------------

    def register(self, value: Register) -> SSAValue:
        """The value, or a constant of the number."""
        return value if isinstance(value, SSAValue) else self.const(value)

    def emit(self, name: str, *registers: Register, **named: Named) -> sram.SramInstruction:
        """Insert the instruction of this name (``vadd_h`` or ``vadd.h``); gives the operation.

        Raises ``TypeError`` for operands that are not the instruction's, ``AttributeError`` for an unknown
        name.
        """
        op_class = _SRAM_METHODS.get(identifier(name))
        if op_class is None:
            raise AttributeError(f"the cores have no instruction {name!r}")
        config: dict[str, SSAValue] = {}
        immediates: dict[str, Number] = {}
        for key, value in named.items():
            if key not in op_class.INSTRUCTION.config:
                if isinstance(value, SSAValue):
                    raise TypeError(f"{op_class.name}: {key} is no configuration register it reads")
                immediates[key] = value
            elif isinstance(value, SSAValue | int):
                config[key] = self.register(value)
            else:
                raise TypeError(f"{op_class.name}: {key} must be a register or a number")
        if op_class.INSTRUCTION.config and not config:
            raise TypeError(f"{op_class.name} needs {', '.join(op_class.INSTRUCTION.config)}")
        return self.insert(op_class.build_op([self.register(value) for value in registers], immediates, config))

    def on_rows(self, name: str, rows: Register, *places: Place, n: Register, **named: Named) -> None:
        """Insert a vector instruction on ``n`` elements of each of ``rows`` rows: one dispatch, whatever their number.

        ``places`` are its operands but the last one, in table order: the address of the first row, and the bytes from
        each row to the next.
        """
        addresses = [address for address, _ in places]
        if isinstance(rows, int) and rows == 1:
            self.emit(name, *addresses, n, **named)
            return
        form = _SRAM_METHODS[identifier(name + SUFFIX)]
        steps = dict(
            zip((operand.name for operand in form.read_operands()), (step for _, step in places), strict=False)
        )
        strides = {STRIDES[operand]: steps[operand] for operand in moving_operands(form.INSTRUCTION)}
        self.emit(name + SUFFIX, *addresses, n, **named, **{ROWS: rows}, **strides)

    def _scalar(self, name: str, *registers: Register, **immediates: Named) -> SSAValue:
        return self.emit(name, *registers, **immediates).results[0]

    def add(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 + rs2."""
        return self._scalar("add", rs1, rs2)

    def sub(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 - rs2."""
        return self._scalar("sub", rs1, rs2)

    def mul(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 * rs2."""
        return self._scalar("mul", rs1, rs2)

    def and_(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 & rs2."""
        return self._scalar("and", rs1, rs2)

    def or_(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 | rs2."""
        return self._scalar("or", rs1, rs2)

    def xor(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 ^ rs2."""
        return self._scalar("xor", rs1, rs2)

    def sll(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 << rs2."""
        return self._scalar("sll", rs1, rs2)

    def srl(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 >> rs2, logical."""
        return self._scalar("srl", rs1, rs2)

    def sra(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 >> rs2, arithmetic."""
        return self._scalar("sra", rs1, rs2)

    def slt(self, rs1: Register, rs2: Register) -> SSAValue:
        """1 if rs1 < rs2 (signed), else 0."""
        return self._scalar("slt", rs1, rs2)

    def sltu(self, rs1: Register, rs2: Register) -> SSAValue:
        """1 if rs1 < rs2 (unsigned), else 0."""
        return self._scalar("sltu", rs1, rs2)

    def min(self, rs1: Register, rs2: Register) -> SSAValue:
        """The signed minimum."""
        return self._scalar("min", rs1, rs2)

    def max(self, rs1: Register, rs2: Register) -> SSAValue:
        """The signed maximum."""
        return self._scalar("max", rs1, rs2)

    def divu(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 / rs2, unsigned."""
        return self._scalar("divu", rs1, rs2)

    def remu(self, rs1: Register, rs2: Register) -> SSAValue:
        """rs1 mod rs2, unsigned."""
        return self._scalar("remu", rs1, rs2)

    def addi(self, rs1: Register, imm: int) -> SSAValue:
        """rs1 + imm."""
        return self._scalar("addi", rs1, imm=imm)

    def ori(self, rs1: Register, imm: int) -> SSAValue:
        """rs1 | imm."""
        return self._scalar("ori", rs1, imm=imm)

    def andi(self, rs1: Register, imm: int) -> SSAValue:
        """rs1 & imm."""
        return self._scalar("andi", rs1, imm=imm)

    def slli(self, rs1: Register, imm: int) -> SSAValue:
        """rs1 << imm."""
        return self._scalar("slli", rs1, imm=imm)

    def srli(self, rs1: Register, imm: int) -> SSAValue:
        """rs1 >> imm, logical."""
        return self._scalar("srli", rs1, imm=imm)

    def srai(self, rs1: Register, imm: int) -> SSAValue:
        """rs1 >> imm, arithmetic."""
        return self._scalar("srai", rs1, imm=imm)

    def lw(self, rs1: Register, imm: int = 0) -> SSAValue:
        """The 32-bit word of local memory at rs1 + imm."""
        return self._scalar("lw", rs1, imm=imm)

    def cid(self) -> SSAValue:
        """The number of this core."""
        return self._scalar("cid")

    def sw(self, value: Register, rs1: Register, imm: int = 0) -> None:
        """Store a 32-bit word to local memory at rs1 + imm."""
        self.emit("sw", value, rs1, imm=imm)

    def wait(self, count: Register = 0, *, sem: int, imm: int = 0) -> None:
        """Wait until semaphore ``sem`` reaches count + imm, and subtract that."""
        self.emit("wait", count, sem=sem, imm=imm)

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The instructions without a scalar result, by name."""
        if name.startswith("_") or name not in _SRAM_METHODS:
            raise AttributeError(f"SramBuilder has no attribute or instruction {name!r}")

        def instruction(*registers: Register, **named: Named) -> None:
            self.emit(name, *registers, **named)

        return instruction

    def __dir__(self) -> Iterable[str]:
        """Attributes and instructions."""
        return sorted({*super().__dir__(), *_SRAM_METHODS})


@dataclass
class HbmBuilder(_BlockBuilder):
    """Builds a stream of the controllers: ``b.mac(column=0, buffer=0, count=32, result=0, clear=1)``.

    All operands are named; ``mask`` is all pseudo-channels of the group unless given; a local address may be
    ``HbmBuilder.local("x", 64)``.
    """

    channels: int = MASK.field.width

    @classmethod
    def of(cls, program: hbm.ProgramOp, channels: int = MASK.field.width) -> HbmBuilder:
        """A builder at the end of a stream of groups with so many pseudo-channels."""
        return cls(program.body.block, program.location, channels)

    @classmethod
    def program(cls, entry: str, groups: Iterable[int]) -> tuple[HbmBuilder, hbm.ProgramOp]:
        """A new stream and its builder."""
        op = hbm.ProgramOp(entry, groups)
        return cls.of(op), op

    @staticmethod
    def local(buffer: str, offset: int = 0) -> Attribute:
        """The address of byte ``offset`` of the buffer of that name on the tile's core."""
        return LocalAddressAttr.get(buffer, offset)

    @contextmanager
    def loop(self, imm: Number, rs: int = 0) -> Iterator[None]:
        """Run what is inserted meanwhile h[rs] + imm times (h0 is zero unless the program sets it)."""
        op = self.insert(hbm.LoopOp(imm, rs))
        with self.inside(op.body.block):
            yield

    def emit(self, name: str, **values: Number) -> hbm.HbmCommand:
        """Insert the command of this name; raises ``TypeError`` for operands that are not the command's."""
        op_class = _HBM_METHODS.get(identifier(name))
        if op_class is None:
            raise AttributeError(f"the controllers have no command {name!r}")
        if MASK in op_class.INSTRUCTION.operands:
            values.setdefault(MASK.name, (1 << self.channels) - 1)
        return self.insert(op_class.build_op(**values))

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The commands, by name."""
        if name.startswith("_") or name not in _HBM_METHODS:
            raise AttributeError(f"HbmBuilder has no attribute or command {name!r}")

        def command(**values: Number) -> None:
            self.emit(name, **values)

        return command
