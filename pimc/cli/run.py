"""``pimc run``: execute an entry point of a binary on arrays."""

from __future__ import annotations

import argparse
import time

from pimc.cli import console


def execute(arguments: argparse.Namespace) -> None:
    """Load the binary and the inputs, run, write the outputs and say what it took."""
    from pimc.driver.api import load
    from pimc.driver.npz import read_npz, write_npz
    from pimc.driver.report import run_report

    inputs = read_npz(arguments.inputs) if arguments.inputs else {}
    executable = load(
        arguments.program,
        target=arguments.target_file or arguments.target,
        overrides=arguments.overrides,
    )
    console.prepare_simulator()
    began = time.perf_counter()
    with console.progress("simulating"):
        result = executable.run(inputs, entry=arguments.entry, timing_only=arguments.timing_only)
    wall_s = time.perf_counter() - began
    if arguments.outputs and not arguments.timing_only:
        write_npz(arguments.outputs, result.outputs)
    if arguments.json:
        console.write_json(run_report(result, clock_ghz=executable.clock_ghz, wall_s=wall_s))
        return
    microseconds = result.cycles / executable.clock_ghz / 1000
    console.write(f"{result.cycles} cycles ({microseconds:.2f} us simulated, {wall_s:.1f} s)\n")
    for name, array in sorted(result.outputs.items()):
        shape = "x".join(str(size) for size in array.shape)
        console.write(f"output {name}: {shape} {array.dtype}\n")
