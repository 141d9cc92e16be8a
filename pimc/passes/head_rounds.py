"""Key/value heads of cached attention to groups of cores, in the rounds that take the least time.

A round gives every core one head: ``n`` neighbouring cores share a head's slots.  Fewer rounds save what each costs
whatever its slots (instructions, exchanges), more rounds keep the groups larger: three heads on 32 cores are one round
of groups of eight, of which the last has no head of its own, or, as Algorithm 1 of the HPIM paper has it
(:mod:`pimc.passes.algorithm1`), a round of two groups of sixteen and one of a group of all.
"""

from __future__ import annotations

from collections.abc import Callable

from pimc.ir.pim import HeadRound

RoundTime = Callable[[int], int]
"""Estimated time of a round by its cores a head."""


def best_rounds(heads: int, cores: int, time: RoundTime) -> tuple[HeadRound, ...]:
    """The rounds of least total ``time``; where it is equal fewer, with more heads first, in larger groups.

    A round's groups are powers of two of cores that divide ``cores``; it has as many heads as groups, the last one as
    many as are left.  Raises ValueError unless both counts are positive.
    """
    if min(heads, cores) < 1:
        raise ValueError(f"heads and cores must be positive: {heads}, {cores}")
    sizes = [1 << k for k in range(cores.bit_length()) if cores % (1 << k) == 0]
    times = {size: time(size) for size in sizes}
    best: list[tuple[int, int, int, int]] = [(0, 0, 0, 0)]
    for left in range(1, heads + 1):  # time, rounds, minus the heads of the first round, minus their cores
        choices: list[tuple[int, int, int, int]] = []
        for size in sizes:
            taken = min(left, cores // size)
            total, rounds, _, _ = best[left - taken]
            choices.append((total + times[size], rounds + 1, -taken, -size))
        best.append(min(choices))
    found: list[HeadRound] = []
    first = 0
    while first < heads:
        _, _, taken, size = best[heads - first]
        found.append(HeadRound(first, -taken, -size))
        first -= taken
    return tuple(found)
