"""What all forms of attention share: its figures, and the groups of cores that work on a KV head."""

from __future__ import annotations

from dataclasses import dataclass

from pimc.backends.lower.context import LoweringContext
from pimc.ir.pim.attributes import HeadRound, HeadsAttr


@dataclass(frozen=True)
class Shape:
    """Figures of an attention: queries a KV head (``share``), head dimension, query rows (``rows``)."""

    share: int
    dim: int
    rows: int

    @property
    def stacked(self) -> int:
        """Rows of a KV head's queries one below the other: row ``r * share + h`` is head h of query row r."""
        return self.rows * self.share

    @property
    def width(self) -> int:
        """Features of a KV head's queries."""
        return self.share * self.dim


@dataclass(frozen=True)
class HeadGroup:
    """One round on the cores: ``cores`` share a KV head; figures that differ by core are lists."""

    index: int
    cores: int
    heads: tuple[int, ...]  # KV head of each core
    rank: tuple[int, ...]  # of each core in its group
    first_core: tuple[int, ...]  # of each core's group

    @property
    def shift(self) -> int:
        """log2 of the cores."""
        return self.cores.bit_length() - 1

    def slice(self, shape: Shape) -> int:
        """Features of a KV head's queries that a core ends with (the last ones of a group may end with fewer)."""
        return -(-shape.width // self.cores)

    def cuts(self, shape: Shape) -> int:
        """Rounds of the result's shard: one, or one a head where a head's features do not fill its cores."""
        return len(set(self.heads)) if shape.width % self.cores else 1


def groups_of(ctx: LoweringContext, rounds: HeadsAttr) -> list[HeadGroup]:
    """The rounds as groups; a core that is left without a head does what the last head's cores do, for nobody."""
    return [_group(ctx, index, round_) for index, round_ in enumerate(rounds.head_rounds)]


def _group(ctx: LoweringContext, index: int, round_: HeadRound) -> HeadGroup:
    n = round_.cores_per_head
    if ctx.cores % n or round_.heads * n > ctx.cores:
        raise ctx.unsupported(
            f"round {index} gives {round_.heads} heads {n} cores each: all {ctx.cores} cores are in groups of that size"
        )
    numbers = range(ctx.cores)
    last = round_.heads - 1
    return HeadGroup(
        index,
        n,
        tuple(round_.first + min(c // n, last) for c in numbers),
        tuple(c % n for c in numbers),
        tuple(c - c % n for c in numbers),
    )
