"""Attributes of the ``pim`` dialect: how a tensor is cut over the cores, and where it lies in memory.

Each attribute prints as plain numbers (``#pim.shard<[[0, 0, 32, 18]]>``) and converts to a frozen dataclass
that the passes compute with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from xdsl.dialects.builtin import ArrayAttr, IntAttr, NoneAttr, StringAttr, TensorType
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from pimc.ir.bank_layout import GemvLayout, LinearRegion, TileGeometry

IntRows = ArrayAttr[ArrayAttr[IntAttr]]


def _int_rows(rows: Iterable[Iterable[int]]) -> IntRows:
    return ArrayAttr([ArrayAttr([IntAttr(value) for value in row]) for row in rows])


def _parse_int_rows(parser: AttrParser) -> IntRows:
    square = parser.Delimiter.SQUARE

    def row() -> list[int]:
        return parser.parse_comma_separated_list(square, parser.parse_integer)

    return _int_rows(parser.parse_comma_separated_list(square, row))


def _format_int_rows(rows: IntRows) -> str:
    return "[" + ", ".join("[" + ", ".join(str(v.data) for v in row) + "]" for row in rows) + "]"


@dataclass(frozen=True)
class ShardRound:
    """One round of a cut: core ``first_core + i`` holds features ``start + i * per_core ..``
    (``per_core`` of them).
    """

    start: int
    first_core: int
    cores: int
    per_core: int


@dataclass(frozen=True)
class Piece:
    """Features ``start .. stop`` of a tensor, at element ``local`` of a core's local slice."""

    local: int
    start: int
    stop: int


@irdl_attr_definition
class TokenType(ParametrizedAttribute, TypeAttribute):
    """Completion of an asynchronous piece of work (``pim.async``)."""

    name = "pim.token"


@irdl_attr_definition
class ShardAttr(ParametrizedAttribute):
    """Encoding of a tensor whose last dimension is cut over the cores in rounds ``[start, first_core,
    cores, per_core]``.

    In a round, core ``first_core + i`` holds features ``start + i * per_core`` up to ``start + (i + 1) *
    per_core``, clipped at the next round's start and at the tensor's end.  A core's local slice is the
    concatenation of the rounds it takes part in, ``per_core`` elements a round even where clipping leaves
    fewer (so that all tiles of a round run one program); the rest is padding.
    """

    name = "pim.shard"
    rounds: IntRows

    @classmethod
    def of(cls, rounds: Iterable[ShardRound]) -> Self:
        """From rounds."""
        return cls(_int_rows((r.start, r.first_core, r.cores, r.per_core) for r in rounds))

    @property
    def shard_rounds(self) -> tuple[ShardRound, ...]:
        """The rounds as records."""
        return tuple(ShardRound(*(v.data for v in row)) for row in self.rounds)

    def pieces(self, core: int, extent: int) -> tuple[Piece, ...]:
        """What ``core`` holds of a last dimension of ``extent`` features."""
        rounds = self.shard_rounds
        local = 0
        found: list[Piece] = []
        for index, r in enumerate(rounds):
            rank = core - r.first_core
            if not 0 <= rank < r.cores:
                continue
            end = rounds[index + 1].start if index + 1 < len(rounds) else extent
            start = r.start + rank * r.per_core
            stop = min(start + r.per_core, end)
            if start < stop:
                found.append(Piece(local, start, stop))
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

    def check(self, extent: int) -> None:
        """Raise VerifyException unless every feature of ``extent`` has an owner, and each round begins at one place in
        the local slices of all its cores.
        """
        rounds = self.shard_rounds
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
            if r.start != expected or not r.start < end <= r.start + r.cores * r.per_core:
                raise VerifyException(f"shard round {index} at {r.start} does not cover features {expected} to {end}")
            expected = end

    def verify(self) -> None:
        """Rounds are four positive numbers (start and first core may be 0), in ascending order of start."""
        if not self.rounds.data:
            raise VerifyException("a shard needs at least one round")
        last = -1
        for row in self.rounds:
            values = [v.data for v in row]
            if len(values) != 4 or min(values[:2]) < 0 or min(values[2:]) < 1 or values[0] <= last:
                raise VerifyException(f"not a shard round [start, first_core, cores, per_core]: {values}")
            last = values[0]

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """``<[[start, first_core, cores, per_core], ...]>``."""
        with parser.in_angle_brackets():
            return [_parse_int_rows(parser)]

    def print_parameters(self, printer: Printer) -> None:
        """``<[[start, first_core, cores, per_core], ...]>``."""
        printer.print_string(f"<{_format_int_rows(self.rounds)}>")


