"""Attributes of the ``pim`` dialect: heads on groups of cores, and what lies where in memory.

Each attribute prints as plain numbers (``#pim.heads<[[0, 3, 8]]>``) and converts to a frozen dataclass
that the passes compute with.  How tensors are cut over the cores is :mod:`pimc.ir.layout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from pimc.ir.bank_layout import GemvLayout, LinearRegion, TileGeometry
from pimc.ir.layout import IntRows, ShardAttr, ShardRound, format_int_rows, int_rows, parse_int_rows


@irdl_attr_definition
class TokenType(ParametrizedAttribute, TypeAttribute):
    """Completion of an asynchronous piece of work (``pim.async``)."""

    name = "pim.token"


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
        return cls(int_rows((r.first, r.heads, r.cores_per_head) for r in rounds))

    @property
    def head_rounds(self) -> tuple[HeadRound, ...]:
        """The rounds as records."""
        return tuple(HeadRound(*(v.data for v in row)) for row in self.rounds)

    def shard(self, features: int) -> ShardAttr:
        """The cut of ``features`` a head by heads: the cores of a head's group all hold the head's features."""
        rounds = self.head_rounds
        return ShardAttr.of(
            ShardRound(r.first * features, 0, r.heads * r.cores_per_head, features, r.cores_per_head) for r in rounds
        )

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
            return [parse_int_rows(parser)]

    def print_parameters(self, printer: Printer) -> None:
        """``<[[first_head, heads, cores_per_head], ...]>``."""
        printer.print_string(f"<{format_int_rows(self.rounds)}>")


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
REGION_KINDS = ("replicated", "rows", "kernels", "all_kernels", "flat", "cache", "value")


@irdl_attr_definition
class RegionAttr(ParametrizedAttribute):
    """A run of bytes in the linear address space of every tile, for one tensor (or one per-layer family of
    tensors).

    ``kind``: ``replicated`` (every tile holds the whole tensor, a row a pitch), ``rows`` (tile c holds rows ``c *
    rows ..`` of a table), ``kernels`` (tile c holds output channels ``c * rows ..`` of a convolution's weights, a row
    all channels of the window's first place, then of the next), ``all_kernels`` (so, but every tile holds all output
    channels), ``flat`` (every tile holds all elements without gaps, as one row), ``cache`` (one head round of a
    cache: ``rows`` slots), ``value`` (what a core has of a computed value). ``tensor``: weight name (``*`` = layer) or
    the symbol of a cache. ``base``: byte address in the tile; ``size``: bytes of one copy in a tile; ``layer_stride``:
    bytes from a layer to the next; ``layers``: copies (0: not per layer). ``rows`` x ``row_bytes``: a tile's rows or
    slots and their pitch; ``round``: index of the head round of a cache
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
