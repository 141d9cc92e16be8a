"""Matrix products of any size on machines of several sizes: the binary against numpy in fp32, and its length."""

from __future__ import annotations

import numpy as np
import pytest
from products import BOUND, MACHINES, linear, memory

CASES = [
    # K in blocks: sums in the tensor unit (few rows), and in local memory (more rows than it has, a cut input)
    (4, 9000, 500, "hpim", 384, 0),
    (3, 4762, 1500, "8 cores", 64, 0),
    (100, 1000, 700, "hpim", 256, 0),
    (64, 3000, 500, "hpim", 384, 64),
    (130, 2000, 300, "hpim", 128, 33),
    (27, 841, 879, "64 cores of 2 channels", 64, 5),
    (11, 2896, 1, "64 cores of 2 channels", 128, 40),
    (20, 777, 300, "1 core", 128, 9),
    (121, 508, 688, "8 cores", 128, 13),
    (2, 1, 3, "hpim", 384, 0),
    (200, 5, 2, "hpim", 384, 1),
    (16, 576, 3072, "hpim", 384, 0),
    (65, 64, 65, "8 cores", 64, 0),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("m", "k", "n", "machine", "kilobytes", "cut"), CASES)
def test_products_of_any_size(m: int, k: int, n: int, machine: str, kilobytes: int, cut: int, bias: bool) -> None:
    compiled, inputs, expected = linear(m, k, n, (*MACHINES[machine], *memory(kilobytes)), bias=bias, cut=cut)
    (got,) = compiled.run(inputs).outputs.values()
    limit = BOUND * (1 + np.abs(expected).max()) * (3 if cut else 1)  # its input is rounded, perhaps the other way
    assert np.abs(got[0].astype(np.float32) - expected).max() < limit


def length(m: int, k: int, n: int, *overrides: str, cut: int = 0) -> int:
    """Instructions of a core."""
    compiled, _, _ = linear(m, k, n, overrides, cut=cut)
    return compiled.program.decoded[compiled.program.entries["main"].cores[0]].op.size


#: The most instructions of a program with one or two GEMMs, whatever their sizes: loops that run once are none, and
#: divisions by powers of two are shifts, so that lengths differ, but do not grow.
LONGEST = {0: 330, 64: 560}


@pytest.mark.parametrize("cut", [0, 64])
@pytest.mark.parametrize(("m", "k", "n"), [(6, 5000, 3000), (64, 3000, 500), (128, 9000, 5000), (192, 8008, 3333)])
def test_the_length_does_not_grow_with_the_sizes(m: int, k: int, n: int, cut: int) -> None:
    roomy = () if cut or m * k * 2 < 200_000 else memory(8192)  # an input that is whole must fit
    assert length(m, k, n, *roomy, cut=cut) <= LONGEST[cut]
