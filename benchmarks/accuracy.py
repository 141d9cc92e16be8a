"""A compiled language model against the fp32 PyTorch model it came from.

    python benchmarks/accuracy.py MODEL.gguf BINARY.pimx [--prompts 10] [--new-tokens 32] [--json OUT.json]

Every prompt (chat template) goes through `decode` token by token, so that there are logits at every position, then the
simulated machine continues greedily.  PyTorch computes the logits of the same tokens; compared are the next token at
every generated step and all logits at every step.  The prompt also goes through `prefill`, for the last logits of every
chunk.  The machine stores fp16, PyTorch fp32; where the next tokens differ, PyTorch's logits of the two are shown.  As
a yardstick PyTorch also runs the model in fp16.  Exit status 1 if a bound of docs/numerics.md does not hold.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import pimc
from pimc.frontends.checkpoint_files import with_values
from pimc.frontends.gguf import load_gguf
from pimc.runtime_sim import Machine
from pimc.text import ModelInfo, TextCodec

PROMPTS = (
    "What is the capital of France?",
    "Write a haiku about memory.",
    "Explain photosynthesis in one sentence.",
    "List three prime numbers.",
    "Who wrote Romeo and Juliet?",
    "Translate 'good morning' to Spanish.",
    "What is 12 times 12?",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Name a famous painting and its painter.",
)


#: docs/numerics.md: bounds on |logits - PyTorch fp32|: any one, and their mean.  The first is also how far apart
#: PyTorch's two top logits may be where the machine takes the second.
MAX_BOUND, MEAN_BOUND = 0.5, 0.04


@dataclass(frozen=True)
class Disagreement:
    """A step where the machine's next token is not PyTorch's.

    ``rank``: place of the machine's token among PyTorch's (1 is the runner-up).  ``gap``: PyTorch's logits of the two
    apart.  ``error``: sum of the machine's errors in these two logits, which is at least the gap.
    """

    step: int
    expected: int
    chosen: int
    rank: int
    gap: float
    error: float

    def __str__(self) -> str:
        return (
            f"step {self.step}: PyTorch {self.expected}, machine {self.chosen} (PyTorch's rank {self.rank}), "
            f"{self.gap:.5f} apart in PyTorch, errors of the machine {self.error:.5f}"
        )


@dataclass(frozen=True)
class Comparison:
    """One prompt: tokens, agreement of the greedy choice, and |difference| of the logits over all positions.

    ``max_position``: where the greatest difference is.  ``own_max_difference``: the greatest from ``first_own`` on, the
    first position whose token is not the same in all chat prompts.  ``prefill_differences``: greatest, a chunk.
    ``half_max``, ``half_mean``: of PyTorch in fp16.
    """

    prompt: str
    prompt_tokens: int
    new_tokens: int
    equal: int
    max_difference: float
    max_position: int
    own_max_difference: float
    mean_difference: float
    prefill_differences: tuple[float, ...]
    half_max: float
    half_mean: float
    disagreements: tuple[Disagreement, ...]
    text: str

    @property
    def holds(self) -> bool:
        """Whether the bounds hold."""
        worst = max(self.max_difference, *self.prefill_differences)
        ties = all(one.rank == 1 and one.gap <= MAX_BOUND for one in self.disagreements)
        return worst <= MAX_BOUND and self.mean_difference <= MEAN_BOUND and ties


class Simulated:
    """The compiled model, one position at a time."""

    def __init__(self, executable: pimc.Executable) -> None:
        self.machine = Machine(executable.program, executable.target, checks=False)
        entry = executable.program.entries["prefill"]
        self.chunk = next(port.elements for port in entry.inputs if port.name == "tokens")

    def decode(self, token: int, position: int) -> NDArray[np.float32]:
        """Logits behind ``token`` at ``position``, [vocab]."""
        inputs = {"tokens": np.array([[token]], np.int32), "position": np.array([position], np.int32)}
        return np.asarray(self.machine.run("decode", inputs).outputs["logits"], np.float32).reshape(-1)

    def prefill(self, tokens: list[int]) -> NDArray[np.float32]:
        """Logits behind the last token of every chunk, [chunks, vocab]."""
        logits = []
        for start in range(0, len(tokens), self.chunk):
            piece = tokens[start : start + self.chunk]
            padded = np.array([piece + [0] * (self.chunk - len(piece))], np.int32)
            place = {"position": np.array([start], np.int32), "length": np.array([len(piece)], np.int32)}
            result = self.machine.run("prefill", {"tokens": padded, **place})
            logits.append(np.asarray(result.outputs["logits"], np.float32).reshape(-1))
        return np.stack(logits)


class Reference:
    """The PyTorch model, in fp32 and in fp16."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.single, self.half = model, copy.deepcopy(model).half()

    def logits(self, tokens: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits of every position in fp32 and in fp16, each [tokens, vocab]."""
        with torch.no_grad():
            found = [model(torch.tensor([tokens])).logits[0].float().numpy() for model in (self.single, self.half)]
        return found[0], found[1]


def first_own_position(codec: TextCodec) -> int:
    """Tokens that all chat prompts begin with."""
    encoded = [codec.encode(prompt, chat=True) for prompt in PROMPTS]
    return next(i for i, column in enumerate(zip(*encoded, strict=False)) if len(set(column)) > 1)


def disagree(step: int, machine: NDArray[np.float32], expected: NDArray[np.float32]) -> Disagreement | None:
    """What one step's logits (each [vocab]) say about the next token, None if both say the same."""
    best, chosen = int(expected.argmax()), int(machine.argmax())
    if best == chosen:
        return None
    rank = int((expected > expected[chosen]).sum())
    error = float(np.abs(machine - expected)[[best, chosen]].sum())
    return Disagreement(step, best, chosen, rank, float(expected[best] - expected[chosen]), error)


def compare(prompt: str, new_tokens: int, simulated: Simulated, reference: Reference, codec: TextCodec) -> Comparison:
    """Run one prompt on both."""
    tokens = codec.encode(prompt, chat=True)
    path = list(tokens)
    prefill = simulated.prefill(tokens)
    rows = [simulated.decode(token, position) for position, token in enumerate(tokens)]
    for _ in range(new_tokens):
        path.append(int(rows[-1].argmax()))
        rows.append(simulated.decode(path[-1], len(path) - 1))
    expected, half = reference.logits(path)
    difference = np.abs(np.stack(rows) - expected)
    worst = difference.max(axis=1)
    first = len(tokens) - 1
    steps = (disagree(step, rows[first + step], expected[first + step]) for step in range(new_tokens))
    disagreements = tuple(found for found in steps if found)
    ends = [min(start + simulated.chunk, len(tokens)) - 1 for start in range(0, len(tokens), simulated.chunk)]
    return Comparison(
        prompt=prompt,
        prompt_tokens=len(tokens),
        new_tokens=new_tokens,
        equal=new_tokens - len(disagreements),
        max_difference=float(worst.max()),
        max_position=int(worst.argmax()),
        own_max_difference=float(worst[first_own_position(codec) :].max()),
        mean_difference=float(difference.mean()),
        prefill_differences=tuple(float(x) for x in np.abs(prefill - expected[ends]).max(axis=1)),
        half_max=float(np.abs(half - expected).max()),
        half_mean=float(np.abs(half - expected).mean()),
        disagreements=disagreements,
        text=codec.decode(path[len(tokens) :]),
    )


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="GGUF file")
    parser.add_argument("binary", type=Path, help="what pimc compile made of it")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    executable = pimc.load(arguments.binary)
    reference = Reference(with_values(load_gguf(arguments.model)))
    simulated = Simulated(executable)
    program = executable.program
    if program.tokenizer is None or program.model is None:
        raise SystemExit("the binary has no tokenizer")
    codec = TextCodec(program.tokenizer, ModelInfo.from_json(program.model))
    columns = (
        "prompt",
        "tokens",
        "equal",
        "max |diff|",
        "at",
        "own max",
        "mean",
        "prefill max",
        "fp16 max",
        "mean",
        "s",
    )
    table = Table(*columns)
    console = Console(width=150)
    found = []
    for prompt in PROMPTS[: arguments.prompts]:
        started = time.monotonic()
        one = compare(prompt, arguments.new_tokens, simulated, reference, codec)
        found.append(one)
        row = (*cells(one), f"{time.monotonic() - started:.0f}")
        table.add_row(*row)
        console.print(*row, *map(str, one.disagreements), sep=" | ", soft_wrap=True)
    console.print(table)
    total = summary(found)
    console.print_json(data=total)
    if arguments.json:
        result = {"summary": total, "prompts": [asdict(one) for one in found]}
        arguments.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    if not total["holds"]:
        raise SystemExit(1)


