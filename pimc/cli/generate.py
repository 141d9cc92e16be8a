"""``pimc generate``: prompts in, text out, token by token."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pimc.cli import console
from pimc.cli.program import load_program
from pimc.diagnostics import InputError, UsageError

if TYPE_CHECKING:
    from pimc.generation import Generation
    from pimc.sampling import Sampling


def execute(arguments: argparse.Namespace) -> None:
    """Load the binary, generate, print the text as it comes (or one JSON object at the end)."""
    prompts = _prompts(arguments)
    sampling = sampling_of(arguments)
    with console.progress(f"loading {arguments.program}"):
        executable = load_program(arguments)
    console.prepare_simulator()
    results: list[Generation] = []
    for prompt in prompts:
        if len(prompts) > 1 and not arguments.json:
            console.write(f"> {prompt}\n")
        with console.prompt_progress() as on_prefill:
            result = executable.generate(
                prompt,
                chat=arguments.chat,
                max_new_tokens=arguments.max_new_tokens,
                sampling=sampling,
                on_text=None if arguments.json else console.write,
                on_prefill=on_prefill,
                max_cycles=arguments.max_cycles,
                timeout=arguments.timeout,
            )
        results.append(result)
        if not arguments.json:
            console.write("\n")
            tell(result)
        console.warn_of_overflows(result.overflows)
    if arguments.json:
        answers = [result.to_json() for result in results]
        console.write_json(answers[0] if len(answers) == 1 else {"answers": answers})


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """How the options say that tokens are chosen."""
    from pimc.sampling import Sampling

    return Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.seed)


def tell(result: Generation) -> None:
    """What an answer took, for a person who watches."""
    if not console.watched():
        return
    to_us = 1 / result.clock_ghz / 1000
    parts = [f"prompt: {len(result.prompt_token_ids)} tokens, {result.prefill_cycles * to_us:,.1f} us simulated"]
    parts.append(f"answer: {len(result.token_ids)} tokens")
    if result.decode_cycles:
        parts.append(f"{sum(result.decode_cycles) / len(result.decode_cycles) * to_us:,.1f} us a token")
    console.say(f"{'; '.join(parts)}; {result.wall_s:.1f} s")


def _prompts(arguments: argparse.Namespace) -> list[str]:
    """The prompts of the options, those of the file behind the others."""
    prompts = list(arguments.prompts)
    if arguments.prompts_file:
        from pimc.files import read_text
        from pimc.limits import TEXT_FILE_BYTES

        lines = read_text(arguments.prompts_file, TEXT_FILE_BYTES, stdin=True).splitlines()
        found = [line for line in lines if line.strip()]
        if not found:
            raise InputError("holds no prompts", where=arguments.prompts_file, hint="a prompt a line")
        prompts += found
    if not prompts:
        raise UsageError(
            "neither --prompt nor --prompts-file is given",
            hint="--prompt TEXT or --prompts-file FILE; see `pimc generate --help`",
        )
    return prompts
