"""The FileCheck tests of this folder, one pytest each."""

from __future__ import annotations

from pathlib import Path

import pytest
from filecheck_runner import check_file

FILES = sorted((Path(__file__).parent / "filecheck").glob("*.mlir"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_filecheck(path: Path) -> None:
    output = check_file(path)
    assert output is None, output
