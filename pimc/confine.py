"""The inner side of :mod:`pimc.child`: limits on this process, then a loop of questions and answers.

Imports little, because every use of a tokenizer waits for it.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from pimc.limits import TEXT_ANSWER_BYTES, TEXT_CPU_S, TEXT_MEMORY

Answer = Callable[[Mapping[str, object]], Mapping[str, object]]

_OPEN_FILES = 32
_COMPLAINT_BYTES = 1 << 16
_REASON_CHARACTERS = 500


def start(module: str) -> NoReturn:
    """Limit this process, import ``module`` and answer questions with its function ``answer`` until the parent ends."""
    questions, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what libraries print is no answer
    _limit()
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions, waiting), daemon=True).start()
    answer: Answer = importlib.import_module(module).answer
    while True:
        _grant_time()
        _write(answers, _answered(answer, waiting.get()))


def _limit() -> None:
    """Bounds that hold for the life of the process; where a system lacks one (macOS: memory), the parent watches."""
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, _COMPLAINT_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_AS, int(TEXT_MEMORY)),
    ):
        hard = resource.getrlimit(kind)[1]
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (least, least))
        except (ValueError, OSError):
            if sys.platform != "darwin":
                raise
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _grant_time() -> None:
    """Each answer has its own processor time; SIGXCPU ends the process behind it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = int(used.ru_utime + used.ru_stime) + 1 + TEXT_CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _listen(handle: int, waiting: queue.SimpleQueue[bytes]) -> None:
    """Take questions in; when the parent is gone, end at once, whatever is being computed."""
    try:
        while True:
            waiting.put(_read(handle, int.from_bytes(_read(handle, 4), "big")))
    except BaseException:  # noqa: BLE001  # out of memory: nobody would answer
        traceback.print_exc()
        os._exit(1)


def _read(handle: int, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = os.read(handle, min(size - len(received), 1 << 20))
        if not piece:
            os._exit(0)
        received += piece
    return bytes(received)


def _write(handle: int, message: bytes) -> None:
    rest = memoryview(len(message).to_bytes(4, "big") + message)
    while rest:
        try:
            rest = rest[os.write(handle, rest) :]
        except BrokenPipeError:
            os._exit(0)


def _answered(answer: Answer, message: bytes) -> bytes:
    try:
        text = json.dumps(answer(json.loads(message))).encode()
    except MemoryError:
        return _refusal(f"used more than {TEXT_MEMORY.text} of memory")
    except BaseException as error:  # noqa: BLE001  # panics of native code are no Exceptions
        reason = " ".join(str(error).split())[:_REASON_CHARACTERS]
        return _refusal(f"failed: {type(error).__name__}: {reason}" if reason else f"failed: {type(error).__name__}")
    if len(text) > TEXT_ANSWER_BYTES:
        return _refusal(f"gives more than {TEXT_ANSWER_BYTES.text}")
    return text


def _refusal(reason: str) -> bytes:
    return json.dumps({"refused": reason}).encode()
