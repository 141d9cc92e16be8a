"""``benchmarks/full_width.py``: its cheapest case holds its bound, and is not run twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "full_width.py"


@pytest.mark.slow
def test_gpt2(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--results", str(tmp_path), "--cases", "gpt2"]
    first = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "| GPT-2 | 70 + 4 | 32 | 0." in first
    assert "| OPT-1.3B | 300 + 4 | 64 | not run |" in first
    written = (tmp_path / "gpt2.json").stat().st_mtime_ns
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == first
    assert (tmp_path / "gpt2.json").stat().st_mtime_ns == written
