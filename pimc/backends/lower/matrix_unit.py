"""The unit that multiplies matrices, as the lowerings of products see it: the tensor unit, or the vector unit.

Both multiply blocks of at most ``rows`` by ``columns`` sums, which stay in f32 until they are written.  The vector unit
has its sums in local memory, and takes the inner dimension in pieces: operands to f32, products, sums of rows.  Sizes
are registers, so that the instructions are as many whatever the product.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override
from xdsl.ir import Operation, SSAValue

from pimc.backends.builder import Register, SramBuilder
from pimc.backends.lower.values import Buffer
from pimc.targets.target import Target

if TYPE_CHECKING:
    from pimc.backends.lower.context import LoweringContext

#: Rows of sums that the vector unit has at a time; columns and pieces of the inner dimension are its lanes.
VECTOR_ROWS = 16
_HALF, _F32 = 2, 4
OpT = TypeVar("OpT", bound=Operation)


@dataclass(frozen=True)
class Block:
    """A block of sums: at most so many rows and columns."""

    rows: int
    columns: int


def block_of(target: Target, kind: str) -> Block:
    """The block of sums of a kind of unit."""
    if kind == "vector":
        return Block(VECTOR_ROWS, target.vcu.lanes)
    return Block(target.tcu.rows, target.tcu.columns)


def scratch_bytes(target: Target, kind: str) -> int:
    """Local memory that a kind of unit takes for itself."""
    if kind != "vector":
        return 0
    return sum(size for _, size in _buffers(block_of(target, kind)))


@dataclass(frozen=True)
class Left:
    """``rows`` x ``depth`` fp16 elements from an address on, rows ``stride`` bytes apart."""

    at: Register
    stride: Register


@dataclass(frozen=True)
class Right:
    """The other operand: ``by_column`` is it stored by its columns, ``stride`` bytes apart, else by its rows."""

    at: Register
    stride: Register
    by_column: bool


class MatrixUnit(ABC):
    """What multiplies matrices: a block of sums is begun, added to, and written."""

    def __init__(self, core: SramBuilder, block: Block) -> None:
        self.core, self.rows, self.columns = core, block.rows, block.columns

    @abstractmethod
    def clear(self, rows: Register, cols: Register) -> None:
        """Begin with zeros."""

    @abstractmethod
    def load(self, at: Register, rows: Register, cols: Register, stride: Register) -> None:
        """Begin with f32 sums, rows ``stride`` bytes apart (0: one row for all)."""

    @abstractmethod
    def multiply(
        self, a: Left, b: Right, rows: Register, cols: Register, depth: Register, *, clear: bool = False
    ) -> None:
        """Add the product of ``a`` and ``b``; ``clear``: to zeros."""

    @abstractmethod
    def round(self, to: Register, rows: Register, cols: Register, stride: Register) -> None:
        """Write the sums as fp16."""

    @abstractmethod
    def store(self, to: Register, rows: Register, cols: Register, stride: Register) -> None:
        """Write the sums as f32."""


class TensorUnit(MatrixUnit):
    """The tensor unit, whose instructions these are."""

    def __init__(self, core: SramBuilder, target: Target) -> None:
        super().__init__(core, block_of(target, "systolic"))

    @override
    def clear(self, rows: Register, cols: Register) -> None:
        self.core.tmmc_nk(0, 0, rows=rows, cols=cols, depth=0, stride_a=0, stride_b=0)

    @override
    def load(self, at: Register, rows: Register, cols: Register, stride: Register) -> None:
        self.core.tld_f(at, rows=rows, cols=cols, stride_c=stride)

    @override
    def multiply(
        self, a: Left, b: Right, rows: Register, cols: Register, depth: Register, *, clear: bool = False
    ) -> None:
        name = f"tmm{'c' if clear else ''}_{'nk' if b.by_column else 'kn'}"
        self.core.emit(name, a.at, b.at, rows=rows, cols=cols, depth=depth, stride_a=a.stride, stride_b=b.stride)

    @override
    def round(self, to: Register, rows: Register, cols: Register, stride: Register) -> None:
        self.core.twb(to, rows=rows, cols=cols, stride_c=stride)

    @override
    def store(self, to: Register, rows: Register, cols: Register, stride: Register) -> None:
        self.core.twb_f(to, rows=rows, cols=cols, stride_c=stride)


def _buffers(block: Block) -> tuple[tuple[str, int], ...]:
    """The buffers of the vector unit and their bytes: sums, operands in f32, one turned, products, sums of a piece."""
    piece = block.columns
    return (
        ("sums", block.rows * block.columns * _F32),
        ("left", block.rows * piece * _F32),
        ("right", block.columns * piece * _F32),
        ("turned", block.columns * piece * _HALF),
        ("products", block.columns * piece * _F32),
        ("part", block.columns * _F32),
    )


class VectorUnit(MatrixUnit):
    """The vector unit, with its sums in local memory."""

    def __init__(self, ctx: LoweringContext) -> None:
        block = block_of(ctx.target, "vector")
        super().__init__(ctx.core, block)
        self.piece = block.columns
        self.zero = ctx.f32(0.0)
        self.buffers: dict[str, Buffer] = {name: ctx.alloc(f"vector.{name}", size) for name, size in _buffers(block)}

    def _at(self, name: str) -> SSAValue:
        return self.core.address(self.buffers[name].value)

    @property
    def _pitch(self) -> int:
        return self.columns * _F32

    @override
    def clear(self, rows: Register, cols: Register) -> None:
        sums = self._at("sums")
        self.core.vfill_f(sums, sums, self.zero, self.rows * self.columns)

    @override
    def load(self, at: Register, rows: Register, cols: Register, stride: Register) -> None:
        self._rows("vmov_f", rows, (self._at("sums"), self._pitch), (at, stride), cols)

    @override
    def round(self, to: Register, rows: Register, cols: Register, stride: Register) -> None:
        self._rows("vcvt_h", rows, (to, stride), (self._at("sums"), self._pitch), cols)

    @override
    def store(self, to: Register, rows: Register, cols: Register, stride: Register) -> None:
        self._rows("vmov_f", rows, (to, stride), (self._at("sums"), self._pitch), cols)

    @override
    def multiply(
        self, a: Left, b: Right, rows: Register, cols: Register, depth: Register, *, clear: bool = False
    ) -> None:
        core, wide = self.core, self.piece * _F32
        if clear:
            self.clear(rows, cols)
        with core.loop(core.const(0), core.register(depth), self.piece) as first:
            count = core.min(core.sub(depth, first), core.const(self.piece))
            along = core.slli(first, imm=1)
            self._rows("vcvt_f", rows, (self._at("left"), wide), (core.add(a.at, along), a.stride), count)
            self._widen(b, cols, first, along, count)
            ends = core.add(self._at("left"), core.mul(rows, core.const(wide)))
            with core.loop_carrying(self._at("left"), ends, [self._at("sums")], wide) as row:
                (sums,) = row.carried
                products, part = (self._at("products"), wide), self._at("part")
                self._rows("vmul_f", cols, products, (self._at("right"), wide), count, (row.counter, 0))
                self._rows("vrsum_f", cols, (part, _F32), products, count)
                core.vadd_f(sums, sums, part, cols)
                row.next = [core.add(sums, core.const(self._pitch))]

    def _widen(self, b: Right, cols: Register, first: SSAValue, along: SSAValue, count: SSAValue) -> None:
        """A piece of the columns of ``b`` in f32."""
        core, source = self.core, (b.at, b.stride)
        if b.by_column:
            source = (core.add(b.at, along), b.stride)
        else:
            start = core.add(b.at, core.mul(first, b.stride))
            half = self.piece * _HALF
            core.trans(self._at("turned"), start, rows=count, cols=cols, stride_a=b.stride, stride_b=half)
            source = (self._at("turned"), half)
        self._rows("vcvt_f", cols, (self._at("right"), self.piece * _F32), source, count)

    def _rows(
        self,
        name: str,
        rows: Register,
        to: tuple[Register, Register],
        source: tuple[Register, Register],
        n: Register,
        *others: tuple[Register, Register],
    ) -> None:
        places = [(self.core.register(at), stride) for at, stride in (to, source, *others)]
        self.core.on_rows(name, self.core.register(rows), *places, n=n)


def on_vectors(lowering: Callable[[LoweringContext, OpT], None]) -> Callable[[LoweringContext, OpT], None]:
    """The lowering with the vector unit in the place of the tensor unit."""

    def lower(ctx: LoweringContext, op: OpT) -> None:
        usual, ctx.matrix = ctx.matrix, VectorUnit(ctx)
        try:
            lowering(ctx, op)
        finally:
            ctx.matrix = usual

    return lower
