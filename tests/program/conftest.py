"""A small Llama, compiled once with the IR of every pass written down."""

from __future__ import annotations

import contextlib
import io

import pytest
from compiled import SIZES, Compilation
from hf_models import FAMILIES, build

from pimc.cli.main import main


@pytest.fixture(scope="session")
def compilation(tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    """What ``pimc compile --dump-ir`` leaves."""
    root = tmp_path_factory.mktemp("program")
    folder, binary, dumps = root / "model", root / "m.pimx", root / "ir"
    build(next(family for family in FAMILIES if family.name == "llama-mha-4"), folder)
    words = ["compile", str(folder), "-o", str(binary), *SIZES, "--dump-ir", str(dumps), "--time-passes"]
    messages = io.StringIO()
    with contextlib.redirect_stderr(messages):
        assert main(words) == 0, messages.getvalue()
    return Compilation(folder, binary, tuple(sorted(dumps.glob("*.mlir"))), messages.getvalue())
