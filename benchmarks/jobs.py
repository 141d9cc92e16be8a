"""Jobs of the benchmarks: a process each, measured, its result a JSON file that is not made twice."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
_KIB: Final = 1024
_POLL_S: Final = 0.05
_ERROR: Final = "pimc: error: "

Result = dict[str, Any]


def kept(path: Path, make: Callable[[], Result]) -> Result:
    """The result in a file; made, and put there, if there is none."""
    known = read(path)
    if known is not None:
        return known
    path.parent.mkdir(parents=True, exist_ok=True)
    found = make()
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(found, indent=1), encoding="utf-8")
    temporary.rename(path)
    return found


def read(path: Path) -> Result | None:
    """The result in a file; None where there is none."""
    found: Result | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def measure(words: Sequence[str], timeout: float) -> Result:
    """What a command printed as JSON, and its seconds and peak memory; or the first line of its error."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ended = _run(words, {**os.environ, "PYTHONPATH": paths}, out, err, timeout)
        for file in (out, err):
            file.seek(0)
        if ended.code is None:
            return {"error": f"stopped after {timeout:g} s"}
        if ended.code:
            lines = err.read().strip().splitlines() or [f"exit code {ended.code}"]
            return {"error": _first_line(lines), **ended.took}
        last: Result = json.loads(out.read().strip().splitlines()[-1])
    return {**last, **ended.took}


def _first_line(lines: Sequence[str]) -> str:
    """The first line of an error; with the next one, where it announces a list."""
    at = next((index for index, line in enumerate(lines) if _ERROR in line), len(lines) - 1)
    line = lines[at].partition(_ERROR)[2] or lines[at]
    return f"{line} {lines[at + 1].strip()}" if line.endswith(":") and at + 1 < len(lines) else line


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (None: it was stopped), and what it took."""

    code: int | None
    took: Mapping[str, float]


def _run(words: Sequence[str], environment: Mapping[str, str], out: IO[str], err: IO[str], timeout: float) -> Ended:
    """Run a process.  ``wait4`` tells the peak memory of this one, which ``subprocess`` does not."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=out, stderr=err, env=environment)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - began
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            took = {
                "seconds": round(seconds, 1),
                "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
                "peak_gb": round(usage.ru_maxrss * _KIB / 1e9, 3),
            }
            return Ended(process.returncode, took)
        if seconds > timeout:
            process.kill()
            process.wait()
            return Ended(None, {})
        time.sleep(_POLL_S)
