"""Compilation in a child process: an interrupt ends it at once, and a crash of the compiler is not one of the caller.

The child is a fresh interpreter (no fork of threads, no ``__main__`` guard asked of the caller) that imports the same
modules.  It hears what to compile on its stdin, which also tells it that its parent is gone, and answers on its stdout:
lines of progress, then the compiled code.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing.spawn
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, Any

from pimc.diagnostics import InputError

#: What the child runs: the path of the parent first, so that both import the same files.
_BOOT = (
    "import json, sys; order = json.loads(sys.stdin.buffer.raw.readline()); sys.path[:] = order['path']; "
    "from pimc.runtime_sim.build_process import serve; serve(order)"
)
#: Seconds between two looks at the child, so that signals are handled and a watcher is told that work goes on.
_LOOK_S = 0.2
_PROGRESS, _CODE = b"progress", b"code"


def compile_in_child(module: str, name: str, key: str, on_progress: Callable[[float], None]) -> bytes | None:
    """What ``name`` of ``module`` (an entry point) compiles to in a fresh process; None where there can be none.

    ``key`` is the entry point's: a child that imports other sources than this process gives nothing.

    Raises:
        InputError: the child was killed.
    """
    executable = multiprocessing.spawn.get_executable()
    if not executable or getattr(sys, "frozen", False):
        return None
    order = {"path": sys.path, "module": module, "name": name, "key": key}
    try:
        child = subprocess.Popen(
            [executable, "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # an interrupt from the terminal goes to the parent, which ends the child
        )
    except OSError:
        return None
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(order).encode() + b"\n")
        found = _answer(child.stdout, on_progress)
        code = child.wait()
    except BrokenPipeError:
        return None
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
    if code < 0:
        raise InputError(
            f"compiling the simulator was ended by signal {-code}",
            hint="it needs about 500 MB of memory, once; then the compiled simulator is kept",
        )
    return found if code == 0 else None


def _answer(stdout: IO[bytes], on_progress: Callable[[float], None]) -> bytes | None:
    """The code that the child sends, None if it ends without any."""
    pending = b""
    done = 0.0
    while True:
        readable, _, _ = select.select([stdout], [], [], _LOOK_S)
        if readable:
            part = os.read(stdout.fileno(), 1 << 20)
            if not part:
                kind, _, code = pending.partition(b"\n")
                return code if kind == _CODE else None
            pending += part
            while pending.startswith(_PROGRESS) and b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                done = float(line.split()[1])
        on_progress(done)


def serve(order: dict[str, Any]) -> None:
    """The child: compile what ``order`` names, and write the code to stdout; ends when stdin does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    entry = getattr(importlib.import_module(order["module"]), order["name"])
    if entry.key() != order["key"]:
        sys.exit(1)
    code = entry.compile_here(lambda done: answer.write(b"%s %.3f\n" % (_PROGRESS, done)))
    if code is None:
        sys.exit(1)
    with answer:
        rest = memoryview(_CODE + b"\n" + code)
        while rest:
            rest = rest[answer.write(rest) :]


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)
