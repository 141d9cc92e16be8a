"""docs/isa.md says what the tables say."""

from __future__ import annotations

from pathlib import Path

from pimc.isa.reference import COMMAND, generate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "isa.md"  # of this checkout, wherever pimc is installed


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == generate(), f"docs/isa.md is out of date: run `{COMMAND}`"
