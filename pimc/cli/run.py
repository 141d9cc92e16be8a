"""``pimc run``: execute an entry point of a binary on arrays."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from pimc.cli import console
from pimc.cli.program import load_program
from pimc.diagnostics import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pimc.runtime import Executable


def execute(arguments: argparse.Namespace) -> None:
    """Load the binary and the inputs, run, write the outputs and say what it took."""
    from pimc.driver.npz import write_npz
    from pimc.driver.report import run_report

    if arguments.outputs and arguments.timing_only:
        raise UsageError("--timing-only computes no outputs that --outputs could write", hint="leave one of them out")
    given = _given(arguments)
    executable = load_program(arguments, checks=not arguments.no_checks)
    entry = executable.entry(arguments.entry)
    inputs = _inputs(executable, entry, given, fill=arguments.timing_only)
    if arguments.assume_cache is not None:
        executable.assume_cache(arguments.assume_cache)
    console.prepare_simulator()
    began = time.perf_counter()
    with console.progress("simulating") as update:
        result = executable.run(
            inputs,
            entry=entry,
            timing_only=arguments.timing_only,
            max_cycles=arguments.max_cycles,
            timeout=arguments.timeout,
            on_progress=lambda cycles: update(f"simulating: {cycles:,} cycles"),
        )
    wall_s = time.perf_counter() - began
    if arguments.outputs:
        write_npz(arguments.outputs, result.outputs)
    console.warn_of_overflows(result.overflows)
    if arguments.json:
        console.write_json(run_report(result, clock_ghz=executable.clock_ghz, wall_s=wall_s))
        return
    microseconds = result.cycles / executable.clock_ghz / 1000
    console.write(f"{result.cycles} cycles ({microseconds:.2f} us simulated, {wall_s:.1f} s)\n")
    for name, array in sorted(result.outputs.items()):
        shape = "x".join(str(size) for size in array.shape)
        console.write(f"output {console.plain(name)}: {shape} {array.dtype}\n")


def _given(arguments: argparse.Namespace) -> dict[str, NDArray[np.generic]]:
    """The arrays of ``--inputs`` and ``--input``."""
    from pimc.driver.inputs import values_of
    from pimc.driver.npz import read_npz

    arrays = read_npz(arguments.inputs) if arguments.inputs else {}
    values = values_of(arguments.input, "--input")
    twice = sorted(set(arrays) & set(values))
    if twice:
        raise UsageError(f"input '{twice[0]}' is given twice", hint="once in --inputs, once with --input")
    return {**arrays, **values}


def _inputs(
    executable: Executable, entry: str, given: dict[str, NDArray[np.generic]], *, fill: bool
) -> dict[str, NDArray[np.generic]]:
    """The inputs of ``entry``; with ``fill``, those that are not given are made up, and that is said."""
    from pimc.driver.inputs import shaped, stand_ins

    ports = executable.inputs[entry]
    inputs = shaped(given, ports)
    if not fill:
        return inputs
    made = stand_ins(inputs, ports)
    for name, array in made.items():
        value = "zeros" if not array.any() else str(array.reshape(-1)[0])
        console.say(f"input {console.plain(name)} is not given: {value} for the timing")
    return {**inputs, **made}
