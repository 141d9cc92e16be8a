"""What the lowerings of single operations share: builders, values, semaphores, constants, buffers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

from xdsl.dialects.arith import ConstantOp as ArithConstantOp
from xdsl.dialects.builtin import Float32Type, IntegerAttr, IntegerType, TensorType, i1
from xdsl.ir import Block, Operation, SSAValue

from pimc.backends.builder import HbmBuilder, Place, SramBuilder
from pimc.backends.lower.matrix_unit import MatrixUnit, TensorUnit
from pimc.backends.lower.regions import Regions
from pimc.backends.lower.values import Buffer, Floats, Integers, LoweredValue, Positions, Strip, Tensor, Weight
from pimc.diagnostics import InputError, InternalError, UnsupportedItem
from pimc.ir.bank_layout import TileGeometry
from pimc.ir.layout import layout_of, shard_of
from pimc.ir.locations import where as where_is
from pimc.ir.locations import with_location
from pimc.ir.sram import INSTRUCTION_OPS
from pimc.ir.sram_structure import AddressOp, AllocOp, ConstOp
from pimc.targets.target import Target

#: Controller register that holds the row of the current layer's weights (set by the cores, ``hset``).
LAYER_ROW = 1
#: Semaphore of the controllers by which a core starts the next GEMV.
GO = 0
F32_BYTES = 4
INTEGER_BYTES = 4


class UnsupportedFormError(InputError):
    """An operation that is lowered, in a form that is not; ``item`` says which.  ``lower`` collects them."""

    def __init__(self, item: UnsupportedItem) -> None:
        super().__init__(str(item), where=item.node)
        self.item = item


@dataclass
class Semaphores:
    """Core semaphores in rotation: two exchanges that may be under way at once never share one.

    The last one is for the order of exchanges (``backends/synchronise.py``).
    """

    count: int
    next: int = 0

    @property
    def reserved(self) -> int:
        """The semaphore that is not in the rotation."""
        return self.count - 1

    def take(self) -> int:
        """The next semaphore."""
        taken = self.next
        self.next = (self.next + 1) % self.reserved
        return taken


@dataclass(frozen=True)
class LoweringOptions:
    """Choices of the lowering.

    ``result_blocks``: a GEMV with at most so many blocks of result registers has a semaphore for each block, so that
    the core takes one block's results while the banks compute the next; one with more has a semaphore for all.
    """

    result_blocks: int = 8


@dataclass
class LoweringContext:
    """State of the lowering of one entry: one SPMD program of all cores and one stream of all groups."""

    entry: str
    target: Target
    memory: Regions
    geometry: TileGeometry
    core: SramBuilder
    stream: HbmBuilder
    prologue: Block
    semaphores: Semaphores
    options: LoweringOptions = field(default_factory=LoweringOptions)
    values: dict[SSAValue, LoweredValue] = field(default_factory=dict)
    pending: dict[SSAValue, Callable[[], None]] = field(default_factory=dict)
    problems: list[UnsupportedItem] = field(default_factory=list)
    matrix: MatrixUnit = field(init=False)
    """The unit of matrix products, where the operation at hand has been placed."""
    layer: SSAValue | None = None
    where: Operation | None = None
    _loaded: dict[SSAValue, Tensor | Integers] = field(default_factory=dict)
    _constants: dict[bytes, Buffer] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _prologue_end: Operation | None = None

    def __post_init__(self) -> None:
        self.matrix = TensorUnit(self.core, self.target)

    @property
    def cores(self) -> int:
        """Cores of the machine."""
        return self.target.cores.count

    @property
    def channels(self) -> int:
        """Pseudo-channels of a tile."""
        return self.geometry.channels

    def at(self, op: Operation) -> None:
        """From here on, ``op`` is what is lowered: its location goes to every instruction."""
        self.where = op
        self.core.at(op.location)
        self.stream.at(op.location)

    # -- values ------------------------------------------------------------------------------------------------

    def set(self, value: SSAValue, lowered: LoweredValue) -> None:
        """Record what ``value`` became."""
        self.values[value] = lowered

    def rename(self, value: SSAValue, known: SSAValue) -> None:
        """``value`` is what ``known`` is: an argument, a result of a region."""
        self.values[value] = self.values[known]
        if known in self._loaded:
            self._loaded[value] = self._loaded[known]

    def tensor(self, value: SSAValue) -> Tensor:
        """The tensor that ``value`` became; a weight is loaded where it is first met."""
        lowered = self.local(value)
        if not isinstance(lowered, Tensor):
            raise self.unsupported(f"expected a tensor in local memory, found {type(lowered).__name__}")
        return lowered

    def local(self, value: SSAValue) -> LoweredValue | None:
        """What ``value`` became; a weight or stored constant is loaded where it is first met, and kept."""
        lowered = self.values.get(value)
        if not isinstance(lowered, Weight):
            return lowered
        if value not in self._loaded:
            self._loaded[value] = load(self, lowered)
        return self._loaded[value]

    @contextmanager
    def own_loads(self) -> Iterator[None]:
        """What is loaded in a part of the program that is a loop's body is not known behind it."""
        before = dict(self._loaded)
        yield
        self._loaded = before

    def weight(self, value: SSAValue) -> Weight:
        """The weight that ``value`` is."""
        lowered = self.values.get(value)
        if not isinstance(lowered, Weight):
            raise self.unsupported("this operand must be a weight (nn.param)")
        return lowered

    def integers(self, value: SSAValue) -> Integers:
        """The integers that ``value`` became."""
        lowered = self.local(value)
        if not isinstance(lowered, Integers):
            raise self.unsupported("this operand must be integers in local memory")
        return lowered

    def positions(self, value: SSAValue) -> Positions:
        """The positions that ``value`` is."""
        lowered = self.values.get(value)
        if not isinstance(lowered, Positions):
            raise self.unsupported("this operand must be consecutive positions (nn.positions)")
        return lowered

    def scalar(self, value: SSAValue) -> SSAValue:
        """A register with a scalar: the layer index, a constant, or an integer input of one element, loaded here."""
        owner = value.owner
        if isinstance(owner, ArithConstantOp) and isinstance(owner.value, IntegerAttr):
            return self.core.const(owner.value.value.data)
        lowered = self.values.get(value)
        if isinstance(lowered, SSAValue):
            return lowered
        return self.core.lw(self.core.address(self.integers(value).buffer.value), imm=0)

    def unsupported(self, why: str) -> UnsupportedFormError:
        """An error that names the operation being lowered."""
        name = self.where.name if self.where is not None else "module"
        where = where_is(self.where) if self.where is not None else "?"
        return UnsupportedFormError(UnsupportedItem(name, where, None, why))

    # -- buffers -----------------------------------------------------------------------------------------------

    def name(self, hint: str) -> str:
        """A buffer name unique in the entry."""
        index = self._names.get(hint, 0)
        self._names[hint] = index + 1
        return hint if index == 0 else f"{hint}.{index}"

    def alloc(self, hint: str, size: int, *, memory: str = "activation", remote: bool = False) -> Buffer:
        """A buffer of ``size`` bytes (at least one element) in every core."""
        name = self.name(hint)
        size = max(size, 4)
        return Buffer(self.core.alloc(name, size, memory=memory, remote=remote), name, size)

    def strip(self, hint: str, rows: int, width: int, *, remote: bool = False) -> Strip:
        """A fresh contiguous strip."""
        buffer = self.alloc(hint, rows * width * 2, remote=remote)
        return Strip(buffer, rows, width, width * 2)

    def like(self, hint: str, tensor: Tensor) -> Tensor:
        """A fresh contiguous tensor with the strips of ``tensor``; the strips share one buffer row by row."""
        widths = [strip.width for strip in tensor.strips]
        total = sum(widths)
        buffer = self.alloc(hint, tensor.rows * total * 2)
        strips: list[Strip] = []
        offset = 0
        for width in widths:
            strips.append(Strip(buffer, tensor.rows, width, total * 2, offset))
            offset += width * 2
        return Tensor(tuple(strips))

    def address(self, strip: Strip, row: SSAValue | None = None) -> SSAValue:
        """A register with the address of row ``row`` (None: the first) of a strip."""
        base = self.core.address(strip.buffer.value, strip.offset)
        if row is None:
            return base
        return self.core.add(base, self.core.mul(row, self.core.const(strip.pitch)))

    def place(self, strip: Strip, *, of: int | None = None) -> Place:
        """The rows of a strip for an instruction on ``of`` rows (None: its own); a single row is repeated for them."""
        return self.core.address(strip.buffer.value, strip.offset), 0 if of not in (None, strip.rows) else strip.pitch

    @contextmanager
    def each_row(self, rows: int) -> Iterator[SSAValue | None]:
        """A loop over rows, giving the row's register; no loop (None) for a single row."""
        if rows == 1:
            yield None
            return
        with self.core.loop(self.core.const(0), self.core.const(rows)) as row:
            yield row

    @contextmanager
    def row_blocks(self, rows: int, size: int) -> Iterator[SSAValue | None]:
        """A loop over blocks of ``size`` rows, giving the first row's register; no loop (None) for a single block.

        The last block ends with the last row: some rows are done twice where ``size`` does not divide ``rows``.
        """
        if rows <= size:
            yield None
            return
        with self.core.loop(self.core.const(0), self.core.const(rows), size) as first:
            yield self.core.min(first, self.core.const(rows - size))

    # -- constants ---------------------------------------------------------------------------------------------

    def f32(self, value: float) -> SSAValue:
        """A register with the address of an f32 constant, stored once at the start of the program."""
        return self._constant(struct.pack("<f", value))

    def word(self, value: int) -> SSAValue:
        """A register with the address of a 32-bit integer constant, stored likewise."""
        return self._constant(struct.pack("<I", value & 0xFFFFFFFF))

    def _constant(self, bits: bytes) -> SSAValue:
        buffer = self._constants.get(bits)
        if buffer is None:
            buffer = self._store_constant(bits)
            self._constants[bits] = buffer
        return self.core.address(buffer.value)

    def integer(self, value: int) -> Buffer:
        """A buffer with an i32 constant, stored once at the start of the program."""
        bits = struct.pack("<i", value)
        if bits not in self._constants:
            self._constants[bits] = self._store_constant(bits)
        return self._constants[bits]

    def f32_vector(self, value: float, count: int) -> SSAValue:
        """A register with the address of ``count`` copies of an f32 constant."""
        key = struct.pack("<fi", value, count)
        buffer = self._constants.get(key)
        if buffer is None:
            scalar = self._constants.get(key[:4]) or self._store_constant(key[:4])
            self._constants[key[:4]] = scalar
            name = self.name("const.vector")
            alloc = AllocOp(name, count * F32_BYTES, memory="temp")
            to, source = AddressOp(alloc.buffer), AddressOp(scalar.value)
            length = ConstOp(count)
            fill = INSTRUCTION_OPS["vfill.f"].build_op([to.result, to.result, source.result, length.result], {}, {})
            self._prologue_add([alloc, to, source, length, fill])
            buffer = Buffer(alloc.buffer, name, count * F32_BYTES)
            self._constants[key] = buffer
        return self.core.address(buffer.value)

    def _store_constant(self, bits: bytes) -> Buffer:
        name = self.name("const")
        alloc = AllocOp(name, F32_BYTES, memory="temp", align=4)
        to = AddressOp(alloc.buffer)
        word = ConstOp(int.from_bytes(bits, "little"))
        store = INSTRUCTION_OPS["sw"].build_op([word.result, to.result], {"imm": 0}, {})
        self._prologue_add([alloc, to, word, store])
        return Buffer(alloc.buffer, name, F32_BYTES)

    def _prologue_add(self, ops: list[Operation]) -> None:
        """Put operations at the start of the program, behind those put there before."""
        for op in ops:
            if self.where is not None:
                with_location(op, self.where)
        if self._prologue_end is None:
            first = self.prologue.first_op
            if first is None:
                self.prologue.add_ops(ops)
            else:
                self.prologue.insert_ops_before(ops, first)
        else:
            self.prologue.insert_ops_after(ops, self._prologue_end)
        self._prologue_end = ops[-1]


