"""``pimc doctor`` and ``pimc completion``."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pimc.cli.parser import COMMANDS, build_parser


def test_a_sound_installation(pimc_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIMC_CACHE", str(tmp_path))
    result = pimc_cli("doctor")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert any(line.startswith("ok    Python: 3.") for line in lines)
    assert any(line.startswith(f"ok    numba: {importlib.metadata.version('numba')}") for line in lines)
    assert any(f"{tmp_path / 'engines'}: writable, none yet" in line for line in lines)
    content = json.loads(pimc_cli("doctor", "--json").out)
    assert content["ok"] is True
    assert {"pimc", "Python", "processor", "torch", "target hpim"} <= {item["name"] for item in content["findings"]}


def test_what_is_missing(pimc_cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("numba", "torch"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.0" if name == "rich" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIMC_CACHE", str(tmp_path / "file"))
    result = pimc_cli("doctor")
    assert result.code == 1
    assert "2 problem(s): numba, rich" in result.error_lines[0]
    lines = result.out.splitlines()
    assert any(line.startswith("FAIL  numba: not installed (pip install numba==") for line in lines)
    assert any(line.startswith("FAIL  rich: 0.0 (tested with ") for line in lines)
    assert any(line.startswith("note  torch: not installed (pip install torch==") for line in lines)
    assert any(line.startswith("note  compiled engines:") and "PIMC_CACHE=FOLDER" in line for line in lines)
    assert json.loads(pimc_cli("doctor", "--json").out)["ok"] is False


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_have_every_command_and_option(pimc_cli: Callable, shell: str) -> None:
    result = pimc_cli("completion", shell)
    assert (result.code, result.err) == (0, "")
    for name, parser in build_parser()[1].items():
        assert name in result.out
        for option in parser.option_strings():
            short = f"-s {option[1:]}" if len(option) == 2 else f"-l {option[2:]}"
            if option != "--debug":
                assert (short if shell == "fish" else option) in result.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pimc", ""], {*COMMANDS, "--help", "--version", "--debug"}),
        (["pimc", "ge"], {"generate"}),
        (["pimc", "generate", "m.pimx", "--te"], {"--temperature"}),
        (["pimc", "--debug", "run", "--tim"], {"--timeout", "--timing-only"}),
        (["pimc", "compile", "m", "--target", "h"], {"hpim"}),
        (["pimc", "completion", ""], {"bash", "zsh", "fish"}),
        (["pimc", "compile", "mod"], set()),
    ],
)
def test_bash_completes(pimc_cli: Callable, words: list[str], expected: set[str]) -> None:
    script = pimc_cli("completion", "bash").out
    line = " ".join(f"'{word}'" for word in words)
    code = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _pimc; printf "%s\\n" "${{COMPREPLY[@]}}"'
    found = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert (set(found.stdout.split()), found.stderr) == (expected, "")


def test_an_unknown_shell(pimc_cli: Callable) -> None:
    result = pimc_cli("completion", "tcsh")
    assert (result.code, result.out) == (2, "")
