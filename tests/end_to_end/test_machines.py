"""Other counts of cores and channels than hpim's: what compiles for them computes the same."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import compare
from random_graphs.case import Outcome
from random_graphs.decoders import attempt_decoder
from random_graphs.machines import draw_program
from xdsl.dialects.builtin import TensorType, f32
from xdsl.ir import SSAValue

from pimc.ir import nn

MACHINES = {
    "8 cores": ("cores.count=8", "hbm.stacks=1", "noc.columns=2"),
    "16 cores": ("cores.count=16", "hbm.stacks=2", "noc.columns=4"),
    "20 cores": ("cores.count=20", "hbm.stacks=5", "hbm.channels=8", "noc.columns=5"),
    "24 cores": ("cores.count=24", "hbm.stacks=3", "noc.columns=6"),
    "64 cores": ("cores.count=64", "hbm.stacks=8", "noc.rows=8"),
    "64 cores of 2 channels": ("cores.count=64", "noc.rows=8"),
    "128 cores of 1 channel": ("cores.count=128", "noc.rows=8", "noc.columns=16"),
}
#: In every run; the others are slow tests.
QUICK = ("20 cores", "24 cores", "64 cores of 2 channels")
OTHERS = tuple(name for name in MACHINES if name not in QUICK)
NAMES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.mark.parametrize("name", NAMES)
def test_decoder(name: str) -> None:
    """Heads in groups of cores; some groups have none."""
    for seed in (3, 6):
        assert attempt_decoder(seed, MACHINES[name]) == Outcome("right")


@pytest.mark.parametrize("heads", [5, 12])
@pytest.mark.parametrize("name", NAMES)
def test_encoder(name: str, heads: int) -> None:
    """Attention without a cache on projections that are cut over the cores."""
    dim, tokens = 8, 6
    width = heads * dim
    rng = np.random.default_rng(heads)
    weights = {
        f"{part}.weight": (rng.standard_normal((width, width)) * width**-0.5).astype(np.float16).astype(np.float32)
        for part in ("q", "k", "v", "o")
    }

    def linear(x: SSAValue, part: str) -> SSAValue:
        return nn.LinearOp(x, nn.ParamOp(f"{part}.weight", TensorType(f32, (width, width))).result).result

    def build(x: SSAValue) -> list[SSAValue]:
        attended = nn.AttentionFullOp(
            *(linear(x, part) for part in "qkv"), None, heads=heads, kv_heads=heads, head_dim=dim, scale=dim**-0.5
        )
        return [nn.AddOp(linear(attended.result, "o"), x).result]

    x = rng.standard_normal((1, tokens, width)).astype(np.float16).astype(np.float32)
    compare([x], build, weights, tolerance=6e-3, overrides=MACHINES[name])


#: A network on 1 core, a graph on 30, a decoder on 45, a wide graph on 19, an encoder on 13; of 1 to 4 channels each.
SEEDS = (5, 13, 17, 18, 27)


@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(30, 60))])
def test_random_program_on_a_random_machine(seed: int) -> None:
    """`benchmarks/random_graphs.py --machines` has as many as wanted."""
    program = draw_program(seed)
    outcome = program.attempt()
    assert outcome.kind != "failed", f"{program.describe()}\n{outcome.reason}"
