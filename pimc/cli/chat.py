"""``pimc chat``: turns of a user and a compiled language model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from pimc.cli import console
from pimc.cli.generate import sampling_of, tell
from pimc.cli.program import load_program

EXIT, RESET = "/exit", "/reset"


def execute(arguments: argparse.Namespace) -> None:
    """Load the binary, then answer line by line until the end of the input, or ``/exit``."""
    sampling = sampling_of(arguments)
    with console.progress(f"loading {arguments.program}"):
        executable = load_program(arguments)
    conversation = executable.conversation(system=arguments.system, sampling=sampling)
    console.prepare_simulator()
    if sys.stdin.isatty():
        console.say(f"{EXIT} ends, {RESET} forgets what has been said")
    for text in _turns():
        if text == RESET:
            conversation.reset()
            continue
        with console.prompt_progress() as on_prefill:
            result = conversation.say(
                text,
                max_new_tokens=arguments.max_new_tokens,
                on_text=console.write,
                on_prefill=on_prefill,
                max_cycles=arguments.max_cycles,
                timeout=arguments.timeout,
            )
        console.write("\n")
        tell(result)
        console.warn_of_overflows(result.overflows)
        if result.finish == "max_seq":
            console.say(f"the cache is full; {RESET} starts again")


def _turns() -> Iterator[str]:
    """What the user says, line by line; empty lines do not count."""
    asks = sys.stdin.isatty()
    if asks:
        import contextlib

        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # line editing for input()
    while True:
        try:
            text = (input("> ") if asks else next(sys.stdin)).strip()
        except (EOFError, StopIteration):
            return
        if text == EXIT:
            return
        if text:
            yield text
