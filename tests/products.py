"""Linear layers of any size, compiled for machines of several sizes, with their results by numpy in fp32."""

from __future__ import annotations

import numpy as np
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
