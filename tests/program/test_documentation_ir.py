"""The worked example of docs/ir.md, as it stands on the page: IR by hand, weights, a binary, a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "ir.md"


def block(language: str) -> str:
    """The one fenced block of a language on the page."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(text)


def test_the_worked_example(pimc_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("head.mlir").write_text(block("mlir"))
    exec(block("python"), {})
    for line in block("sh").splitlines():
        program, *words = shlex.split(line)
        assert program == "pimc"
        result = pimc_cli(*words)
        assert result.code == 0, result.err
    x = np.load("in.npz")["x"][:, :4]
    found = np.load("out.npz")["probabilities"]
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)
