"""The command line's grammar: help, unknown words, exit codes, and one line an error."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pimc.cli.parser import COMMANDS

HEAVY = ("torch", "transformers", "xdsl", "numba", "numpy", "rich", "networkx")


def test_help_imports_nothing_heavy() -> None:
    code = (
        f"import sys; from pimc.cli.main import main; main(['--help']); print([m for m in {HEAVY} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    """At most 0.5 s; on a loaded machine, at most twelve times an empty Python."""

    def seconds(*words: str) -> float:
        best = float("inf")
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=True)
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds("-m", "pimc", "--help") < max(0.5, 12 * seconds("-c", "pass"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(pimc_cli: Callable, command: str) -> None:
    result = pimc_cli(command, "--help")
    assert result.code == 0
    assert result.out.startswith(f"usage: pimc {command}")


def test_version(pimc_cli: Callable) -> None:
    import pimc

    assert pimc_cli("--version").out.strip() == f"pimc {pimc.__version__}"


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ((), "no command given", "compile, generate"),
        (("complie",), "unknown command 'complie'", "did you mean `pimc compile`?"),
        (("compile", "x", "--targt", "y"), "unknown option '--targt'", "did you mean --target?"),
        (("run", "a.pimx", "b.pimx"), "unknown argument 'b.pimx'", "pimc run --help"),
        (("generate", "x.pimx"), "--prompt", "pimc generate --help"),
        (("generate", "x", "--prompt", "p", "--max-new-tokens", "0"), "at least 1", "pimc generate --help"),
        (("compile", "x", "-o", "y", "--set", "novalue"), "KEY=VALUE", "pimc compile --help"),
        (("compile", "x", "--target", "a", "--target-file", "b"), "not allowed with", "pimc compile --help"),
        (("compile", "x"), "no output given", "-o OUT.pimx"),
        (("opt",), "no IR file given", ".mlir"),
    ],
)
def test_wrong_use(pimc_cli: Callable, words: tuple[str, ...], message: str, hint: str) -> None:
    result = pimc_cli(*words)
    assert result.code == 2
    assert result.out == ""
    first, second = result.error_lines
    assert first.startswith("pimc: error: ")
    assert message in first
    assert second.startswith("  hint: ")
    assert hint in second


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("targets", "hpmi"), 1, "unknown target 'hpmi'"),
        (("targets", "hpim", "--set", "hbm.timing.nFAQ=20"), 1, "nFAQ"),
        (("targets", "hpim", "--set", "cores.count=many"), 1, "cores.count"),
        (("targets", "nowhere.toml"), 1, "nowhere.toml"),
        (("compile", "no-such-model", "-o", "out.pimx"), 1, "no such file or folder"),
        (("compile", __file__, "-o", "no/such/folder/out.pimx"), 1, "no such folder to write to"),
        (("compile", __file__, "-o", "out.pimx", "-p", "annotate,plaec"), 2, "no pass 'plaec'"),
        (("compile", __file__, "-o", "out.pimx", "-p", "...,place{polcy=x},..."), 2, "no option 'polcy'"),
        (("compile", __file__, "-o", "out.pimx", "-p", "place{policy"), 2, "do not match"),
        (("compile", __file__, "-o", "out.pimx", "-p", "...,dce,..."), 2, "'dce' is no default pass"),
        (("compile", __file__, "-o", "out.pimx", "-p", "...,nope,..."), 2, "no pass 'nope'"),
        (("compile", __file__, "-o", "out.pimx", "-p", "...,..."), 2, "nothing stands between two '...'"),
        (("compile", __file__, "-o", "out.pimx", "--plugin", "absent.py"), 2, "plugin"),
        (("compile", __file__, "-o", "out.pimx", "--plugin", "no_such_module_xyz"), 2, "plugin"),
        (("compile", __file__, "-o", "out.pimx", "--set", "clock.tick=1"), 1, "tick"),
        (("opt", "absent.mlir", "-p", "annotate"), 1, "absent.mlir"),
        (("opt", __file__, "-p", "annotate"), 1, "test_usage.py:1"),
        (("run", "absent.pimx"), 1, "absent.pimx"),
        (("run", __file__), 1, "test_usage.py"),
        (("run", "absent.pimx", "--inputs", "absent.npz"), 1, "absent.npz"),
        (("run", "absent.pimx", "--inputs", __file__), 1, "test_usage.py"),
        (("generate", __file__, "--prompt", "hello"), 1, "test_usage.py"),
        (("disasm", __file__), 1, "test_usage.py"),
        (("asm", "absent.s", "-o", "out.pimx"), 1, "absent.s"),
        (("asm", __file__, "-o", "out.pimx"), 1, "test_usage.py"),
    ],
)
def test_bad_input(
    pimc_cli: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    """One line with what and where, perhaps the line of the text and a hint; the exit code; no traceback; nothing
    written.
    """
    monkeypatch.chdir(tmp_path)
    result = pimc_cli(*words)
    assert result.code == code, result.err
    assert result.out == ""
    assert result.error_lines[0].startswith("pimc: error: ")
    assert message in result.error_lines[0]
    assert len(result.error_lines) <= 4
    assert all(line.startswith("  ") for line in result.error_lines[1:])
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(pimc_cli: Callable) -> None:
    result = pimc_cli("targets", "nope", "--debug")
    assert result.code == 1
    assert "Traceback" in result.err
    assert pimc_cli("--debug", "targets", "nope").err == result.err


def test_internal_errors_are_called_bugs(pimc_cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    import pimc.targets

    def broken() -> list[str]:
        raise KeyError("oops")

    monkeypatch.setattr(pimc.targets, "list_targets", broken)
    result = pimc_cli("targets")
    assert result.code == 3
    assert "internal error: KeyError: 'oops'" in result.error_lines[0]
    assert "bug in pimc" in result.error_lines[1]
    assert "Traceback" not in result.err


def test_module_is_the_command() -> None:
    result = subprocess.run([sys.executable, "-m", "pimc", "frob"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
