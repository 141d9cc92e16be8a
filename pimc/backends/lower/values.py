"""What a value of the ``pim`` level is during lowering: tensors in local memory, weights, positions."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.ir import SSAValue


@dataclass(frozen=True)
class Buffer:
    """An ``sram.alloc``: its SSA value and its name (by which HBM-PIM streams refer to it)."""

    value: SSAValue
    name: str
    bytes: int


@dataclass(frozen=True)
class Strip:
    """``rows`` rows of ``width`` fp16 elements in a buffer, ``pitch`` bytes apart, from byte ``offset``."""

    buffer: Buffer
    rows: int
    width: int
    pitch: int
    offset: int = 0

    @property
    def contiguous(self) -> bool:
        """Whether the rows follow each other without a gap."""
        return self.rows == 1 or self.pitch == self.width * 2

    @property
    def elements(self) -> int:
        """Elements of all rows."""
        return self.rows * self.width


@dataclass(frozen=True)
class Tensor:
    """A tensor ``[1, rows, features]`` on every core: one strip if replicated, else one a round of its shard."""

    strips: tuple[Strip, ...]

    @property
    def rows(self) -> int:
        """Tokens."""
        return self.strips[0].rows

    @property
    def whole(self) -> Strip:
        """The strip of a replicated tensor (or of a shard of one round)."""
        (strip,) = self.strips
        return strip


@dataclass(frozen=True)
class Weight:
    """A weight or constant that is not loaded yet: its name in the memory map (``*`` = layer), its shape, the bytes
    of an element, the index of its layer, and the kind of its region where all of it is loaded."""

    name: str
    shape: tuple[int, ...]
    itemsize: int = 2
    layer: SSAValue | None = None
    region: str = "flat"


@dataclass(frozen=True)
class Integers:
    """i32 values in local memory, without gaps (token ids, the position, a length, any integer tensor)."""

    buffer: Buffer
    count: int


@dataclass(frozen=True)
class Floats:
    """f32 values in local memory, without gaps: what lies between operations that ``widen`` has put together."""

    buffer: Buffer
    count: int


@dataclass(frozen=True)
class Positions:
    """``base + first + i`` for ``i < count``; ``base`` is an input of one element."""

    base: Integers
    count: int
    first: int = 0


@dataclass(frozen=True)
class Scalar:
    """A constant of one element."""

    value: float


@dataclass(frozen=True)
class Dram:
    """A value in the tile's own channels: its region's name and first byte."""

    name: str
    base: int


LoweredValue = Tensor | Weight | Integers | Floats | Positions | Scalar | Dram | SSAValue
