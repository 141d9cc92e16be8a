"""Matrix products of any size on machines of several sizes: the binary against numpy in fp32, and its length."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import executable, module_of, weight
from xdsl.ir import SSAValue

from pimc.ir import nn
from pimc.runtime import Executable

#: |difference| of results of about 1, relative to the greatest one: one rounding to fp16, and the order of fp32 sums.
BOUND = 1e-3
MACHINES = {
    "1 core": ("cores.count=1", "hbm.stacks=1", "hbm.channels=2", "noc.columns=1", "noc.rows=1"),
    "8 cores": ("cores.count=8", "hbm.stacks=1", "noc.columns=2"),
    "hpim": (),
    "64 cores of 2 channels": ("cores.count=64", "noc.rows=8"),
}


def memory(kilobytes: int) -> tuple[str, ...]:
    """Overrides: so much activation memory."""
    return f"memory.activation.bytes={kilobytes << 10}", f"memory.temp.base={kilobytes << 10}"


def fp16(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Numbers that are exact in fp16."""
    return rng.standard_normal(shape).astype(np.float16).astype(np.float32)


def linear(
    m: int, k: int, n: int, overrides: tuple[str, ...], *, bias: bool = False, cut: int = 0
) -> tuple[Executable, dict[str, np.ndarray], np.ndarray]:
    """A linear layer compiled; its input (``cut``: that of another one of so many features before it), its result."""
    rng = np.random.default_rng(m + k + n)
    weights = {"w": (fp16(rng, n, k) / np.sqrt(k)).astype(np.float16).astype(np.float32), "b": fp16(rng, n)}
    if cut:
        weights["first"] = (fp16(rng, k, cut) / np.sqrt(cut)).astype(np.float16).astype(np.float32)
    x = fp16(rng, 1, m, cut or k)

    def build(value: SSAValue) -> list[SSAValue]:
        given = nn.LinearOp(value, weight("first", weights["first"])).result if cut else value
        return [nn.LinearOp(given, weight("w", weights["w"]), weight("b", weights["b"]) if bias else None).result]

    values = x[0]
    if cut:
        values = (values @ weights["first"].T).astype(np.float16).astype(np.float32)
    expected = values @ weights["w"].T + (weights["b"] if bias else 0)
    return executable(module_of([x], build), weights, overrides), {"input0": x}, expected


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
