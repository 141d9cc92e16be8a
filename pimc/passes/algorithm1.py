"""Algorithm 1 of the HPIM paper (section VI.A): heads and their features to channels, in rounds.

:func:`allocate` and :func:`channel_slices` follow the paper's pseudo code line by line.  The tile mapping
(core and its channels) is derived from the rounds: a head that has ``N_ch`` channels has ``N_ch * cores /
channels`` cores.

Deviation: line 19 deals a head's features out to its channels one by one; we give each tile a contiguous
block (:func:`feature_shard`).  The balance is the same and a gather needs no permutation.  Line 18's upper
bound is read as exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass

from pimc.ir.pim import HeadRound, ShardAttr, ShardRound


@dataclass(frozen=True)
class ChannelRound:
    """One round: heads ``first .. first + heads`` with ``channels_per_head`` channels each."""

    first: int
    heads: int
    channels_per_head: int


def allocate(heads: int, channels: int, cores: int) -> tuple[ChannelRound, ...]:
    """The rounds of Algorithm 1 for ``heads`` (N_h), ``channels`` (N_D) and ``cores`` (N_S)."""
    if min(heads, channels, cores) < 1:
        raise ValueError(f"heads, channels and cores must be positive: {heads}, {channels}, {cores}")
    rounds: list[ChannelRound] = []
    index = 0
    while index < heads:
        remaining = heads - index
        limit = min(remaining, channels, cores)
        parallel = 1 << (limit.bit_length() - 1)  # 2 ** floor(log2(limit))
        rounds.append(ChannelRound(index, parallel, channels // parallel))
        index += parallel
    return tuple(rounds)


def channel_slices(
    heads: int, head_dim: int, channels: int, cores: int
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """The paper's ``S[c, r]``: for channel c and round r, the (head, feature of the head) pairs in order."""
    slices: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for index, r in enumerate(allocate(heads, channels, cores)):
        for head in range(r.first, r.first + r.heads):
            for feature in range(head_dim):
                channel = (head - r.first) * r.channels_per_head + feature % r.channels_per_head
                slices.setdefault((channel, index), []).append((head, feature))
    return slices


def head_rounds(heads: int, channels: int, cores: int) -> tuple[HeadRound, ...]:
    """The rounds on the cores' side: ``cores_per_head`` cores hold a head's ``channels_per_head``
    channels.
    """
    return tuple(HeadRound(r.first, r.heads, cores // r.heads) for r in allocate(heads, channels, cores))


def rounds_shard(rounds: tuple[HeadRound, ...], features: int) -> ShardAttr:
    """Cut ``features`` a head over the head's cores, the heads of a round side by side: attention's output has the
    features of a KV head's group of query heads.
    """
    found: list[ShardRound] = []
    for r in rounds:
        start = r.first * features
        per_core = -(-features // r.cores_per_head)
        if features % r.cores_per_head == 0:
            found.append(ShardRound(start, 0, r.heads * r.cores_per_head, per_core))
            continue
        found.extend(
            ShardRound(start + h * features, h * r.cores_per_head, r.cores_per_head, per_core) for h in range(r.heads)
        )
    return ShardAttr.of(found)


def feature_shard(heads: int, head_dim: int, channels: int, cores: int) -> ShardAttr:
    """The cut of a Q, K or V projection's output of ``heads * head_dim`` features; in equal blocks where a round before
    the last leaves cores without a head (the paper's counts of cores are powers of two).
    """
    rounds = head_rounds(heads, channels, cores)
    if any(r.heads * r.cores_per_head != cores for r in rounds[:-1]):
        return tensor_shard(heads * head_dim, cores)
    return rounds_shard(rounds, head_dim)


def tensor_shard(features: int, cores: int) -> ShardAttr:
    """The tensor-wise cut of ``features``: equal contiguous blocks, over as few cores as the block size
    needs.
    """
    per_core = -(-features // cores)
    return ShardAttr.of([ShardRound(0, 0, -(-features // per_core), per_core)])
