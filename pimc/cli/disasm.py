"""``pimc disasm``: binary to assembly text."""

from __future__ import annotations

import argparse

from pimc.cli import console


def execute(arguments: argparse.Namespace) -> None:
    """Print the assembly text of a binary, or of one of its streams."""
    from pimc.atomic import write_text
    from pimc.isa.container import load_program
    from pimc.isa.disasm import disassemble

    text = disassemble(load_program(arguments.program), stream=arguments.stream)
    if arguments.output:
        write_text(arguments.output, text)
    else:
        console.write(text)
