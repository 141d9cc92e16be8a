"""A child process with bounds on memory and time that answers questions: for code of others on data of strangers.

Questions and answers are JSON behind a length of four bytes, over pipes; nothing is ever unpickled.  The child gets no
environment but where Python's modules are, works in the root folder, and ends when its parent does.  Its own side is
:mod:`pimc.confine`.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pimc.diagnostics import InputError, PimcError
from pimc.limits import TEXT_ANSWER_BYTES, TEXT_CPU_S, TEXT_MEMORY, TEXT_WALL_S

_POLL_S = 0.25
_COMPLAINT_BYTES = 4096  # of what the child wrote to stderr, the last part


class RefusedError(InputError):
    """The child could not do what it was asked, for a reason that it gave."""


class Child:
    """A process that runs a module of pimc under limits; started by the first question, and again after it ended.

    Questions from several threads wait for each other; a forked process starts a child of its own.
    """

    def __init__(self, module: str, *, poll_memory: bool = sys.platform == "darwin") -> None:
        """``module`` calls :func:`pimc.confine.serve`.

        Args:
            poll_memory: watch the child's memory from here: where the system does not enforce a limit (macOS).
        """
        self._module = module
        self._poll_memory = poll_memory
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._owner = os.getpid()

    @property
    def started(self) -> bool:
        """Whether the process runs and belongs to this one (else the next question starts it)."""
        return self._running is not None and self._owner == os.getpid() and self._running.process.poll() is None

    def ask(self, question: Mapping[str, object], who: str) -> dict[str, object]:
        """The answer to ``question``; ``who`` names what the child runs in errors ("the binary's tokenizer").

        Raises:
            RefusedError: the child gave a reason why not.
            InputError: it used more memory or time than it may, crashed, or answered nonsense.
        """
        if self._owner != os.getpid():
            # After a fork, the process and its pipes are the parent's, and a thread that is not here may hold the lock.
            self._owner, self._lock, self._running = os.getpid(), threading.Lock(), None
        with self._lock:
            if self._running is None or not self.started:
                self._running = _Running(self._module)
            try:
                answer = self._running.exchange(question, who, self._poll_memory)
            except BaseException:
                # Whatever happened (an interrupt too), question and answer may be out of step from here on.
                self._running.end()
                self._running = None
                raise
        reason = answer.get("refused")
        if isinstance(reason, str):
            raise RefusedError(f"{who} {reason}")
        return answer

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._running is not None and self._owner == os.getpid():
                self._running.end()
            self._running = None


class _Running:
    """The process, its pipes, and a file that takes its complaints."""

    def __init__(self, module: str) -> None:
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end()
        command = [sys.executable, "-P", "-c", f"from pimc.confine import start; start({module!r})"]
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                bufsize=0,
                env=_environment(),
                cwd="/",
                start_new_session=True,  # Ctrl-C goes to the parent alone, which ends the child
            )
        except OSError as error:
            self._complaints.close()
            raise InputError(f"cannot start a process for the tokenizer: {error.strerror or error}") from error
        self._end = weakref.finalize(self, _end, self.process, self._complaints, os.getpid())

    def end(self) -> None:
        """Kill the process, if this one started it, and close all files."""
        self._end()

    def exchange(self, question: Mapping[str, object], who: str, poll_memory: bool) -> dict[str, object]:
        """Send a question, wait for the answer, check that it is a JSON object of bounded size."""
        deadline = _Deadline(self.process.pid, who, poll_memory)
        try:
            self._send(json.dumps(question, ensure_ascii=False).encode(), deadline)
            size = int.from_bytes(self._receive(4, deadline), "big")
            if size > TEXT_ANSWER_BYTES:
                raise InputError(f"{who} gives more than {TEXT_ANSWER_BYTES.text}")
            answer = json.loads(self._receive(size, deadline))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise self._obituary(who) from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{who} gives no proper answer") from error
        if not isinstance(answer, dict):
            raise InputError(f"{who} gives no proper answer")
        return answer

    def _send(self, message: bytes, deadline: _Deadline) -> None:
        assert self.process.stdin is not None
        handle = self.process.stdin.fileno()
        os.set_blocking(handle, False)
        rest = memoryview(len(message).to_bytes(4, "big") + message)
        while rest:
            deadline.wait(handle, selectors.EVENT_WRITE)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(handle, rest) :]

    def _receive(self, size: int, deadline: _Deadline) -> bytes:
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        received = bytearray()
        while len(received) < size:
            deadline.wait(handle, selectors.EVENT_READ)
            piece = os.read(handle, min(size - len(received), 1 << 20))
            if not piece:
                raise EOFError
            received += piece
        return bytes(received)

    def _obituary(self, who: str) -> PimcError:
        """Why the process ended without an answer."""
        code = self.process.wait()
        self._complaints.seek(0, os.SEEK_END)
        self._complaints.seek(max(0, self._complaints.tell() - _COMPLAINT_BYTES))
        complaint = self._complaints.read().decode(errors="replace")
        if -code == signal.SIGXCPU:
            return InputError(f"{who} used more than {TEXT_CPU_S.text}")
        if "memory allocation of" in complaint or "MemoryError" in complaint:
            return InputError(f"{who} used more than {TEXT_MEMORY.text} of memory")
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = complaint.strip().splitlines()[-1:]
        return InputError(f"the process that runs {who} {how}{f' ({last[0][:200]})' if last else ''}")


class _Deadline:
    """Waits for a pipe, not longer than an answer may take, and not while the child uses too much memory."""

    def __init__(self, pid: int, who: str, poll_memory: bool) -> None:
        self._pid = pid
        self._who = who
        self._poll_memory = poll_memory
        self._end = time.monotonic() + TEXT_WALL_S

    def wait(self, handle: int, event: int) -> None:
        """Return when the pipe is ready (or broken)."""
        with selectors.DefaultSelector() as selector:
            selector.register(handle, event)
            while not selector.select(_POLL_S):
                if time.monotonic() > self._end:
                    raise InputError(f"{self._who} gives no answer within {TEXT_WALL_S.text}")
                if self._poll_memory and resident_bytes(self._pid) > TEXT_MEMORY:
                    raise InputError(f"{self._who} used more than {TEXT_MEMORY.text} of memory")


def resident_bytes(pid: int) -> int:
    """The memory that a process has in use, as ``ps`` (of Linux and macOS) says; 0 if it has ended."""
    result = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    text = result.stdout.strip()
    return int(text) << 10 if text.isdigit() else 0


def _environment() -> dict[str, str]:
    """No secret, nothing that changes Python's ways; where its modules are."""
    folders = [str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)]
    return {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in folders),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",  # arenas of threads would count as memory that nobody uses
        "RUST_BACKTRACE": "0",
        **{name: os.environ[name] for name in ("TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ},
    }


def _end(process: subprocess.Popen[bytes], complaints: IO[bytes], owner: int) -> None:
    if os.getpid() == owner:
        process.kill()
        process.wait()
    for file in (process.stdin, process.stdout, complaints):
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()
