"""``pimc asm``: assembly text to binary."""

from __future__ import annotations

import argparse


def execute(arguments: argparse.Namespace) -> None:
    """Assemble a file into a binary."""
    from pimc.driver.files import read_text
    from pimc.isa.asm import assemble
    from pimc.isa.container import write_program

    program = assemble(read_text(arguments.source), arguments.source)
    write_program(arguments.output, program)
