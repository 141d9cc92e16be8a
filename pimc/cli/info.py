"""``pimc info``: what is in a binary."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pimc.cli import console


def execute(arguments: argparse.Namespace) -> None:
    """Print the entry points of a binary with their inputs and outputs, its sizes, and what it was made for."""
    from pimc.driver.info import ProgramInfo, info_of
    from pimc.isa.container import load_program

    def lines(info: ProgramInfo) -> Iterator[str]:
        yield f"{arguments.program}: {info.file_bytes:,} bytes, target {info.target} ({info.digest[:12]})"
        yield f"model: {console.plain(info.model or 'not named')}"
        if info.overrides:
            yield f"compiled with: {console.plain(', '.join(f'--set {text}' for text in info.overrides), 400)}"
        yield f"code: {info.code_bytes:,} bytes; images: {info.image_bytes:,} bytes; {info.rows:,} rows a bank"
        if info.shapes_only:
            yield "weights: absent (compiled with --shapes-only), so that it can be timed and computes nothing"
        if info.text is not None:
            yield f"text: {console.plain(info.text)}"
        if info.positions is not None:
            yield f"KV cache: {info.positions:,} positions"
        for entry in info.entries:
            yield f"@{entry.name}: {entry.cores}, {entry.controllers}"
            yield from (f"  input  {console.plain(str(port))}" for port in entry.inputs)
            yield from (f"  output {console.plain(str(port))}" for port in entry.outputs)

    info = info_of(load_program(arguments.program), Path(arguments.program).stat().st_size)
    if arguments.json:
        console.write_json(info.to_json())
        return
    for line in lines(info):
        console.write(f"{line}\n")
