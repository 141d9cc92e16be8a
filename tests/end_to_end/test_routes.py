"""The real model by three routes: GGUF, ONNX and .pt2 of the same weights give the same tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from onnx_decoders import export_onnx

import pimc

if TYPE_CHECKING:
    from pimc.frontends.model import Checkpoint
    from pimc.runtime import Executable

pytestmark = pytest.mark.slow

MAX_SEQ = 128
PROMPTS = ("What is the capital of France?", "Name three colours.")
NEW_TOKENS = 16


@pytest.fixture(scope="module")
def checkpoint(smollm2_gguf: Path) -> Checkpoint:
    from pimc.frontends.checkpoint_files import with_values
    from pimc.frontends.gguf import load_gguf

    found = load_gguf(smollm2_gguf)
    return replace(found, model=with_values(found), readers=None)


@pytest.fixture(scope="module")
def folder(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the tokenizer, where the exported models go."""
    path = tmp_path_factory.mktemp("routes")
    assert checkpoint.tokenizer.tokenizer_json is not None
    assert checkpoint.tokenizer.chat_template is not None
    (path / "tokenizer.json").write_text(checkpoint.tokenizer.tokenizer_json, encoding="utf-8")
    (path / "chat_template.jinja").write_text(checkpoint.tokenizer.chat_template, encoding="utf-8")
    ends = {"eos_token_id": checkpoint.tokenizer.eos_ids}
    (path / "generation_config.json").write_text(json.dumps(ends), encoding="utf-8")
    yield path
    for file in path.iterdir():
        file.unlink()


@pytest.fixture(scope="module")
def tokens(smollm2_gguf: Path) -> list[list[int]]:
    """What the GGUF route answers."""
    return _answers(pimc.compile(smollm2_gguf, max_seq=MAX_SEQ))


def _answers(executable: Executable) -> list[list[int]]:
    found: list[list[int]] = []
    for prompt in PROMPTS:
        found.append(executable.generate(prompt, chat=True, max_new_tokens=NEW_TOKENS).token_ids)
        executable.reset()
    return found


def test_onnx(checkpoint: Checkpoint, folder: Path, tokens: list[list[int]]) -> None:
    path = folder / "model.onnx"
    export_onnx(checkpoint.model, path, opset=23, optimize=False)
    executable = pimc.compile(path, max_seq=MAX_SEQ)
    assert set(executable.entries) == {"prefill", "decode"}
    assert _answers(executable) == tokens


def test_pt2(checkpoint: Checkpoint, folder: Path, tokens: list[list[int]]) -> None:
    """The form that `transformers` exports for other runtimes: one token at a time, so the prompt is decoded."""
    import torch
    from transformers import GenerationConfig
    from transformers.integrations.executorch import convert_and_export_with_cache

    model = checkpoint.model
    model.set_attn_implementation("sdpa")
    model.generation_config = GenerationConfig(
        use_cache=True, cache_implementation="static", max_length=MAX_SEQ,
        cache_config={"batch_size": 1, "max_cache_len": MAX_SEQ},
    )  # fmt: skip
    path = folder / "model.pt2"
    with torch.no_grad():
        torch.export.save(convert_and_export_with_cache(model), path)
    executable = pimc.compile(path, max_seq=MAX_SEQ)
    assert set(executable.entries) == {"decode"}
    assert _answers(executable) == tokens


def test_answers_are_of_the_model(tokens: list[list[int]], checkpoint: Checkpoint) -> None:
    """The tokens that all routes share are PyTorch's: the first prompt's answer is the known one."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.tokenizer_json)
    text = tokenizer.decode(tokens[0], skip_special_tokens=True)
    assert text == "The capital of France is Paris."
