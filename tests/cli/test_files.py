"""What is read and written: links, devices, pipes, full disks, names of any bytes; and how much an error says."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from isa.samples import sample

from pimc.atomic import atomic_path, write_text
from pimc.cli.main import main
from pimc.diagnostics import InputError
from pimc.isa.container import load_program, write_program
from pimc.limits import ERROR_CHARACTERS

PIMC = [sys.executable, "-m", "pimc"]


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    write_program(tmp_path / "x.pimx", sample())
    return tmp_path / "x.pimx"


@pytest.fixture
def assembly(tmp_path: Path, binary: Path) -> Path:
    assert main(["disasm", str(binary), "-o", str(tmp_path / "x.pasm")]) == 0
    return tmp_path / "x.pasm"


# -- outputs


def test_the_target_of_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link, dangling = tmp_path / "folder" / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to("folder/real")
    dangling.symlink_to("folder/new")
    write_text(link, "new")
    write_text(dangling, "made")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder" / "new").read_text() == "made"
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["new", "real"]


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError):
        write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").is_symlink()


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    before = os.stat("/dev/null")
    write_text("/dev/null", "x")
    write_program("/dev/null", sample())
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    (tmp_path / "null").symlink_to("/dev/null")
    write_text(tmp_path / "null", "x")
    assert os.readlink(tmp_path / "null") == "/dev/null"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_standard_output_by_name(binary: Path, assembly: Path, tmp_path: Path, name: str) -> None:
    command = [*PIMC, "disasm", str(binary), "-o", name]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == assembly.read_text()
    into = tmp_path / "appended"
    into.write_text("first\n")
    with into.open("a") as file:
        subprocess.run(command, check=True, stdout=file)
    assert into.read_text() == "first\n" + assembly.read_text()


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        write_text(tmp_path / "pipe", "x" * 30_000)
        assert reader.stdout is not None
        assert len(reader.stdout.read()) == 30_000
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_disk(binary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["disasm", str(binary), "-o", "/dev/full"]) == 1
    assert "/dev/full: cannot be written: No space left on device" in capsys.readouterr().err
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_program("/dev/full", sample())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(InputError, match="cannot be written: File too large"):
            write_program(tmp_path / "big.pimx", sample())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pimx"]


def test_a_full_standard_output(binary: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [*PIMC, "disasm", str(binary)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert result.returncode == 1
    assert result.stderr == "pimc: error: No space left on device\n"


def test_litter_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    script = f"import os\nfrom pimc.atomic import atomic_path\nwith atomic_path({str(tmp_path / 'out')!r}) as path:\n"
    script += "    path.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    (litter,) = tmp_path.iterdir()
    with atomic_path(tmp_path / "out") as temporary:
        temporary.write_text("whole")
        assert litter.exists()  # young: it may be another machine's
        os.utime(litter, (0, 0))
        write_text(tmp_path / "other", "x")
        assert litter.exists()
        os.utime(temporary, (0, 0))
        write_text(tmp_path / "out", "x")  # this process is alive
        assert temporary.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_long_names(tmp_path: Path) -> None:
    for name in ("x" * 255, "世" * 85):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    with pytest.raises(InputError, match="File name too long"):
        write_text(tmp_path / ("x" * 256), "x")


# -- inputs

INPUTS = [
    ["run", "{}"],
    ["generate", "{}", "--prompt", "x"],
    ["disasm", "{}"],
    ["run", "good.pimx", "--inputs", "{}"],
    ["run", "good.pimx", "--target-file", "{}"],
    ["asm", "{}", "-o", "out.pimx"],
    ["opt", "{}"],
    ["targets", "{}"],
    *(["compile", f"{{}}{suffix}", "-o", "out.pimx"] for suffix in ("", ".onnx", ".gguf", ".pt2")),
    ["compile", "x.onnx", "--bind", "a={}.npy", "-o", "out.pimx"],
    ["compile", "{}.py:f", "-o", "out.pimx"],
    ["compile", "x.onnx", "--target-file", "{}.toml", "-o", "out.pimx"],
    ["opt", "x.mlir", "--plugin", "{}.py"],
]


@pytest.mark.parametrize("words", INPUTS, ids=" ".join)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_only_files_are_read(
    words: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe would block, a device may have no end."""
    monkeypatch.chdir(tmp_path)
    write_program("good.pimx", sample())
    for suffix in ("", ".onnx", ".gguf", ".pt2", ".npy", ".py", ".toml"):
        path = tmp_path / f"bad{suffix}"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
    (tmp_path / "x.onnx").touch()
    (tmp_path / "x.mlir").touch()
    status = main([word.replace("{}", "bad") for word in words])
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert error.startswith("pimc: error: ")
    assert "internal" not in error
    assert not (tmp_path / "out.pimx").exists()


def test_text_has_a_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "big.toml").write_bytes(b"#" * (5 << 20))
    assert main(["targets", str(tmp_path / "big.toml")]) == 1
    assert "has more than 4 MiB" in capsys.readouterr().err


# -- names and messages


def test_names_that_are_not_utf8(binary: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\x1b.pimx"
    os.rename(binary, name)
    for words in ([b"disasm", name], [b"run", name, b"--json"], [b"asm", name, b"-o", name + b"2"], [b"opt", name]):
        result = subprocess.run([*map(os.fsencode, PIMC), *words], capture_output=True, check=False)
        assert result.returncode in (0, 1)
        assert b"Traceback" not in result.stderr
        assert b"internal" not in result.stderr
        assert b"\x1b" not in result.stderr
    out = name + b".pasm"
    subprocess.run([*map(os.fsencode, PIMC), b"disasm", name, b"-o", out], check=True)
    assert os.path.getsize(out) > 1000


def test_errors_are_short_and_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_text('"' + "long\\u001b[31m\\u202e" * 10_000 + '" = 1')
    assert main(["targets", str(tmp_path / "x.toml")]) == 1
    error = capsys.readouterr().err
    assert all(len(line) < ERROR_CHARACTERS + 100 for line in error.splitlines())
    assert "more characters)" in error
    assert "\\x1b[31m\\u202e" in error
    assert "\x1b" not in error
    assert "\u202e" not in error


def test_output_in_any_encoding(binary: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [*PIMC, "targets", "hpim", "--json"]
    result = subprocess.run(command, env=environment, capture_output=True, check=True)
    json.loads(result.stdout.decode("ascii"))


def test_every_array_of_a_program_is_written_whole(tmp_path: Path) -> None:
    program = sample()
    write_program(tmp_path / "x.pimx", program)
    loaded = load_program(tmp_path / "x.pimx")
    for pch, image in program.images.items():
        np.testing.assert_array_equal(loaded.images[pch], image)
