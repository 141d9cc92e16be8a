"""Fixtures of the tests of commands that run a binary."""

from __future__ import annotations

from pathlib import Path

import pytest
from counting_model import counting_program

from pimc.runtime import Executable
from pimc.targets import load_target


@pytest.fixture(scope="module")
def counting() -> Executable:
    """The counting model on its target."""
    return Executable(counting_program(), load_target("hpim"))


@pytest.fixture(scope="module")
def binary(counting: Executable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counting model in a file."""
    path = tmp_path_factory.mktemp("binary") / "counting.pimx"
    counting.save(path)
    return path
