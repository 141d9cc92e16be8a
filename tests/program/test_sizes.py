"""Program sizes: reported a core and a channel group, and the same for every longest sequence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hf_models import FAMILIES, build

FAMILY = next(family for family in FAMILIES if family.name == "llama-gqa-9-3")
#: Powers of two, and lengths that are none (their cache strides are no shifts).
LENGTHS = (16, 256, 720, 1024, 2048, 4096)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's head counts on 32 cores, small otherwise, with positions for long sequences."""
    path = tmp_path_factory.mktemp("model") / "llama"
    build(replace(FAMILY, arguments={**FAMILY.arguments, "max_position_embeddings": 4096}), path)
    return path


def report(pimc_cli: Callable, folder: Path, length: int, out: Path) -> dict:
    result = pimc_cli(
        "compile", folder, "-o", out / f"{length}.pimx", "--max-seq", str(length), "--prefill-chunk", "16", "--json"
    )
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_sizes_do_not_depend_on_the_longest_sequence(pimc_cli: Callable, folder: Path, tmp_path: Path) -> None:
    reports = {length: report(pimc_cli, folder, length, tmp_path) for length in LENGTHS}
    first = reports[LENGTHS[0]]
    for length, found in reports.items():
        assert found["entries"] == first["entries"], length
        assert found["code_bytes"] == first["code_bytes"], length
    assert reports[2048]["rows_per_bank"] > reports[256]["rows_per_bank"]  # the caches


def test_what_is_reported(pimc_cli: Callable, folder: Path, tmp_path: Path) -> None:
    found = report(pimc_cli, folder, 64, tmp_path)
    assert found["image_bytes"] > 0
    assert found["rows_per_bank"] > 0
    assert set(found["entries"]) == {"prefill", "decode"}
    for entry in found["entries"].values():
        for kind, word_bytes in (("cores", 4), ("controllers", 8)):
            streams = entry[kind]
            assert streams["streams"] == len(streams["instructions_each"]) == 32
            assert 0 < streams["min_instructions"] <= streams["max_instructions"] == max(streams["instructions_each"])
            assert streams["max_bytes"] == word_bytes * streams["max_instructions"]
            assert streams["bytes"] == sum(streams["bytes_each"]) == word_bytes * streams["instructions"]
    said = pimc_cli("compile", folder, "-o", tmp_path / "m.pimx", "--max-seq", "64")
    decode = found["entries"]["decode"]["cores"]
    line = f"@decode: {decode['max_instructions']:,} instructions ({decode['max_bytes']:,} bytes) a core"
    assert line in said.err
    assert f"memory image: {found['image_bytes']:,} bytes; {found['rows_per_bank']} rows a bank" in said.err
