"""The size of the caches is in a program's constants: its length, and compiling it, do not depend on ``max_seq``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hf_models import FAMILIES, build

import pimc


@pytest.mark.parametrize("name", [pytest.param("llama-gqa-9-3", marks=pytest.mark.slow), "opt"])
def test_programs_of_any_max_seq_have_the_same_words(tmp_path: Path, name: str) -> None:
    build(next(family for family in FAMILIES if family.name == name), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 256', '"max_position_embeddings": 131072'))
    counts = []
    for max_seq in (64, 2048, 131072):
        program = pimc.compile(tmp_path, max_seq=max_seq, prefill_chunk=8, shapes_only=True).program
        counts.append({name: len(code) for name, code in program.code.items()})
    assert counts[0] == counts[1] == counts[2]
