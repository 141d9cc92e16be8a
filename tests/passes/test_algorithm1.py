"""Algorithm 1 of the paper, and the tile mapping derived from it."""

from __future__ import annotations

import pytest

from pimc.ir.pim import HeadRound, ShardRound
from pimc.passes.algorithm1 import (
    ChannelRound,
    allocate,
    channel_slices,
    feature_shard,
    head_rounds,
    rounds_shard,
    tensor_shard,
)

ROUNDS = {
    16: [(0, 16, 8)],
    32: [(0, 32, 4)],
    40: [(0, 32, 4), (32, 8, 16)],
    56: [(0, 32, 4), (32, 16, 8), (48, 8, 16)],
    9: [(0, 8, 16), (8, 1, 128)],
    3: [(0, 2, 64), (2, 1, 128)],
    1: [(0, 1, 128)],
    7: [(0, 4, 32), (4, 2, 64), (6, 1, 128)],
}


@pytest.mark.parametrize("heads", ROUNDS)
def test_rounds(heads: int) -> None:
    assert allocate(heads, 128, 32) == tuple(ChannelRound(*r) for r in ROUNDS[heads])
    assert head_rounds(heads, 128, 32) == tuple(HeadRound(f, n, c // 4) for f, n, c in ROUNDS[heads])


@pytest.mark.parametrize("heads", ROUNDS)
def test_every_feature_has_one_channel_and_channels_are_even(heads: int) -> None:
    slices = channel_slices(heads, 128, 128, 32)
    features = [item for items in slices.values() for item in items]
    assert sorted(features) == [(h, i) for h in range(heads) for i in range(128)]
    for index in range(len(ROUNDS[heads])):
        sizes = {len(items) for (_, r), items in slices.items() if r == index}
        assert len(sizes) == 1


@pytest.mark.parametrize("heads", ROUNDS)
@pytest.mark.parametrize("dim", [8, 64, 80, 128])
def test_shards_cover_and_follow_the_channels(heads: int, dim: int) -> None:
    shard = feature_shard(heads, dim, 128, 32)
    shard.check(heads * dim)
    owner = {f: c for c in range(32) for p in shard.pieces(c, heads * dim) for f in range(p.start, p.stop)}
    assert sorted(owner) == list(range(heads * dim))
    for r in head_rounds(heads, 128, 32):
        for head in range(r.first, r.first + r.heads):
            assert {owner[head * dim + i] for i in range(dim)} <= set(r.cores_of(head))


def test_smollm2() -> None:
    assert feature_shard(9, 64, 128, 32).shard_rounds == (ShardRound(0, 0, 32, 16), ShardRound(512, 0, 32, 2))
    assert feature_shard(3, 64, 128, 32).shard_rounds == (ShardRound(0, 0, 32, 4), ShardRound(128, 0, 32, 2))
    attention = rounds_shard(head_rounds(3, 128, 32), 3 * 64)
    assert attention.shard_rounds == (ShardRound(0, 0, 32, 12), ShardRound(384, 0, 32, 6))


def test_uneven_heads_take_a_round_each() -> None:
    shard = feature_shard(2, 8, 128, 32)  # 16 cores a head, 8 features: half of the cores of a group have one
    assert shard.shard_rounds == (ShardRound(0, 0, 16, 1), ShardRound(8, 16, 16, 1))
    assert [shard.local_offset(index) for index in range(2)] == [0, 0]


@pytest.mark.parametrize("features", [1, 31, 32, 33, 100, 576, 49152])
def test_tensor_shard(features: int) -> None:
    shard = tensor_shard(features, 32)
    shard.check(features)
    assert sum(p.stop - p.start for c in range(32) for p in shard.pieces(c, features)) == features


def test_positive_numbers_only() -> None:
    with pytest.raises(ValueError, match="positive"):
        allocate(0, 128, 32)
