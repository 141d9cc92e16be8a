"""A process that runs cases through the command line's own entry and says of each how it ended.

``serve`` makes case after case; before one runs, its files stand in the folder ``current``, so that whatever happens to
this process can be told from them; those of a case that failed without ending it stay in ``failed-NUMBER``.  One line
of JSON a case goes to the descriptor that stdout was.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import resource
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType

from counting_model import counting_program

from attack.binaries import binary
from attack.case import Case, Kind, read_case
from attack.kinds import KINDS
from pimc.cli.main import main as pimc

#: Processor seconds and memory that a case may take in this process (what its commands allow themselves is less).
CPU_S, MEMORY_BYTES = 30, 3 << 30
_LINE_CHARACTERS = 2_200
_PIMC = str(Path(sys.modules["pimc"].__path__[0]))


@dataclass(frozen=True)
class Outcome:
    """How a case ended: ``problem`` is empty, or says what is wrong; ``refused`` if a command said no."""

    kind: str
    number: int
    refused: bool
    problem: str
    cpu_s: float
    new_lines: int = 0


class Guide:
    """The lines of pimc that have been reached, and the inputs that reached new ones."""

    def __init__(self) -> None:
        self._seen: set[tuple[CodeType, int]] = set()
        self._new = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Trace what runs in the block."""
        self._new = 0
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(None)

    @property
    def new(self) -> int:
        """How many lines the last block reached that none had before."""
        return self._new

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> object:
        return self._line if frame.f_code.co_filename.startswith(_PIMC) else None

    def _line(self, frame: FrameType, _event: str, _argument: object) -> object:
        place = (frame.f_code, frame.f_lineno)
        if place not in self._seen:
            self._seen.add(place)
            self._new += 1
        return self._line


def run_case(case: Case, folder: Path) -> tuple[bool, str]:
    """Run the commands of a case in ``folder``, where its files are: whether one refused, and what is wrong."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    refused = False
    os.chdir(folder)
    for command in case.commands:
        status, out, error = _run(command)
        refused |= status == 1
        problem = _wrong(status, out, error) or _leftover(status, command)
        if problem:
            return refused, f"{' '.join(command)[:200]}: {problem}"
    if (took := time.process_time() - began) > CPU_S:
        return refused, f"past its limit: {took:.0f} s"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    return refused, f"past its limit: {grown >> 20} MiB more memory" if grown > MEMORY_BYTES else ""


def _run(command: Sequence[str]) -> tuple[int | str, str, str]:
    """Exit status (or the exception that came through), stdout and stderr."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status: int | str = pimc(command)
        except BaseException as escaped:  # noqa: BLE001  # nothing may
            status = f"{type(escaped).__name__} escaped:\n{traceback.format_exc()[-1500:]}"
    return status, out.getvalue(), error.getvalue()


def _wrong(status: int | str, out: str, error: str) -> str:
    lines = error.splitlines()
    for bad, name in (
        (isinstance(status, str), str(status)),
        (status == 3, "exit 3: " + error[:300]),
        (status not in (0, 1, 2), f"exit {status}"),
        ("Traceback" in error, "a traceback"),
        ("pimc: error: out of memory" in error, "past its limit: out of memory"),
        (any(len(line) > _LINE_CHARACTERS for line in lines), "a line of an error is too long"),
        (any(not (c.isprintable() or c in "\n\t") for c in error), "control characters in an error"),
        (
            status in (1, 2) and not re.search(r"^pimc: error: ", error, re.MULTILINE),
            "no error is told: " + error[:100],
        ),
    ):
        if bad:
            return name
    return ""


def _leftover(status: int | str, command: Sequence[str]) -> str:
    """An output of a command that failed, or a temporary file of any."""
    if status and "-o" in command and Path(command[command.index("-o") + 1]).exists():
        return "an output is left though the command failed"
    return "a temporary file is left" if any(Path().glob(".*.partial")) else ""


def _limit() -> None:
    """Memory beyond which a case ends the process, on top of what libraries have mapped."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = mapped + 4 * MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _grant_time() -> None:
    used = int(time.process_time()) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (used + 2 * CPU_S, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def order(only: Sequence[str]) -> list[Kind]:
    """One round of kinds, each as often as its share, mixed."""
    kinds = [kind for kind in KINDS if not only or kind.name in only]
    turns = [(turn / kind.share, place, kind) for place, kind in enumerate(kinds) for turn in range(kind.share)]
    return [kind for _, _, kind in sorted(turns, key=lambda item: item[:2])]


def serve(folder: Path, seed: str, first: int, step: int, only: Sequence[str]) -> None:
    """Make and run cases ``first``, ``first + step`` ... until the process is ended."""
    say = os.fdopen(os.dup(1), "w")
    _quiet()
    _warm_up(folder)
    _limit()
    current = folder / "current"
    corpora: dict[str, list[bytes]] = {}
    guides = {kind.name: Guide() for kind in KINDS if kind.guided}
    number, kinds = first, order(only)
    while True:
        kind = kinds[number % len(kinds)]
        if kind.name not in corpora:
            corpora[kind.name] = kind.seeds()
        case = kind.make(random.Random(f"{seed}/{kind.name}/{number}"), corpora[kind.name])
        case.write(current)
        say.write(json.dumps({"starts": kind.name, "number": number}) + "\n")
        say.flush()
        _grant_time()
        guide = guides.get(kind.name)
        began = time.process_time()
        with guide.watching() if guide else contextlib.nullcontext():
            refused, problem = run_case(case, current)
        new = guide.new if guide else 0
        if new and len(case.payload) < 1 << 16:
            corpora[kind.name].append(case.payload)
        if problem:
            current.rename(folder / f"failed-{number}")
        outcome = Outcome(kind.name, number, refused, problem, round(time.process_time() - began, 3), new)
        say.write(json.dumps(asdict(outcome)) + "\n")
        say.flush()
        number += step


def _warm_up(folder: Path) -> None:
    """Load (where need be compile) the simulator: no case is to wait for that."""
    path = folder / "warm.pimx"
    path.write_bytes(binary(counting_program(text=False)))
    _run(["run", str(path), "--entry", "decode", "--timing-only"])
    _run(["run", str(path), "--entry", "decode", "--input", "tokens=1", "--input", "position=0"])


def _quiet() -> None:
    """What native code prints is not for the parent."""
    devnull = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1):
        os.dup2(devnull, handle)


def replay(folder: Path) -> int:
    """Run the commands of a saved case as anyone would, and say what is wrong; 1 if something is."""
    case = read_case(folder)
    _limit()
    _grant_time()
    os.chdir(folder)
    bad = 0
    for command in case.commands:
        status, out, error = _run(command)
        problem = _wrong(status, out, error)
        bad |= bool(problem)
        sys.stdout.write(f"$ pimc {' '.join(command)}\n{out[:1000]}{error[:3000]}exit {status}; {problem or 'ok'}\n")
    return int(bad)
