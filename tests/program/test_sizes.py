"""Program sizes: reported a core and a channel group, and the same for every longest sequence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from compiled import Compilation
from hf_models import FAMILIES, build

from pimc.driver.report import program_report
from pimc.isa.container import load_program

FAMILY = next(family for family in FAMILIES if family.name == "llama-gqa-9-3")
#: Powers of two, and a length that is none (its cache strides are no shifts).
LENGTHS, MORE_LENGTHS = (16, 720, 4096), (16, 256, 1024, 2048)


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


@pytest.mark.parametrize("lengths", [LENGTHS, pytest.param(MORE_LENGTHS, marks=pytest.mark.slow)])
def test_sizes_do_not_depend_on_the_longest_sequence(
    pimc_cli: Callable, folder: Path, tmp_path: Path, lengths: tuple[int, ...]
) -> None:
    reports = [report(pimc_cli, folder, length, tmp_path) for length in lengths]
    for length, found in zip(lengths, reports, strict=True):
        assert found["entries"] == reports[0]["entries"], length
        assert found["code_bytes"] == reports[0]["code_bytes"], length
    assert reports[-1]["rows_per_bank"] > reports[0]["rows_per_bank"]  # the caches


def test_what_is_reported(compilation: Compilation) -> None:
    program = load_program(compilation.binary)
    found = program_report(program)
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
    decode = found["entries"]["decode"]["cores"]
    line = f"@decode: {decode['max_instructions']:,} instructions ({decode['max_bytes']:,} bytes) a core"
    assert line in compilation.messages
    memory = f"memory image: {found['image_bytes']:,} bytes; {found['rows_per_bank']} rows a bank"
    assert memory in compilation.messages
