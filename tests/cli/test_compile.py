"""``pimc compile`` on a small Llama: what it writes, what it says, what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hf_models import FAMILIES, build

import pimc
from pimc.cli.main import main
from pimc.driver.pipeline import DEFAULT
from pimc.runtime import Executable
from pimc.runtime_sim import Machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a small Llama."""
    path = tmp_path_factory.mktemp("model") / "llama"
    build(next(family for family in FAMILIES if family.name == "llama-mha-4"), path)
    return path


@dataclass(frozen=True)
class Compilation:
    """What one compilation left: the binary, the dumps, and what it printed."""

    binary: Path
    dumps: list[Path]
    report: dict[str, object]


@pytest.fixture(scope="module")
def compilation(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    """The model compiled once."""
    out = tmp_path_factory.mktemp("compiled")
    words = compile_words(folder, "-o", out / "m.pimx", "--dump-ir", out / "ir", "--json")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main([str(word) for word in words]) == 0
    return Compilation(out / "m.pimx", sorted((out / "ir").glob("*.mlir")), json.loads(printed.getvalue()))


def compile_words(folder: Path, *words: object) -> list[object]:
    return ["compile", folder, "--max-seq", "16", "--prefill-chunk", "4", *words]


def test_report(compilation: Compilation) -> None:
    entries = compilation.report["entries"]
    assert isinstance(entries, dict)
    assert set(entries) == {"prefill", "decode"}
    assert entries["decode"]["cores"]["max_instructions"] > 0


@pytest.fixture(scope="module")
def filled(compilation: Compilation) -> tuple[Executable, int]:
    """The model after a prefill of four tokens, and the cycles of the decode run at position 4 that followed."""
    executable = pimc.load(compilation.binary)
    executable.run({"tokens": [[5, 6, 7, 8]], "position": 0, "length": 4}, entry="prefill")
    return executable, executable.run({"tokens": 9, "position": 4}, entry="decode").cycles


def test_ranges_of_inputs(compilation: Compilation) -> None:
    """Token ids by the vocabulary, positions by the cache, the length by the chunk, in the binary."""
    inputs = pimc.load(compilation.binary).inputs
    assert [str(port) for port in inputs["decode"]] == ["tokens: 1x1 i32, 0 to 199", "position: 1 i32, 0 to 15"]
    assert [port.range for port in inputs["prefill"]] == [(0, 199), (0, 12), (1, 4)]


def test_assumed_caches_are_the_slots_that_prefill_writes(
    compilation: Compilation, filled: tuple[Executable, int]
) -> None:
    program, target = filled[0].program, filled[0].target
    real, assumed = Machine(program, target), Machine(program, target)
    inputs = {"tokens": [[5, 6, 7, 8]], "position": [0], "length": [4]}
    real.run("prefill", {name: np.array(value, np.int32) for name, value in inputs.items()})
    before = assumed.written_columns().copy()
    assumed.assume_cache(4)
    assert (assumed.written_columns() != before).any()
    np.testing.assert_array_equal(assumed.written_columns(), real.written_columns())


def test_a_chunk_may_start_anywhere(filled: tuple[Executable, int]) -> None:
    """As the second turn of a conversation does, behind what the caches hold."""
    executable = filled[0]
    tokens, logits = [5, 6, 7, 8, 9, 10, 11], []
    for cut in (4, 3, 1):
        for start, stop in ((0, min(cut, 4)), (cut, min(cut + 4, 7)), (cut + 4, 7)):
            if start < stop:
                piece = [*tokens[start:stop], 0, 0, 0][:4]
                inputs = {"tokens": [piece], "position": start, "length": stop - start}
                result = executable.run(inputs, entry="prefill")
        logits.append(result.outputs["logits"])
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], atol=2.0**-6)


def test_decode_at_a_position_of_a_fresh_binary(
    pimc_cli: Callable, compilation: Compilation, filled: tuple[Executable, int]
) -> None:
    words = ("run", compilation.binary, "--entry", "decode", "--input", "tokens=9", "--input", "position=4", "--json")
    refused = pimc_cli(*words)
    assert refused.code == 1
    assert "nothing has written" in refused.error_lines[0]
    assert "--assume-cache" in refused.error_lines[1]
    for more in (("--assume-cache", "4"), ("--assume-cache", "16", "--timing-only")):
        result = pimc_cli(*words, *more)
        assert result.code == 0, result.err
        assert json.loads(result.out)["cycles"] == filled[1]
    assert pimc_cli(*words, "--no-checks").code == 0
    too_many = pimc_cli(*words, "--assume-cache", "17")
    assert too_many.code == 1
    assert "they hold 0 to 16" in too_many.error_lines[0]


def test_same_model_same_bytes(pimc_cli: Callable, compilation: Compilation, folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pimx"
    assert pimc_cli(*compile_words(folder, "-o", again)).code == 0
    assert compilation.binary.read_bytes() == again.read_bytes()


def test_dumps_parse_to_the_same_ir(pimc_cli: Callable, compilation: Compilation) -> None:
    names = [path.stem.partition("-")[2] for path in compilation.dumps]
    assert names == ["input", *DEFAULT]
    for path in compilation.dumps:
        result = pimc_cli("opt", path)
        assert result.code == 0, result.err
        assert result.out == path.read_text(), path.name


def test_each_pass_runs_alone_on_the_dump_of_the_one_before(pimc_cli: Callable, compilation: Compilation) -> None:
    for before, after, name in zip(compilation.dumps, compilation.dumps[1:], DEFAULT, strict=False):
        result = pimc_cli("opt", before, "-p", name)
        assert result.code == 0, f"{name}: {result.err}"
        assert result.out == after.read_text(), name


def test_a_program_too_long_for_the_instruction_memory(pimc_cli: Callable, compilation: Compilation) -> None:
    allocated = next(path for path in compilation.dumps if path.stem.endswith("-allocate"))
    result = pimc_cli("opt", allocated, "-p", "emit", "--set", "memory.instruction.bytes=64")
    assert (result.code, result.out) == (1, "")
    assert "instruction" in result.error_lines[0]


def test_explain(pimc_cli: Callable, folder: Path) -> None:
    result = pimc_cli(*compile_words(folder, "--explain", "q_proj"))
    assert result.code == 0, result.err
    decode = [line for line in result.out.splitlines() if "@decode" in line]
    assert any("-> gemv in hbm: " in line for line in decode)
    content = json.loads(pimc_cli(*compile_words(folder, "--explain", "q_proj", "--json")).out)
    assert {item["pass_name"] for item in content["operations"]} >= {"place"}
    missing = pimc_cli(*compile_words(folder, "--explain", "no_such_thing"))
    assert missing.code == 1
    assert "no_such_thing" in missing.error_lines[0]


def test_a_pipeline_that_makes_no_code_leaves_nothing_behind(pimc_cli: Callable, folder: Path, tmp_path: Path) -> None:
    result = pimc_cli(*compile_words(folder, "-o", tmp_path / "m.pimx", "-p", "...,partition"))
    assert result.code == 1
    assert "has made no program" in result.error_lines[0]
    assert list(tmp_path.iterdir()) == []


def test_damaged_models(pimc_cli: Callable, folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[: len(data) // 2] if path.suffix == ".safetensors" else data)
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.gguf"
    text.write_text("not a model")
    for source in (broken, empty, text):
        result = pimc_cli("compile", source, "-o", tmp_path / "m.pimx")
        assert result.code == 1, result.err
        assert len(result.error_lines) <= 2
        assert "Traceback" not in result.err
    assert not (tmp_path / "m.pimx").exists()
