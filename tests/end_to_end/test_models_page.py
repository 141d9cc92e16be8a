"""``benchmarks/models.py``: a model timed, one refused, and taken up again without running anything twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "models.py"
OPT = {
    "model_type": "opt", "vocab_size": 100, "hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 640, "word_embed_proj_dim": 64,
}  # fmt: skip


def bench(folder: Path, *words: str) -> str:
    command = [sys.executable, SCRIPT, "--results", folder / "results", "--configs", folder, *words]
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_the_page(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(json.dumps(OPT))
    (tmp_path / "odd.json").write_text(json.dumps({**OPT, "num_attention_heads": 5}))
    words = ("--models", "good,odd", "--prefill-chunk", "64")
    assert "| good | 640 | not run |" in bench(tmp_path, *words, "--table")
    page = bench(tmp_path, *words)
    good, odd = (next(line for line in page.splitlines() if line.startswith(f"| {name} |")) for name in ("good", "odd"))
    cycles = [int(cell.replace(",", "")) for cell in good.strip("| ").split(" | ")[2:] if cell != "-"]
    assert len(cycles) == 4  # its maximum is shorter than 1,024
    assert "makes no model" in odd
    assert "| good | 640 | " in page.split("## Programs")[1]
    assert bench(tmp_path, *words, "--table") == page
    file = tmp_path / "results" / "good-640" / "decode-128.json"
    result = json.loads(file.read_text())
    file.write_text(json.dumps({**result, "cycles": 1}))
    assert " | 1 | " in bench(tmp_path, *words)  # what is there is not run again
