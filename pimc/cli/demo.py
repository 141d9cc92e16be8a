"""``pimc demo``: a small language model answers a question on the simulated hardware."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pimc.cli import console

if TYPE_CHECKING:
    from pimc.generation import Generation

_TARGET = "hpim"
_UNIT_NAMES = {
    "bank MAC": "HBM-PIM banks (MAC)",
    "tcu": "tensor unit",
    "vcu": "vector unit",
    "scu": "scalar unit",
    "pim": "SRAM-PIM unit",
    "trans": "transpose unit",
    "xfer": "HBM transfers",
    "noc": "network on chip",
}


def execute(arguments: argparse.Namespace) -> None:
    """Fetch, compile, ask, and say what it took."""
    from pimc import demo
    from pimc.driver.api import load
    from pimc.targets import load_target

    target = load_target(_TARGET)
    path = demo.ensure_binary(target, again=arguments.no_cache, fetch=not arguments.no_install, say=console.say)
    with console.progress("loading the binary into the simulated memories"):
        executable = load(path)
    console.prepare_simulator()
    console.write(f"\n> {arguments.prompt}\n")
    with console.prompt_progress() as on_prefill:
        result = executable.generate(
            arguments.prompt,
            chat=True,
            max_new_tokens=arguments.max_new_tokens,
            on_text=console.write,
            on_prefill=on_prefill,
        )
    console.write("\n\n")
    _summary(result, target.description)


def _summary(result: Generation, machine: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"On the simulated {machine}", title_justify="left", show_header=False)
    for label, value in _rows(result):
        table.add_row(label, value)
    Console(highlight=False).print(table)


def _rows(result: Generation) -> list[tuple[str, str]]:
    to_us = 1 / result.clock_ghz / 1000
    rows = [
        ("prompt", f"{len(result.prompt_token_ids)} tokens in {result.prefill_cycles * to_us:,.1f} us"),
        ("answer", f"{len(result.token_ids)} tokens"),
    ]
    if result.decode_cycles:
        mean_us = sum(result.decode_cycles) / len(result.decode_cycles) * to_us
        rows += [
            ("simulated time a token", f"{mean_us:,.1f} us"),
            ("simulated tokens/s", f"{1e6 / mean_us:,.0f}"),
            ("wall time", f"{result.wall_s:.1f} s"),
        ]
        rows += [
            (f"  busy: {_UNIT_NAMES.get(unit, unit)}", f"{share:.1%} of the time")
            for unit, share in result.shares.items()
            if share >= 0.001
        ]
    return rows
