"""``pimc generate``: a prompt in, text out, token by token."""

from __future__ import annotations

import argparse

from pimc.cli import console


def execute(arguments: argparse.Namespace) -> None:
    """Load the binary, generate, print the text as it comes (or one JSON object at the end)."""
    from pimc.driver.api import load

    with console.progress(f"loading {arguments.program}"):
        executable = load(
            arguments.program,
            target=arguments.target_file or arguments.target,
            overrides=arguments.overrides,
        )
    console.prepare_simulator()
    with console.prompt_progress() as on_prefill:
        result = executable.generate(
            arguments.prompt,
            chat=arguments.chat,
            max_new_tokens=arguments.max_new_tokens,
            on_text=None if arguments.json else console.write,
            on_prefill=on_prefill,
            max_cycles=arguments.max_cycles,
            timeout=arguments.timeout,
        )
    if arguments.json:
        console.write_json(result.to_json())
        return
    console.write("\n")
    cycles = result.decode_cycles
    if cycles and console.watched():
        mean_us = sum(cycles) / len(cycles) / result.clock_ghz / 1000
        console.say(f"{len(result.token_ids)} tokens, {mean_us:.1f} us simulated a token, {result.wall_s:.1f} s")
