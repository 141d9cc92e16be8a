"""``pimc asm``: assembly text to binary."""

from __future__ import annotations

import argparse


def execute(arguments: argparse.Namespace) -> None:
    """Assemble a file into a binary."""
    from pimc.atomic import atomic_path
    from pimc.driver.files import read_text
    from pimc.isa.asm import assemble
    from pimc.isa.container import write_program

    program = assemble(read_text(arguments.source), arguments.source)
    with atomic_path(arguments.output) as temporary:
        write_program(temporary, program)
