"""Layouts: how a tensor is cut over the cores, as the encoding of its type.

``tensor<1x512x576xf16, #pim.layout<1 : [[0, 0, 32, 16]]>>`` is cut along dimension 1: core ``c`` holds rows
``16 c`` up to ``16 (c + 1)``.  A type without an encoding is that of a tensor that every core holds whole.
``#pim.layout<dram, 1 : ...>`` says that the parts are not in the cores' local memories but in their own channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

from xdsl.dialects.builtin import ArrayAttr, IntAttr, NoneAttr, StringAttr, TensorType
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

#: Memories of a layout: the core's local memory, and its own channels of DRAM.
LOCAL, DRAM = "local", "dram"
MEMORIES = (LOCAL, DRAM)
IntRows = ArrayAttr[ArrayAttr[IntAttr]]


def int_rows(rows: Iterable[Iterable[int]]) -> IntRows:
    """Rows of numbers as an attribute."""
    return ArrayAttr([ArrayAttr([IntAttr(value) for value in row]) for row in rows])


def parse_int_rows(parser: AttrParser) -> IntRows:
    """``[[1, 2], [3, 4]]``."""
    square = parser.Delimiter.SQUARE

    def row() -> list[int]:
        return parser.parse_comma_separated_list(square, parser.parse_integer)

    return int_rows(parser.parse_comma_separated_list(square, row))


def format_int_rows(rows: IntRows) -> str:
    """``[[1, 2], [3, 4]]``."""
    return "[" + ", ".join("[" + ", ".join(str(v.data) for v in row) + "]" for row in rows) + "]"


@dataclass(frozen=True)
class ShardRound:
    """One round of a cut: core ``first_core + i`` holds indices ``start + j * distance ..`` (``per_core`` of them).

    ``share`` neighbouring cores hold the same ones, and the parts are dealt out ``repeats`` times, one time behind the
    other: ``j = i // share % parts``.  ``step``: the distance of the parts where they overlap (0: ``per_core``).
    """

    start: int
    first_core: int
    cores: int
    per_core: int
    share: int = 1
    repeats: int = 1
    step: int = 0

    @property
    def parts(self) -> int:
        """Different parts of the round."""
        return self.cores // self.share // self.repeats

    @property
    def distance(self) -> int:
        """Indices from a part's first one to the next part's."""
        return self.step or self.per_core

    @property
    def overlaps(self) -> bool:
        """Whether neighbouring parts have indices in common."""
        return self.distance < self.per_core

    @property
    def numbers(self) -> tuple[int, ...]:
        """As they are printed: the last numbers only where cores share, parts are repeated, and parts overlap."""
        own = (self.start, self.first_core, self.cores, self.per_core)
        if self.overlaps:
            return (*own, self.share, self.repeats, self.step)
        if self.repeats > 1:
            return (*own, self.share, self.repeats)
        return own if self.share == 1 else (*own, self.share)

    def begin(self, rank: int) -> int:
        """Where the part of core ``first_core + rank`` begins; before index 0 it begins with padding."""
        return self.start + rank // self.share % self.parts * self.distance

    def part(self, rank: int, end: int) -> range:
        """The indices of core ``first_core + rank`` in a round that ends before index ``end``; perhaps none."""
        start = self.begin(rank)
        first = min(max(start, 0), end)
        return range(first, max(first, min(start + self.per_core, end)))

    def skipped(self, rank: int) -> int:
        """Elements of the local slice before index 0 of the dimension."""
        return max(0, -self.begin(rank))


@dataclass(frozen=True)
class Piece:
    """Indices ``start .. stop`` of a dimension, at element ``local`` of a core's local slice."""

    local: int
    start: int
    stop: int


