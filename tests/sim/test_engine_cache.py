"""Where compiled engines are kept: never stale, rebuilt when damaged, shared, safe among processes, never required.

A tiny entry point with a callee in another file stands for the engine, which takes a minute to compile.
"""

from __future__ import annotations

import ast
import importlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numba
import pytest

import pimc
from pimc.runtime_sim import code_store, compiled
from pimc.runtime_sim.code_store import CodeStore
from pimc.runtime_sim.compiled import ENGINE_SOURCES, EntryPoint

_CALLEE = "from numba import njit\n\n\n@njit\ndef amount(x):\n    return x + {amount}\n"
_ENTRY = """import os, time
from numba import int64
from pimc.runtime_sim.engine.jit import entry_point
from tiny_engine.callee import amount

time.sleep(float(os.environ.get("TINY_ENGINE_SLEEPS", "0")))


@entry_point(int64, sources=(("tiny_engine", None),))
def run(x):
    return amount(x)
"""
_USE = """import sys
from tiny_engine.entry import run
seen = []
run.prepare(seen.append)
print(len([done for done in seen if done is not None]) > 0, run(1), flush=True)
"""


def write_package(folder: Path, amount: int = 1) -> Path:
    package = folder / "tiny_engine"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    (package / "callee.py").write_text(_CALLEE.format(amount=amount))
    (package / "entry.py").write_text(_ENTRY)
    return folder


