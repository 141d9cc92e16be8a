"""``--prefill-chunk auto``: the search, and what a compilation makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pimc.diagnostics import DoesNotFitError
from pimc.driver.chunks import largest_that_fits
from pimc.isa.container import load_program


@pytest.mark.parametrize("most", [1, 3, 64, 512])
@pytest.mark.parametrize("limit", [1, 2, 5, 16, 100, 512])
def test_the_largest_that_fits_is_found(most: int, limit: int) -> None:
    tried: list[int] = []

    def compile_chunk(chunk: int) -> str:
        tried.append(chunk)
        if chunk > limit:
            raise DoesNotFitError("too large")
        return f"of {chunk}"

    size, made = largest_that_fits(compile_chunk, most)
    assert size == max(1 << power for power in range(10) if 1 << power <= min(most, limit))
    assert made == f"of {size}"
    assert tried == sorted(set(tried), reverse=True)


def test_nothing_fits() -> None:
    def compile_chunk(chunk: int) -> None:
        raise DoesNotFitError(f"{chunk} tokens")

    with pytest.raises(DoesNotFitError, match="1 tokens"):
        largest_that_fits(compile_chunk, 64)


@pytest.mark.slow
def test_a_machine_with_less_memory_gets_a_smaller_chunk(pimc_cli: Callable, tmp_path: Path) -> None:
    config = {
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    sizes = []
    for size in (1 << 16, 1 << 18):
        result = pimc_cli(
            "compile", tmp_path, "-o", tmp_path / "m.pimx", "--shapes-only", "--prefill-chunk", "auto",
            "--max-seq", 256, "--set", f"memory.activation.bytes={size}", "--set", f"memory.temp.base={size}",
        )  # fmt: skip
        assert result.code == 0, result.err
        sizes.append(load_program(tmp_path / "m.pimx").model["prefill_chunk"])
    assert 1 < sizes[0] < sizes[1] == 256


@pytest.mark.slow
def test_every_size_that_is_tried_fits_or_is_refused(pimc_cli: Callable, tmp_path: Path) -> None:
    """The shapes of Llama-2-7B: of 512 rows, nearly all values go to DRAM."""
    config = Path(__file__).parents[2] / "benchmarks" / "models" / "llama-2-7b.json"
    (tmp_path / "config.json").write_text(config.read_text())
    options = ("--shapes-only", "--prefill-chunk", "auto", "--max-seq", 2048)
    result = pimc_cli("compile", tmp_path, "-o", tmp_path / "m.pimx", *options)
    assert result.code == 0, result.err
    assert load_program(tmp_path / "m.pimx").model["prefill_chunk"] >= 32
