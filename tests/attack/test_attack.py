"""The attack itself: a seed makes the same inputs, and what goes wrong is seen and put down to its input."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

from attack import onnx_models, pool, worker
from attack.case import Case, Kind, read_case
from attack.kinds import KINDS

CASE = Case("assembly", {"x.pasm": b".pimx 1 0\n"}, [["asm", "x.pasm", "-o", "out.pimx"]])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name != "onnx"], ids=lambda kind: kind.name)
def test_a_seed_makes_the_same_inputs(kind: Kind) -> None:
    seeds = kind.seeds()
    made = [[kind.make(random.Random(f"s/{number}"), seeds) for number in range(4)] for _ in range(2)]
    assert made[0] == made[1]
    assert len({(*tuple(case.files.values()), str(case.commands)) for case in made[0]}) > 1


def test_a_case_is_saved_whole(tmp_path: Path) -> None:
    CASE.write(tmp_path / "case")
    assert read_case(tmp_path / "case") == CASE


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("return 3", "exit 3"),
        ("raise RuntimeError('x')", "RuntimeError escaped"),
        ("raise SystemExit(1)", "SystemExit escaped"),
        ("return 7", "exit 7"),
        ("return 1", "no error is told"),
        ("sys.stderr.write('pimc: error: ' + 'x' * 3000); return 1", "too long"),
        ("sys.stderr.write('pimc: error: \\x1b[1m'); return 1", "control characters"),
        ("sys.stderr.write('pimc: error: Traceback'); return 1", "a traceback"),
        ("sys.stderr.write('pimc: error: out of memory'); return 1", "past its limit"),
        ("sys.stderr.write('pimc: error: x'); open('out.pimx', 'w').close(); return 1", "an output is left"),
        ("open('.x.1-00000000.partial', 'w').close(); return 0", "a temporary file is left"),
        ("worker.CPU_S = -1; return 0", "past its limit"),
        ("sys.stderr.write('pimc: error: x\\n    the layout of memory'); return 1", ""),
        ("return 0", ""),
    ],
)
def test_what_is_wrong_is_seen(code: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, object] = {"sys": sys, "worker": worker}
    exec(f"def command(argv):\n    {code}", space)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker, "CPU_S", 30)
    monkeypatch.setattr(worker, "pimc", space["command"])
    CASE.write(tmp_path / "case")
    refused, found = worker.run_case(CASE, tmp_path / "case")
    assert (problem in found) if problem else not found
    assert refused == ("return 1" in code)


DEATHS = {"os.kill(os.getpid(), 11)": "SIGSEGV", "os._exit(9)": "exit 9", "time.sleep(60)": "past its limit: no answer"}
#: Not a death: the case failed, the next ones have replaced its files.
FAILED = "(folder / 'current').rename(folder / 'failed-4'); problem = 'exit 3'"


@pytest.mark.parametrize(("death", "told"), [*DEATHS.items(), (FAILED, "exit 3")])
def test_a_failure_is_put_down_to_its_input(
    death: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ``worker.serve`` that ends its process in the fifth case."""
    (tmp_path / "tests" / "attack").mkdir(parents=True)
    (tmp_path / "tests" / "attack" / "worker.py").write_text(
        "import json, os, sys, time\n"
        "def serve(folder, seed, first, step, only):\n"
        "    for number in range(first, 20, step):\n"
        "        (folder / 'current').mkdir(exist_ok=True)\n"
        "        (folder / 'current' / 'x').write_text(str(number))\n"
        "        print(json.dumps({'starts': 'k', 'number': number}), flush=True)\n"
        "        problem = ''\n"
        f"        if number == 4: {death}\n"
        "        print(json.dumps({'kind': 'k', 'number': number, 'refused': False, 'problem': problem, 'cpu_s': 0,"
        " 'new_lines': 0}), flush=True)\n"
        "    time.sleep(60)\n"
    )
    monkeypatch.setattr(pool, "_TESTS", tmp_path / "tests")
    monkeypatch.setattr(pool, "_SILENCE_S", 1 if "sleep" in death else 300)
    report = pool.attack(60, "s", 1, [], tmp_path / "save", lambda _: None, until=20)
    ((problem, place),) = report.failures
    assert place == tmp_path / "save" / "k-4"
    assert (place / "x").read_text() == "4"
    assert told in problem
    assert report.tallies["k"].runs == 20
    assert report.tallies["k"].failed == 1


def test_the_modules_of_onnx_are_there() -> None:
    for module in onnx_models.MODULES:
        assert importlib.util.find_spec(f"onnx.backend.test.case.node.{module}"), module