def empty(ctx: LoweringContext, shape: tuple[int, ...], itemsize: int) -> Tensor | Integers:
    """A tensor without elements."""
    buffer = ctx.alloc("empty", 0)
    if itemsize == INTEGER_BYTES:
        return Integers(buffer, 0)
    return Tensor((Strip(buffer, prod(shape[:-1]), shape[-1], shape[-1] * 2),))


def placeholder(ctx: LoweringContext, value: SSAValue) -> Tensor | Integers | Floats:
    """Something in the place of a result that could not be lowered, so that the operations behind it are looked at."""
    rows, size = rows_of(value), element_bytes(value)
    if size != 2:
        kind = Floats if is_wide(value) else Integers
        return kind(ctx.alloc("missing", prod(shape_of(value)) * size), prod(shape_of(value)))
    return Tensor(tuple(ctx.strip("missing", rows, width) for width in widths_of(value)))


def load(ctx: LoweringContext, weight: Weight) -> Tensor | Integers:
    """Read all of a weight or constant from the tile's channels, without gaps."""
    size = prod(weight.shape) * weight.itemsize
    buffer = ctx.alloc("weight", size)
    ctx.core.hrd(ctx.core.address(buffer.value), source_of(ctx, weight), ctx.core.const(size))
    if weight.itemsize == INTEGER_BYTES:
        return Integers(buffer, prod(weight.shape))
    width = weight.shape[-1] if weight.shape else 1
    return Tensor((Strip(buffer, prod(weight.shape[:-1]), width, width * 2),))