def imported() -> ModuleType:
    """The package as a new process would import it."""
    for name in [name for name in sys.modules if name.startswith("tiny_engine")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    return importlib.import_module("tiny_engine.entry")


def use(x: int = 1) -> tuple[bool, int]:
    """Whether a new process would compile the entry point, and what it gives."""
    run: EntryPoint[[int], int] = imported().run
    seen: list[float | None] = []
    run.prepare(seen.append)
    return bool(seen), run(x)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CodeStore:
    """An empty folder of compiled code, and the tiny package on the path."""
    monkeypatch.setenv("PIMC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "first")))
    return CodeStore(tmp_path / "cache" / "engines")


def files(store: CodeStore) -> list[Path]:
    return sorted(path for path in store.folder.iterdir() if path.suffix != ".lock")


def test_code_is_kept_shared_and_never_stale(store: CodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert use() == (True, 2)
    assert [path.suffix for path in files(store)] == [".code"]
    assert use() == (False, 2), "a second process loads what the first has compiled"
    (path,) = files(store)
    path.write_bytes(path.read_bytes()[:-100])
    assert use() == (True, 2), "damaged code is compiled again"
    path.chmod(0o400)
    store.folder.chmod(0o500)
    assert use() == (False, 2), "and kept again; a folder that can only be read will do"
    store.folder.chmod(0o700)
    monkeypatch.syspath_prepend(str(write_package(tmp_path / "second")))
    assert use() == (False, 2), "the same sources elsewhere share it"
    write_package(tmp_path / "second", amount=41)
    assert use() == (True, 42), "a changed callee is another engine"


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[-1:] + content[:-1],
    ],
    ids=["empty", "half", "cut", "longer", "flipped", "header", "rotated"],
)
def test_damaged_code_is_not_used(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store = CodeStore(tmp_path / "engines")
    assert store.refusal() is None
    store.keep("key", os.urandom(1000))
    path = store.folder / "key.code"
    whole = path.read_bytes()
    assert store.read("key") is not None
    path.write_bytes(damage(whole))
    assert store.read("key") is None
    path.write_bytes(whole)
    path.rename(store.folder / "other.code")
    assert store.read("other") is None, "whole, but made for another key"


def test_no_folder_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: CodeStore) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIMC_CACHE", str(tmp_path / "file"))
    before = sorted(tmp_path.rglob("*"))
    assert use() == (True, 2), "each process compiles for itself"
    assert sorted(tmp_path.rglob("*")) == before, "and leaves nothing behind, beside the sources neither"


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is not an error of the run, and no part of a file stays."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = CodeStore(tmp_path / "engines")
    assert store.refusal() is None
    monkeypatch.setattr(code_store.os, "replace", full)
    compiled._keep(store, "key", b"code")
    assert files(store) == []


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(store: CodeStore, mode: int) -> None:
    """What is kept there is executed."""
    assert store.refusal() is None
    store.keep("key", b"code")
    assert store.read("key") == b"code"
    store.folder.chmod(mode)
    assert store.read("key") is None
    assert "others may write it" in str(store.refusal())


def test_files_of_others_are_not_used(store: CodeStore, tmp_path: Path) -> None:
    assert store.refusal() is None
    store.keep("key", b"code")
    path = store.folder / "key.code"
    path.chmod(0o666)
    assert store.read("key") is None, "others can write it"
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").chmod(0o600)
    path.symlink_to(tmp_path / "elsewhere")
    assert store.read("key") is None, "a link"
    other = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    assert not code_store._trusted(other, stat.S_IFREG), "another user's"


def test_the_key_names_what_compiles(monkeypatch: pytest.MonkeyPatch, store: CodeStore) -> None:
    """The versions, the settings, the processor and the build mode are part of it, the place is not."""
    run: EntryPoint[[int], int] = imported().run
    keys = {run.key()}
    for change in (
        lambda: monkeypatch.setattr(numba, "__version__", "0.0"),
        lambda: monkeypatch.setattr(compiled.llvmlite, "__version__", "0.0"),
        lambda: monkeypatch.setattr(compiled.np, "__version__", "0.0"),
        lambda: monkeypatch.setattr(sys, "version_info", (3, 99, 0)),
        lambda: monkeypatch.setattr(compiled.config, "BOUNDSCHECK", 1),
        lambda: monkeypatch.setenv("PIMC_GUARD", "1"),
        lambda: monkeypatch.setattr(compiled.cpu_target.target_context.codegen(), "_tm_features", "+none"),
    ):
        change()
        keys.add(run.key())
    assert len(keys) == 8


def test_a_dead_holder_of_the_lock_does_not_block(store: CodeStore) -> None:
    assert store.refusal() is None
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with store.locked("key", waiting=lambda: None):
            os.write(write, b"x")
            time.sleep(60)
    os.read(read, 1)
    waited = threading.Event()
    done = threading.Event()

    def second() -> None:
        with store.locked("key", waiting=waited.set):
            done.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert waited.wait(5)
    assert not done.is_set(), "the lock is held"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert done.wait(5)
    thread.join()


def _start(tmp_path: Path, script: str = _USE) -> subprocess.Popen[str]:
    root = str(Path(pimc.__file__).parents[1])
    path = os.pathsep.join([str(tmp_path / "first"), root])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_two_first_uses_at_once(store: CodeStore, tmp_path: Path) -> None:
    """One compiles, the other waits and loads."""
    both = [_start(tmp_path), _start(tmp_path)]
    said = sorted(process.communicate(timeout=120)[0].strip() for process in both)
    assert said == ["False 2", "True 2"]


_ENGINE = """
import numpy as np
from pimc.runtime_sim.engine.loop import run_events
from pimc.runtime_sim.engine.state import MACHINE
seen = []
run_events.prepare(seen.append)
print(len([done for done in seen if done is not None]) > 0, run_events(np.zeros(1, MACHINE), 1), flush=True)
"""


@pytest.mark.slow
def test_two_first_uses_of_the_engine_at_once(store: CodeStore, tmp_path: Path) -> None:
    both = [_start(tmp_path, _ENGINE), _start(tmp_path, _ENGINE)]
    said = sorted(process.communicate(timeout=1800)[0].strip() for process in both)
    assert said == ["False True", "True True"]
    assert len(files(store)) == 1


def test_an_interrupt_ends_the_compilation(store: CodeStore, tmp_path: Path) -> None:
    use()  # imports and caches of the system are warm
    write_package(tmp_path / "first", amount=5)
    script = _USE.replace("seen = []", "import os; os.environ['TINY_ENGINE_SLEEPS'] = '60'; seen = []; print('ready')")
    script = script.replace("seen.append", "lambda done: print('compiling', flush=True)")
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where jobs ignore it
    process = subprocess.Popen(
        [sys.executable, "-c", heard + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "first"), *filter(None, sys.path)])},
    )
    assert process.stdout is not None
    while process.stdout.readline() != "compiling\n":
        assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    assert time.monotonic() - began < 5, "a second on an idle machine, of the minute that is left"
    assert process.returncode != 0
    assert files(store) == files(store)[:1], "nothing partial is left"


def test_the_engine_imports_nothing_that_its_key_does_not_name() -> None:
    """A name that the compiled sources import is defined in one of them, or is a type that is not compiled."""
    root = Path(pimc.__file__).parents[1]
    named: list[Path] = []
    for package, name in ENGINE_SOURCES:
        folder = root.joinpath(*package.split("."))
        named += [folder / name] if name else sorted(folder.glob("*.py"))
    own = {path.relative_to(root).with_suffix("").as_posix().replace("/", ".") for path in named}
    defined = {
        target.id
        for path in named
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    # What the decorators are made of; and DramSpec, whose values are data, not code.
    allowed = {"pimc.runtime_sim.compiled"}
    foreign = []
    for path in (path for path in named if path.name != "dram_spec.py"):  # of it, only constants are compiled
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pimc"):
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    known = node.module in own or whole in own or node.module in allowed
                    if not known and alias.name not in defined | {"DramSpec"}:
                        foreign.append(f"{path.name}: {whole}")
    assert not foreign
