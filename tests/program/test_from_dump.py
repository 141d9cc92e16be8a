"""A dump of any stage is a way in: ``pimc compile`` takes it up and makes the binary of the model itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from compiled import Compilation

from pimc.driver.pipeline import DEFAULT

QUICK = ("outline", "layout", "schedule", "lower", "allocate")


@pytest.mark.parametrize(
    "stage", [stage if stage in QUICK else pytest.param(stage, marks=pytest.mark.slow) for stage in ("input", *DEFAULT)]
)
def test_every_dump_makes_the_same_bytes(
    pimc_cli: Callable, compilation: Compilation, tmp_path: Path, stage: str
) -> None:
    dump = compilation.dumps[compilation.names.index(stage)]
    result = pimc_cli("compile", dump, "-o", tmp_path / "again.pimx")
    assert result.code == 0, result.err
    assert (tmp_path / "again.pimx").read_bytes() == compilation.binary.read_bytes()