@dataclass(frozen=True)
class HeadRound:
    """One round of Algorithm 1 on the cores: heads ``first .. first + heads`` run on ``cores_per_head``
    cores each.
    """

    first: int
    heads: int
    cores_per_head: int

    def cores_of(self, head: int) -> range:
        """Cores that run ``head``."""
        first = (head - self.first) * self.cores_per_head
        return range(first, first + self.cores_per_head)


@irdl_attr_definition
class HeadsAttr(ParametrizedAttribute):
    """Rounds ``[first_kv_head, kv_heads, cores_per_head]`` of attention heads over cores (Algorithm 1).

    In a round, KV head ``h`` runs on cores ``(h - first) * cores_per_head`` onward; the slot of position
    ``p`` belongs to the core of rank ``p % cores_per_head`` of that group, as local slot ``p //
    cores_per_head``.
    """

    name = "pim.heads"
    rounds: IntRows

    @classmethod
    def of(cls, rounds: Iterable[HeadRound]) -> Self:
        """From rounds."""
        return cls(_int_rows((r.first, r.heads, r.cores_per_head) for r in rounds))

    @property
    def head_rounds(self) -> tuple[HeadRound, ...]:
        """The rounds as records."""
        return tuple(HeadRound(*(v.data for v in row)) for row in self.rounds)

    def check(self, heads: int) -> None:
        """Raise VerifyException unless the rounds cover heads ``0 .. heads`` in order."""
        expected = 0
        for r in self.head_rounds:
            if r.first != expected:
                raise VerifyException(f"head rounds leave a gap or overlap at head {expected}")
            expected += r.heads
        if expected != heads:
            raise VerifyException(f"head rounds cover {expected} of {heads} heads")

    def verify(self) -> None:
        """Each round is three numbers, with at least one head and one core."""
        for row in self.rounds:
            values = [v.data for v in row]
            if len(values) != 3 or values[0] < 0 or min(values[1:]) < 1:
                raise VerifyException(f"not a head round [first_head, heads, cores_per_head]: {values}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """``<[[first_head, heads, cores_per_head], ...]>``."""
        with parser.in_angle_brackets():
            return [_parse_int_rows(parser)]

    def print_parameters(self, printer: Printer) -> None:
        """``<[[first_head, heads, cores_per_head], ...]>``."""
        printer.print_string(f"<{_format_int_rows(self.rounds)}>")


def _parse_named_ints(parser: AttrParser, names: Sequence[str]) -> list[IntAttr]:
    values: list[IntAttr] = []
    for index, name in enumerate(names):
        if index:
            parser.parse_punctuation(",")
        parser.parse_keyword(name)
        parser.parse_punctuation("=")
        values.append(IntAttr(parser.parse_integer()))
    return values


@irdl_attr_definition
class GemvLayoutAttr(ParametrizedAttribute):
    """A :class:`~pimc.ir.bank_layout.GemvLayout`: where a tile's slice of a GEMV's weights lies in its
    banks.
    """

    name = "pim.gemv_layout"
    k: IntAttr
    n_local: IntAttr
    ksplit: IntAttr
    row_base: IntAttr
    row_stride: IntAttr
    channels: IntAttr
    banks: IntAttr
    columns: IntAttr
    lanes: IntAttr
    buffer_columns: IntAttr
    result_registers: IntAttr

    OWN: ClassVar[tuple[str, ...]] = ("k", "n_local", "ksplit", "row_base", "row_stride")
    GEOMETRY: ClassVar[tuple[str, ...]] = tuple(field.name for field in fields(TileGeometry))

    @classmethod
    def of(cls, layout: GemvLayout) -> Self:
        """From the record."""
        own = [IntAttr(getattr(layout, name)) for name in cls.OWN]
        return cls(*own, *(IntAttr(getattr(layout.geometry, name)) for name in cls.GEOMETRY))

    @property
    def layout(self) -> GemvLayout:
        """The record."""
        values = {name: value.data for name, value in zip((*self.OWN, *self.GEOMETRY), self._ints(), strict=True)}
        geometry = TileGeometry(**{name: values[name] for name in self.GEOMETRY})
        return GemvLayout(geometry, **{name: values[name] for name in self.OWN})

    def _ints(self) -> tuple[IntAttr, ...]:
        return tuple(getattr(self, name) for name in (*self.OWN, *self.GEOMETRY))

    def verify(self) -> None:
        """The record accepts the numbers."""
        try:
            _ = self.layout
        except ValueError as error:
            raise VerifyException(str(error)) from error

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """``<k = 576, n_local = 18, ...>``."""
        with parser.in_angle_brackets():
            return _parse_named_ints(parser, (*cls.OWN, *cls.GEOMETRY))

    def print_parameters(self, printer: Printer) -> None:
        """``<k = 576, n_local = 18, ...>``."""
        names = (*self.OWN, *self.GEOMETRY)
        text = ", ".join(f"{name} = {value.data}" for name, value in zip(names, self._ints(), strict=True))
        printer.print_string(f"<{text}>")


#: Kinds of linear regions: every tile has all of it; rows are cut over the tiles; a round of a K or V cache.
REGION_KINDS = ("replicated", "rows", "flat", "cache")


@irdl_attr_definition
class RegionAttr(ParametrizedAttribute):
    """A run of bytes in the linear address space of every tile, for one tensor (or one per-layer family of
    tensors).

    ``kind``: ``replicated`` (every tile holds the whole tensor, a row a pitch), ``rows`` (tile c holds rows
    ``c * rows ..`` of a table), ``flat`` (every tile holds all elements without gaps, as one row), ``cache`` (one
    head round of a cache: ``rows`` slots).  ``tensor``: weight name (``*``
    = layer) or the symbol of a cache.  ``base``: byte address in the tile; ``size``: bytes of one copy in a
    tile; ``layer_stride``: bytes from a layer to the next; ``layers``: copies (0: not per layer).  ``rows``
    x ``row_bytes``: a tile's rows or slots and their pitch; ``round``: index of the head round of a cache
    (0 otherwise); ``cores``: of a cache, the cores that share its slots: position p is in slot ``p // cores`` of the
    tiles of rank ``p % cores`` (0 otherwise).
    """

    name = "pim.region"
    kind: StringAttr
    tensor: StringAttr
    base: IntAttr
    size: IntAttr
    layer_stride: IntAttr
    layers: IntAttr
    first_layer: IntAttr
    rows: IntAttr
    row_bytes: IntAttr
    round: IntAttr
    cores: IntAttr

    INTS: ClassVar[tuple[str, ...]] = (
        "base",
        "size",
        "layer_stride",
        "layers",
        "first_layer",
        "rows",
        "row_bytes",
        "round",
        "cores",
    )

    @property
    def region(self) -> LinearRegion:
        """Base, size and layer stride as the shared record."""
        return LinearRegion(self.base.data, self.size.data, self.layer_stride.data)

    def verify(self) -> None:
        """Known kind, no negative number, a stride exactly where there are layers, rows that fit the size."""
        if self.kind.data not in REGION_KINDS:
            raise VerifyException(f"region kind {self.kind.data!r} is none of {', '.join(REGION_KINDS)}")
        if min(getattr(self, name).data for name in self.INTS) < 0:
            raise VerifyException("a region's numbers are not negative")
        if self.layers.data > 1 and self.layer_stride.data < self.size.data:
            raise VerifyException("a region's layers overlap")
        if self.rows.data * self.row_bytes.data > self.size.data:
            raise VerifyException("a region's rows exceed its size")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """``<kind, "tensor", base = 0, ...>``."""
        with parser.in_angle_brackets():
            kind = StringAttr(parser.parse_identifier())
            parser.parse_punctuation(",")
            tensor = StringAttr(parser.parse_str_literal())
            parser.parse_punctuation(",")
            return [kind, tensor, *_parse_named_ints(parser, cls.INTS)]

    def print_parameters(self, printer: Printer) -> None:
        """``<kind, "tensor", base = 0, ...>``."""
        with printer.in_angle_brackets():
            printer.print_string(f"{self.kind.data}, ")
            printer.print_string_literal(self.tensor.data)
            printer.print_string("".join(f", {name} = {getattr(self, name).data}" for name in self.INTS))


def shard_of(type_: Attribute) -> ShardAttr | None:
    """The cut of a tensor type, or None where it is replicated; VerifyException for a foreign encoding."""
    encoding = type_.encoding if isinstance(type_, TensorType) else NoneAttr()
    if isinstance(encoding, ShardAttr):
        return encoding
    if encoding != NoneAttr():
        raise VerifyException(f"{type_} has an encoding that is no #pim.shard")
    return None


def with_shard(type_: TensorType[Attribute], shard: ShardAttr | None) -> TensorType[Attribute]:
    """``type_`` cut by ``shard`` (None: replicated)."""
    return TensorType(type_.element_type, type_.get_shape(), NoneAttr() if shard is None else shard)
