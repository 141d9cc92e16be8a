"""docs/isa.md says what the tables say."""

from __future__ import annotations

from pimc.isa.reference import COMMAND, default_path, generate


def test_page_is_up_to_date() -> None:
    path = default_path()
    assert path.exists(), f"run `{COMMAND}`"
    assert path.read_text(encoding="utf-8") == generate(), f"docs/isa.md is out of date: run `{COMMAND}`"