def cells(one: Comparison) -> tuple[str, ...]:
    """A prompt's row of the table."""
    return (
        one.prompt,
        f"{one.prompt_tokens} + {one.new_tokens}",
        f"{one.equal}/{one.new_tokens}",
        f"{one.max_difference:.4f}",
        f"{one.max_position}",
        f"{one.own_max_difference:.4f}",
        f"{one.mean_difference:.5f}",
        f"{max(one.prefill_differences):.4f}",
        f"{one.half_max:.4f}",
        f"{one.half_mean:.5f}",
    )


def summary(found: list[Comparison]) -> dict[str, float | bool]:
    """All prompts together."""
    positions = [one.prompt_tokens + one.new_tokens for one in found]
    return {
        "positions": sum(positions),
        "steps": sum(one.new_tokens for one in found),
        "equal": sum(one.equal for one in found),
        "prompts_equal": sum(not one.disagreements for one in found),
        "max_difference": max(one.max_difference for one in found),
        "mean_difference": float(np.average([one.mean_difference for one in found], weights=positions)),
        "prefill_difference": max(max(one.prefill_differences) for one in found),
        "half_max": max(one.half_max for one in found),
        "half_mean": float(np.average([one.half_mean for one in found], weights=positions)),
        "max_bound": MAX_BOUND,
        "mean_bound": MEAN_BOUND,
        "holds": all(one.holds for one in found),
    }


if __name__ == "__main__":
    main()
