"""``pimc run`` with inputs on the command line, ``pimc info``, and what an ``Executable`` says of itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting_model import MAX_SEQ, VOCABULARY

import pimc
from pimc.diagnostics import InputError, UsageError
from pimc.isa.container import write_program
from pimc.isa.program import CacheRegion
from pimc.runtime import Executable

CACHE = CacheRegion("k_cache", 0, 1, 0, 4, 32, 8)


def test_inputs_on_the_command_line(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "position.npy", np.array([2]))
    for tokens, position in (("5", "2"), ("[[5]]", "[2]"), ("5", f"@{tmp_path / 'position.npy'}")):
        words = ("run", binary, "--entry", "decode", "--input", f"tokens={tokens}", "--input", f"position={position}")
        result = pimc_cli(*words, "--outputs", tmp_path / "out.npz")
        assert (result.code, result.err) == (0, "")
        with np.load(tmp_path / "out.npz") as outputs:
            assert outputs["logits"].argmax() == 6
    words = ("run", binary, "--entry", "prefill", "--input", "tokens=7,8,9,1", "--input", "position=0")
    assert pimc_cli(*words, "--input", "length=3").code == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--input", "tokens=500000", "--input", "position=0"), 1, "input 'tokens' is 500000; the program takes 0 to"),
        (("--input", "tokens=-3", "--input", "position=0"), 1, "input 'tokens' is -3; the program takes 0 to 256"),
        (("--input", "tokens=1", "--input", "position=99999"), 1, "'position' is 99999; the program takes 0 to 11"),
        (("--input", "tokens=1"), 1, "lacks position"),
        (("--input", "tokens=1", "--input", "postion=1"), 1, "lacks position"),
        (("--input", "tokens=x", "--input", "position=0"), 2, "'x' is no list of numbers"),
        (("--input", "tokens=1,2", "--input", "position=0"), 1, "input 'tokens' has the shape (2,), not (1, 1)"),
        (("--input", "tokens=@gone.npy"), 1, "gone.npy: cannot be read"),
        (("--input", "tokens"), 2, "not of the form KEY=VALUE"),
        (("--input", "tokens=1", "--input", "tokens=2"), 2, "--input names 'tokens' twice"),
        (("--assume-cache", "3"), 1, "no caches"),
        (("--assume-cache", "-1"), 2, "not a whole number"),
    ],
)
def test_wrong_inputs(pimc_cli: Callable, binary: Path, words: tuple[str, ...], code: int, message: str) -> None:
    result = pimc_cli("run", binary, "--entry", "decode", *words)
    assert (result.code, result.out) == (code, "")
    assert message in result.error_lines[0]
    assert len(result.error_lines) <= 2


def test_an_input_twice(pimc_cli: Callable, binary: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", tokens=np.array([[1]]))
    result = pimc_cli("run", binary, "--entry", "decode", "--inputs", tmp_path / "in.npz", "--input", "tokens=1")
    assert result.code == 2
    assert "input 'tokens' is given twice" in result.error_lines[0]


def test_timing_needs_no_inputs(pimc_cli: Callable, binary: Path) -> None:
    """What stands for an input that is not given is said: zeros, or the nearest number that is allowed."""
    result = pimc_cli("run", binary, "--entry", "prefill", "--timing-only", "--input", "position=4", "--json")
    assert result.code == 0
    assert json.loads(result.out)["outputs"] == {}
    assert result.error_lines == [
        "input tokens is not given: zeros for the timing",
        "input length is not given: 1 for the timing",
    ]
    with_inputs = pimc_cli(
        "run", binary, "--entry", "prefill", "--json",
        "--input", "tokens=0,0,0,0", "--input", "position=4", "--input", "length=1",
    )  # fmt: skip
    assert json.loads(with_inputs.out)["cycles"] == json.loads(result.out)["cycles"]


def test_info(pimc_cli: Callable, binary: Path) -> None:
    lines = pimc_cli("info", binary).out.splitlines()
    assert "model: counting" in lines
    assert "  input  position: 1 i32, 0 to 11" in lines
    assert f"  output logits: 1x1x{VOCABULARY} f16" in lines
    content = json.loads(pimc_cli("info", binary, "--json").out)
    assert (content["name"], content["target"], content["overrides"]) == ("counting", "hpim", [])
    assert content["file_bytes"] == binary.stat().st_size
    assert content["entries"]["prefill"]["inputs"][0] == {
        "name": "tokens", "dtype": "i32", "shape": [1, 4], "range": [0, 256],
    }  # fmt: skip
    assert content["entries"]["prefill"]["cores"]["instructions"] > 0


def test_info_of_a_strangers_names(pimc_cli: Callable, counting: Executable, tmp_path: Path) -> None:
    """Control characters of a file do not reach the terminal, and lines stay short."""
    model = {**(counting.program.model or {}), "name": "\x1b]0;owned\x07" + "x" * 900}
    write_program(tmp_path / "strange.pimx", dataclasses.replace(counting.program, model=model))
    out = pimc_cli("info", tmp_path / "strange.pimx").out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) < 400


def test_what_an_executable_says(counting: Executable) -> None:
    assert repr(counting) == "<Executable 'counting' for hpim: prefill, decode>"
    assert [port.name for port in counting.inputs["prefill"]] == ["tokens", "position", "length"]
    assert counting.inputs["decode"][1].range == (0, MAX_SEQ - 1)
    (logits,) = counting.outputs["decode"]
    assert (logits.name, logits.shape, logits.dtype) == ("logits", (1, 1, VOCABULARY), "f16")
    assert counting([[7]], 0, entry="decode").argmax() == 8
    result = counting.run({"tokens": 7, "position": 0}, entry="decode")
    assert repr(result) == f"<RunResult {result.cycles:,} cycles, logits: 1x1x{VOCABULARY} float16>"
    summary = result.summary().splitlines()
    assert summary[0].startswith(f"{result.cycles:,} cycles, ")
    assert summary[1].startswith("busy: ")
    assert summary[-1] == f"output logits: 1x1x{VOCABULARY} float16"
    assert counting.run({"tokens": 7, "position": 0}, entry="decode", timing_only=True).outputs == {}


def test_overrides_in_python(binary: Path) -> None:
    """A mapping is taken as texts are; anything else is refused with what is taken."""
    assert pimc.load(binary, overrides={"clock.core_period_fs": 2_000_000}).clock_ghz == 0.5
    assert pimc.load(binary, overrides=["clock.core_period_fs=2000000"]).clock_ghz == 0.5
    for wrong in ("clock.core_period_fs=2000000", [("clock.core_period_fs", 2)], ["clock"], 5, None):
        with pytest.raises(UsageError, match="no overrides of a target") as caught:
            pimc.load(binary, overrides=wrong)
        assert "{'hbm.timing.nFAW': 20}" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": 1}, "not made of whole columns"),
        ({"slots": 1 << 30}, "ends at byte"),
        ({"layers": 2}, "its layers overlap"),
        ({"cores": 64}, "the target has 32 cores"),
    ],
)
def test_caches_outside_of_the_memory(counting: Executable, change: dict[str, int], message: str) -> None:
    cache = dataclasses.replace(CACHE, **change)
    with pytest.raises(InputError, match=message):
        Executable(dataclasses.replace(counting.program, rows=4, caches=(cache,)), counting.target)
