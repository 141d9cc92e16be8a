"""The real model, by the command line: compile, answer, and agree with PyTorch in fp32."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pimc

pytestmark = pytest.mark.slow

COMPILE_BYTES = 6 << 30
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
ACCURACY = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy.py"


def pimc_command(*words: str | Path) -> str:
    """Stdout of a ``pimc`` command that must succeed."""
    command = [sys.executable, "-m", "pimc", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@pytest.fixture(scope="module")
def binary(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The compiled model; compiling it keeps its limit of memory."""
    path = tmp_path_factory.mktemp("smollm2") / "model.pimx"
    command = [sys.executable, "-m", "pimc", "compile", str(smollm2_gguf), "-o", str(path), "--max-seq", "512"]
    # Run by a small process: a child's peak counts the memory of the process that forked it.
    measured = [sys.executable, "-c", MEASURE, *command]
    used = subprocess.run(measured, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert int(used) * 1024 < COMPILE_BYTES
    yield path
    path.unlink()


def test_answer(binary: Path) -> None:
    output = pimc_command("generate", binary, "--prompt", "What is the capital of France?", "--chat", "--json")
    answer = json.loads(output)
    assert answer["text"] == "The capital of France is Paris."
    assert len(answer["decode_cycles"]) == len(answer["token_ids"]) - 1
    assert all(cycles > 0 for cycles in answer["decode_cycles"])


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("accuracy", ACCURACY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["accuracy"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_logits_and_tokens(binary: Path, smollm2_gguf: Path, accuracy: ModuleType) -> None:
    from pimc.frontends.checkpoint_files import with_values
    from pimc.frontends.gguf import load_gguf
    from pimc.text import ModelInfo, TextCodec

    executable = pimc.load(binary)
    program = executable.program
    assert program.tokenizer is not None
    assert program.model is not None
    codec = TextCodec(program.tokenizer, ModelInfo.from_json(program.model))
    simulated, reference = accuracy.Simulated(executable), accuracy.Reference(with_values(load_gguf(smollm2_gguf)))
    for prompt in accuracy.PROMPTS[:2]:
        found = accuracy.compare(prompt, 8, simulated, reference, codec)
        assert found.max_difference <= accuracy.MAX_BOUND  # docs/numerics.md
        assert max(found.prefill_differences) <= accuracy.MAX_BOUND
        assert found.mean_difference <= accuracy.MEAN_BOUND
        assert found.mean_difference < 1.5 * found.half_mean  # about as good as PyTorch in fp16
        assert found.equal == found.new_tokens, found.disagreements
