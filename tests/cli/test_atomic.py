"""Outputs appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimc.atomic import atomic_path, write_text
from pimc.diagnostics import InputError


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    final = tmp_path / "out.txt"
    with atomic_path(final) as temporary:
        temporary.write_text("content")
        assert not final.exists()
    assert final.read_text() == "content"
    assert list(tmp_path.iterdir()) == [final]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    final = tmp_path / "out.txt"
    write_text(final, "old")

    def fail() -> None:
        with atomic_path(final) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("name", ["no/such/folder.txt", "."])
def test_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        write_text(tmp_path / name, "content")