def source_of(ctx: LoweringContext, weight: Weight) -> SSAValue:
    """A register with the address of a weight in the tile's channels."""
    core, region = ctx.core, ctx.memory.find(weight.region, weight.name)
    source = core.const(region.region.base)
    if region.region.layer_stride:
        if weight.layer is None:
            raise ctx.unsupported(f"{weight.name} is per layer but has no layer")
        source = core.add(source, core.mul(ctx.scalar(weight.layer), core.const(region.region.layer_stride)))
    return source


def whole_shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value, all cores together."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise InternalError(f"{type_} is not a tensor")
    return type_.get_shape()


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value on a core: of a dimension that is cut, the longest part.

    The last dimension is whole here even where it is cut: a core's features are strips (see :func:`widths_of`).
    """
    shape, layout = whole_shape_of(value), layout_of(value.type)
    cuts = {} if layout is None else layout.cuts
    return tuple(
        cuts[dim].max_local_size if dim in cuts and dim < len(shape) - 1 else size for dim, size in enumerate(shape)
    )


def widths_of(value: SSAValue) -> tuple[int, ...]:
    """Local widths of a value on every core: all features if replicated, else ``per_core`` of each round."""
    shard = shard_of(value.type)
    if shard is None:
        return (shape_of(value)[-1] if shape_of(value) else 1,)
    return tuple(round_.per_core for round_ in shard.shard_rounds)


def rows_of(value: SSAValue) -> int:
    """Rows of a ``[..., F]`` value: the product of the leading dimensions."""
    return prod(shape_of(value)[:-1])


def element_bytes(value: SSAValue) -> int:
    """Bytes of an element on the hardware: fp16 (booleans too: 0 and 1), 32-bit integers, or f32 between operations."""
    element = value.type.element_type if isinstance(value.type, TensorType) else None
    return 4 if isinstance(element, IntegerType | Float32Type) and element != i1 else 2


def is_wide(value: SSAValue) -> bool:
    """Whether a value holds f32 numbers."""
    return isinstance(value.type, TensorType) and isinstance(value.type.element_type, Float32Type)
