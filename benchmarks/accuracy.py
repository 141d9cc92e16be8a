"""A compiled language model against the fp32 PyTorch model it came from.

    python benchmarks/accuracy.py MODEL.gguf BINARY.pimx [--prompts 10] [--new-tokens 32] [--json OUT.json]

Every prompt (chat template) goes through `decode` token by token, so that there are logits at every position, then the
simulated machine continues greedily.  PyTorch computes the logits of the same tokens; compared are the next token at
every generated step and all logits at every step.  The prompt also goes through `prefill`, for its last logits.  The
machine stores fp16, PyTorch fp32; where the next tokens differ, PyTorch's logits of the two are shown.
"""

from __future__ import annotations

import argparse
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


@dataclass(frozen=True)
class Comparison:
    """One prompt: tokens, agreement of the greedy choice, and |difference| of the logits over all positions."""

    prompt: str
    prompt_tokens: int
    new_tokens: int
    equal: int
    max_difference: float
    mean_difference: float
    prefill_difference: float
    disagreements: tuple[str, ...]
    text: str


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
        """Logits behind the last of ``tokens``, in chunks."""
        logits = np.zeros(0, np.float32)
        for start in range(0, len(tokens), self.chunk):
            piece = tokens[start : start + self.chunk]
            padded = np.array([piece + [0] * (self.chunk - len(piece))], np.int32)
            place = {"position": np.array([start], np.int32), "length": np.array([len(piece)], np.int32)}
            result = self.machine.run("prefill", {"tokens": padded, **place})
            logits = np.asarray(result.outputs["logits"], np.float32).reshape(-1)
        return logits


def compare(prompt: str, new_tokens: int, simulated: Simulated, model: torch.nn.Module, codec: TextCodec) -> Comparison:
    """Run one prompt on both."""
    tokens = codec.encode(prompt, chat=True)
    path = list(tokens)
    prefill = simulated.prefill(tokens)
    rows = [simulated.decode(token, position) for position, token in enumerate(tokens)]
    for _ in range(new_tokens):
        path.append(int(rows[-1].argmax()))
        rows.append(simulated.decode(path[-1], len(path) - 1))
    with torch.no_grad():
        expected = model(torch.tensor([path])).logits[0].numpy()
    difference = np.abs(np.stack(rows) - expected)
    first = len(tokens) - 1
    disagreements = []
    for step in range(new_tokens):
        best, chosen = int(expected[first + step].argmax()), path[len(tokens) + step]
        if best != chosen:
            gap = expected[first + step, best] - expected[first + step, chosen]
            disagreements.append(f"step {step}: PyTorch {best}, machine {chosen}, {gap:.5f} apart in PyTorch")
    return Comparison(
        prompt,
        len(tokens),
        new_tokens,
        new_tokens - len(disagreements),
        float(difference.max()),
        float(difference.mean()),
        float(np.abs(prefill - expected[first]).max()),
        tuple(disagreements),
        codec.decode(path[len(tokens) :]),
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
    model = load_gguf(arguments.model).model
    simulated = Simulated(executable)
    program = executable.program
    if program.tokenizer is None or program.model is None:
        raise SystemExit("the binary has no tokenizer")
    codec = TextCodec(program.tokenizer, ModelInfo.from_json(program.model))
    table = Table("prompt", "tokens", "equal", "max |diff|", "mean |diff|", "prefill max", "s")
    console = Console(width=120)
    found = []
    for prompt in PROMPTS[: arguments.prompts]:
        started = time.monotonic()
        one = compare(prompt, arguments.new_tokens, simulated, model, codec)
        found.append(one)
        numbers = f"{one.max_difference:.4f}", f"{one.mean_difference:.5f}", f"{one.prefill_difference:.4f}"
        size = f"{one.prompt_tokens} + {one.new_tokens}"
        row = (prompt, size, f"{one.equal}/{one.new_tokens}", *numbers, f"{time.monotonic() - started:.0f}")
        table.add_row(*row)
        console.print(*row, *one.disagreements, sep=" | ")
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in found], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