@irdl_attr_definition
class ShardAttr(ParametrizedAttribute):
    """The cut of one dimension over the cores, in rounds ``[start, first_core, cores, per_core]``.

    In a round, core ``first_core + i`` holds indices ``start + i * per_core`` up to ``start + (i + 1) *
    per_core``, clipped at the next round's start and at the dimension's end.  A fifth number ``share`` says that
    so many neighbouring cores hold the same: ``i // share`` stands for ``i``; a sixth ``repeats``, that the parts are
    dealt out so many times, one time behind the other.  A core's local slice is the
    concatenation of the rounds it takes part in, ``per_core`` elements a round even where clipping leaves
    fewer (so that all cores of a round run one program); the rest is padding.

    A single round may begin before index 0 (a local slice begins with padding then), and have parts that overlap: a
    seventh number ``step`` is their distance.  ``[[-1, 0, 28, 4, 1, 1, 2]]`` gives two rows and one more on either
    side, what a convolution with a window of 3 needs for two rows of its result.  Indices behind the last part have no
    owner then.
    """

    name = "pim.shard"
    rounds: IntRows

    @classmethod
    def of(cls, rounds: Iterable[ShardRound]) -> Self:
        """From rounds."""
        return cls(int_rows(r.numbers for r in rounds))

    @staticmethod
    def blocks(extent: int, cores: int) -> ShardAttr:
        """Equal contiguous blocks of ``extent`` indices, over as few of the cores as the block's size needs."""
        size = -(-extent // cores)
        return ShardAttr.of([ShardRound(0, 0, -(-extent // size), size)])

    @property
    def shard_rounds(self) -> tuple[ShardRound, ...]:
        """The rounds as records."""
        return tuple(ShardRound(*(v.data for v in row)) for row in self.rounds)

    def pieces(self, core: int, extent: int) -> tuple[Piece, ...]:
        """What ``core`` holds of a dimension of ``extent`` indices."""
        rounds = self.shard_rounds
        local = 0
        found: list[Piece] = []
        for index, r in enumerate(rounds):
            rank = core - r.first_core
            if not 0 <= rank < r.cores:
                continue
            own = r.part(rank, rounds[index + 1].start if index + 1 < len(rounds) else extent)
            if own:
                found.append(Piece(local + r.skipped(rank), own.start, own.stop))
            local += r.per_core
        return tuple(found)

    def local_offset(self, index: int) -> int:
        """Where round ``index`` begins in the local slices of the cores that take part in it (the same in all)."""
        rounds = self.shard_rounds
        core = rounds[index].first_core
        return sum(r.per_core for r in rounds[:index] if r.first_core <= core < r.first_core + r.cores)

    def local_size(self, core: int) -> int:
        """Elements (padding included) of ``core``'s local slice."""
        return sum(r.per_core for r in self.shard_rounds if r.first_core <= core < r.first_core + r.cores)

    @property
    def cores(self) -> int:
        """One more than the last core that takes part."""
        return max(r.first_core + r.cores for r in self.shard_rounds)

    @property
    def max_local_size(self) -> int:
        """The longest local slice."""
        rounds = self.shard_rounds
        starts = {r.first_core for r in rounds}  # the longest slice begins where a round begins
        return max(sum(r.per_core for r in rounds if r.first_core <= core < r.first_core + r.cores) for core in starts)

    @property
    def overlaps(self) -> bool:
        """Whether indices may have several owners, or none: the parts are what a window needs."""
        return any(r.overlaps for r in self.shard_rounds)

    def slid(self, factor: int, low: int, high: int) -> ShardAttr | None:
        """The cut of a tensor whose indices are ``factor`` times an index of this cut and ``low .. high`` more, so that
        every core has what its indices need; None where no one round has it.
        """
        if (factor, low, high) == (1, 0, 0):
            return self
        if len(self.shard_rounds) > 1 or factor < 1 or low > 0:
            return None
        (r,) = self.shard_rounds
        size, step = factor * (r.per_core - 1) + high - low + 1, factor * r.distance
        overlapped = step if size > step else 0
        return ShardAttr.of(
            [ShardRound(factor * r.start + low, r.first_core, r.cores, max(size, step), r.share, r.repeats, overlapped)]
        )

    def check(self, extent: int) -> None:
        """Raise VerifyException unless every index of ``extent`` has an owner, and each round begins at one place in
        the local slices of all its cores.
        """
        rounds = self.shard_rounds
        if len(rounds) == 1 and (rounds[0].start < 0 or rounds[0].overlaps):
            r = rounds[0]
            if r.start + r.per_core + (r.parts - 1) * r.distance < extent and not r.overlaps:
                raise VerifyException(f"shard round 0 at {r.start} does not cover indices 0 to {extent}")
            return
        held = [0] * self.cores  # elements of each core before a round
        for index, r in enumerate(rounds):
            own = range(r.first_core, r.first_core + r.cores)
            if len({held[core] for core in own}) > 1:
                raise VerifyException(f"shard round {index} begins at different places of its cores' slices")
            for core in own:
                held[core] += r.per_core
        expected = 0
        for index, r in enumerate(rounds):
            end = rounds[index + 1].start if index + 1 < len(rounds) else extent
            if r.start != expected or not r.start < end <= r.start + r.parts * r.per_core:
                raise VerifyException(f"shard round {index} at {r.start} does not cover indices {expected} to {end}")
            expected = end

    def verify(self) -> None:
        """Rounds are four to seven positive numbers (first core may be 0, and start where there are several, else any),
        in ascending order of start.
        """
        if not self.rounds.data:
            raise VerifyException("a shard needs at least one round")
        last = -1 if len(self.rounds) > 1 else None
        for row in self.rounds:
            values = [v.data for v in row]
            if len(values) not in (4, 5, 6, 7) or values[1] < 0 or min(values[2:]) < 1:
                raise VerifyException(
                    f"not a shard round [start, first_core, cores, per_core, share, repeats, step]: {values}"
                )
            if last is not None and (values[0] <= last or len(values) == 7):
                raise VerifyException(f"not one of several shard rounds: {values}")
            if values[2] % prod(values[4:6]):
                raise VerifyException(
                    f"{prod(values[4:6])} cores a part do not divide the {values[2]} cores of a shard round"
                )
            if values[0] > 0 and last is None:
                raise VerifyException(f"a shard round that begins behind index 0: {values}")
            if len(values) == 7 and values[6] >= values[3]:
                raise VerifyException(f"parts of {values[3]} indices, {values[6]} apart, do not overlap")
            last = values[0] if last is not None else None

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """``<[[start, first_core, cores, per_core], ...]>``."""
        with parser.in_angle_brackets():
            return [parse_int_rows(parser)]

    def print_parameters(self, printer: Printer) -> None:
        """``<[[start, first_core, cores, per_core], ...]>``."""
        printer.print_string(f"<{format_int_rows(self.rounds)}>")


@irdl_attr_definition
class LayoutAttr(ParametrizedAttribute):
    """Encoding of a tensor that is cut over the cores, dimension ``dims[i]`` as ``shards[i]`` says, or that is not in
    local memory.

    Prints as ``#pim.layout<1 : [[0, 0, 32, 16]]>``.  A core holds what it holds along each of the cut dimensions, and
    all of the others; dimensions are in ascending order.  ``memory``: where, ``local`` (not printed) or ``dram``, the
    core's own channels.
    """

    name = "pim.layout"
    dims: ArrayAttr[IntAttr]
    shards: ArrayAttr[ShardAttr]
    memory: StringAttr

    @classmethod
    def of(cls, cuts: Mapping[int, ShardAttr], memory: str = LOCAL) -> Self:
        """From the cut of each dimension that is cut, and the memory."""
        dims = sorted(cuts)
        return cls(
            ArrayAttr([IntAttr(dim) for dim in dims]), ArrayAttr([cuts[dim] for dim in dims]), StringAttr(memory)
        )

    @property
    def is_local(self) -> bool:
        """Whether the parts are in local memory."""
        return self.memory.data == LOCAL

    @property
    def cuts(self) -> dict[int, ShardAttr]:
        """The cut of each dimension that is cut."""
        return {dim.data: shard for dim, shard in zip(self.dims, self.shards, strict=True)}

    @property
    def cores(self) -> int:
        """One more than the last core that holds something."""
        return min((shard.cores for shard in self.shards), default=1)

    def check(self, shape: Sequence[int]) -> None:
        """Raise VerifyException unless the layout fits a tensor of ``shape``."""
        for dim, shard in self.cuts.items():
            if dim >= len(shape):
                raise VerifyException(f"a layout cuts dimension {dim} of a tensor of rank {len(shape)}")
            shard.check(shape[dim])

    def boxes(self, core: int, shape: Sequence[int]) -> tuple[tuple[range, ...], ...]:
        """The parts of a tensor of ``shape`` that ``core`` holds: a range of indices along each dimension."""
        found: list[tuple[range, ...]] = [()]
        for dim, size in enumerate(shape):
            shard = self.cuts.get(dim)
            own = [range(size)] if shard is None else [range(p.start, p.stop) for p in shard.pieces(core, size)]
            found = [(*box, indices) for box in found for indices in own]
        return tuple(found)

    def holders(self, shape: Sequence[int], cores: int) -> tuple[bool, ...]:
        """Whether each core is the first of those that hold the same part."""
        seen: set[tuple[tuple[range, ...], ...]] = set()
        found: list[bool] = []
        for core in range(cores):
            boxes = self.boxes(core, shape)
            found.append(bool(boxes) and boxes not in seen)
            seen.add(boxes)
        return tuple(found)

    def verify(self) -> None:
        """A known memory; one cut at least in local memory; dimensions in ascending order."""
        dims = [dim.data for dim in self.dims]
        if self.memory.data not in MEMORIES:
            raise VerifyException(f"the memory of a layout is one of {', '.join(MEMORIES)}, not {self.memory.data!r}")
        if (
            (not dims and self.is_local)
            or len(dims) != len(self.shards)
            or dims != sorted(set(dims))
            or min(dims, default=0) < 0
        ):
            raise VerifyException(f"a layout cuts dimensions in ascending order, not {dims}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """``<memory, dim : [[start, first_core, cores, per_core], ...], ...>``."""

        def cut() -> tuple[int, ShardAttr]:
            dim = parser.parse_integer(allow_boolean=False, allow_negative=False)
            parser.parse_punctuation(":")
            return dim, ShardAttr(parse_int_rows(parser))

        with parser.in_angle_brackets():
            memory = parser.parse_optional_identifier()
            found: list[tuple[int, ShardAttr]] = []
            if memory is None or parser.parse_optional_punctuation(","):
                found = parser.parse_comma_separated_list(parser.Delimiter.NONE, cut)
        dims, shards = (ArrayAttr([IntAttr(dim) for dim, _ in found]), ArrayAttr([shard for _, shard in found]))
        return [dims, shards, StringAttr(memory or LOCAL)]

    def print_parameters(self, printer: Printer) -> None:
        """``<memory, dim : [[start, first_core, cores, per_core], ...], ...>``."""
        cuts = [f"{dim} : {format_int_rows(shard.rounds)}" for dim, shard in self.cuts.items()]
        printer.print_string(f"<{', '.join(cuts if self.is_local else [self.memory.data, *cuts])}>")


def layout_of(type_: Attribute) -> LayoutAttr | None:
    """The layout of a tensor type, or None where every core holds all of it; VerifyException for a foreign encoding."""
    encoding = type_.encoding if isinstance(type_, TensorType) else NoneAttr()
    if isinstance(encoding, LayoutAttr):
        return encoding
    if encoding != NoneAttr():
        raise VerifyException(f"{type_} has an encoding that is no #pim.layout")
    return None


def in_memory(type_: TensorType[Attribute], memory: str) -> TensorType[Attribute]:
    """``type_``, cut as it is, in a memory."""
    layout = layout_of(type_)
    cuts = {} if layout is None else layout.cuts
    return with_layout(type_, LayoutAttr.of(cuts, memory) if cuts or memory != LOCAL else None)


def is_local(type_: Attribute) -> bool:
    """Whether a value of this type is in local memory, as far as it is a tensor."""
    layout = layout_of(type_)
    return layout is None or layout.is_local


def with_layout(type_: TensorType[Attribute], layout: LayoutAttr | None) -> TensorType[Attribute]:
    """``type_`` with a layout (None: every core holds all of it)."""
    return TensorType(type_.element_type, type_.get_shape(), NoneAttr() if layout is None else layout)


def shard_of(type_: Attribute) -> ShardAttr | None:
    """The cut of a tensor's last dimension, its features; None where that is whole."""
    layout = layout_of(type_)
    return None if layout is None or not isinstance(type_, TensorType) else layout.cuts.get(type_.get_num_dims() - 1)


def with_shard(type_: TensorType[Attribute], shard: ShardAttr | None) -> TensorType[Attribute]:
    """``type_`` with its last dimension cut by ``shard`` and no other (None: every core holds all of it)."""
    return with_layout(type_, None if shard is None else LayoutAttr.of({type_.get_num_dims() - 1: shard}))
