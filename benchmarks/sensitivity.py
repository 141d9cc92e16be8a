"""How much a compiled model's time depends on figures that nobody published.

    python benchmarks/sensitivity.py model.pimx

Runs one decode step and one prefill chunk (timing only) with each assumed figure of the target halved and doubled, and
prints cycles relative to the target as it is.  The binary stays the same: what a recompilation would gain is not shown.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

import pimc
from pimc.runtime_sim import Machine
from pimc.targets import Target, load_target

#: Key of the target -> (halved, doubled); latencies of 0 or 1 cycle are left out.
FIGURES: dict[str, tuple[int, int]] = {
    "pim_unit.load_bytes_per_cycle": (128, 512),
    "vcu.lanes": (32, 128),
    "vcu.special_lanes": (8, 32),
    "transpose.elements_per_cycle": (32, 128),
    "transfer.local_bytes_per_cycle": (64, 256),
    "noc.bytes_per_cycle": (32, 128),
    "noc.hop_cycles": (0, 2),
    "noc.router_cycles": (1, 4),
    "noc.injection_cycles": (2, 8),
    "latency.signal.pipeline": (2, 8),
    "latency.vector.pipeline": (2, 8),
    "latency.vector_special.pipeline": (6, 24),
    "latency.vector_reduce.pipeline": (8, 32),
    "latency.pim_gemv.pipeline": (4, 16),
    "latency.hbm_transfer.pipeline": (2, 8),
    "hbm.timing.nMAC": (2, 8),
    "hbm.timing.nPU": (6, 26),
    "hbm.timing.nRES": (1, 4),
    "hbm.timing.nRFC": (360, 1440),
}


def cycles(executable: pimc.Executable, target: Target, position: int) -> tuple[int, int]:
    """(decode, prefill) cycles on ``target``."""
    machine = Machine(executable.program, target, functional=False, checks=False)
    entry = executable.program.entries["prefill"]
    chunk = next(port.elements for port in entry.inputs if port.name == "tokens")
    start = position // chunk * chunk
    one = np.array([position], np.int32)
    decode = machine.run("decode", {"tokens": np.zeros((1, 1), np.int32), "position": one})
    inputs = {"position": np.array([start], np.int32), "length": np.array([chunk], np.int32)}
    prefill = machine.run("prefill", {"tokens": np.zeros((1, chunk), np.int32), **inputs})
    return decode.cycles, prefill.cycles


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="a compiled language model (.pimx)")
    parser.add_argument("--position", type=int, default=128, help="position of the decoded token")
    parser.add_argument("--target", default="hpim")
    arguments = parser.parse_args()
    executable = pimc.load(arguments.binary)
    base = cycles(executable, load_target(arguments.target), arguments.position)
    table = Table(title=f"decode {base[0]:,} cycles, prefill chunk {base[1]:,} cycles at position {arguments.position}")
    for heading in ("figure", "halved", "decode", "prefill", "doubled", "decode", "prefill"):
        table.add_column(heading)
    for key, values in FIGURES.items():
        row = [key]
        for value in values:
            target = load_target(arguments.target, [f"{key}={value}"])
            found = cycles(executable, target, arguments.position)
            changes = [f"{100 * (now / was - 1):+.1f} %" for now, was in zip(found, base, strict=True)]
            row += [str(value), *changes]
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
