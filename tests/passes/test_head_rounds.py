"""Heads on groups of cores in rounds of least time."""

from __future__ import annotations

import itertools

import pytest

from pimc.ir.pim import HeadRound, HeadsAttr
from pimc.passes.algorithm1 import head_rounds
from pimc.passes.head_rounds import best_rounds
from pimc.passes.machine import Machine

HPIM = Machine.load("hpim")


def rounds(heads: int, slots: int, share: int = 3, dim: int = 64) -> tuple[HeadRound, ...]:
    return best_rounds(heads, 32, lambda n: HPIM.attention_round_fs(-(-slots // n), share, dim, "sram_pim"))


@pytest.mark.parametrize("cores", [1, 8, 16, 20, 24, 32, 64])
@pytest.mark.parametrize("heads", [1, 2, 3, 5, 7, 9, 12, 32, 40, 71])
def test_every_head_has_its_cores(heads: int, cores: int) -> None:
    for fixed in (0, 10, 10_000):
        found = best_rounds(heads, cores, lambda n, fixed=fixed: fixed + 1000 // n)
        HeadsAttr.of(found).check(heads)
        for r in found:
            assert r.cores_per_head & (r.cores_per_head - 1) == 0
            assert cores % r.cores_per_head == 0
            assert r.heads * r.cores_per_head <= cores


@pytest.mark.parametrize("heads", range(1, 8))
@pytest.mark.parametrize("fixed", [0, 3, 30, 300])
def test_nothing_takes_less(heads: int, fixed: int) -> None:
    """Against all sequences of group sizes."""

    def time(n: int) -> int:
        return fixed + 96 // n

    found = sum(time(r.cores_per_head) for r in best_rounds(heads, 8, time))
    every = (
        sum(map(time, sizes))
        for length in range(1, heads + 1)
        for sizes in itertools.product((1, 2, 4, 8), repeat=length)
        if sum(8 // n for n in sizes) >= heads
    )
    assert found == min(every)


def test_three_heads_are_one_round_unless_the_context_is_long() -> None:
    assert rounds(3, 512) == (HeadRound(0, 3, 8),)
    assert rounds(3, 100_000) == head_rounds(3, 128, 32) == (HeadRound(0, 2, 16), HeadRound(2, 1, 32))


def test_heads_that_fill_the_cores_are_one_round_at_any_length() -> None:
    for heads in (1, 2, 4, 8, 16, 32):
        for slots in (1, 512, 100_000):
            assert rounds(heads, slots) == (HeadRound(0, heads, 32 // heads),)


def test_counts_are_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        best_rounds(0, 32, lambda n: 1)
