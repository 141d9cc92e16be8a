"""Matrix times vector in the banks: any size against numpy in fp32, and streams that do not grow."""

from __future__ import annotations

import numpy as np
import pytest
from products import BOUND, MACHINES, linear

#: The most commands of a stream with one GEMV: a few for each of at most eight blocks that signal one by one.
MOST = 8 * 16


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("k", "n", "bias"), [(1, 1, False), (576, 1536, True), (3000, 900, False), (9000, 40, True), (130, 4500, True)]
)
def test_vectors_of_any_size(k: int, n: int, bias: bool, machine: str) -> None:
    compiled, inputs, expected = linear(1, k, n, MACHINES[machine], bias=bias)
    (got,) = compiled.run(inputs).outputs.values()
    assert np.abs(got[0].astype(np.float32) - expected).max() < BOUND * (1 + np.abs(expected).max())


@pytest.mark.parametrize(
    ("k", "n", "machine"),
    [(576, 49152, "hpim"), (7168, 7168, "hpim"), (28672, 3000, "hpim"), (4000, 9000, "8 cores"), (40, 20000, "1 core")],
)
def test_the_stream_does_not_grow_with_the_sizes(k: int, n: int, machine: str) -> None:
    compiled, inputs, expected = linear(1, k, n, MACHINES[machine])
    entry = compiled.program.entries["main"]
    assert compiled.program.decoded[entry.groups[0]].op.size <= MOST
    (got,) = compiled.run(inputs).outputs.values()
    assert np.abs(got[0].astype(np.float32) - expected).max() < BOUND * (1 + np.abs(expected).max())
