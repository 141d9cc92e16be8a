"""``pimc asm``: assembly text to binary."""

from __future__ import annotations

import argparse


def execute(arguments: argparse.Namespace) -> None:
    """Assemble a file into a binary."""
    from pimc.files import read_text
    from pimc.isa.asm import assemble
    from pimc.isa.container import write_program
    from pimc.limits import TEXT_FILE_BYTES

    program = assemble(read_text(arguments.source, TEXT_FILE_BYTES, stdin=True), arguments.source)
    write_program(arguments.output, program)
