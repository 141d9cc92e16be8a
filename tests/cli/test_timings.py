"""``pimc compile --timings``: the stages add up to the whole wall time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pimc.timings import Timings, process_start, stage

CODE = """
import torch


def net():
    return torch.nn.Linear(8, 4).eval(), (torch.zeros(1, 8),)
"""


def test_a_stage_has_its_own_time_only() -> None:
    began = time.perf_counter()
    time.sleep(0.02)
    timings = Timings(began, "before")
    with timings.active(), stage("outer"):
        time.sleep(0.02)
        with stage("inner"):
            time.sleep(0.04)
        time.sleep(0.02)
    stages = timings.stages()
    assert list(stages) == ["before", "other", "outer", "inner"]
    assert sum(stages.values()) == pytest.approx(time.perf_counter() - began, abs=0.005)
    assert stages["before"] >= 0.02
    assert stages["outer"] >= 0.04
    assert stages["inner"] >= 0.04
    assert timings.table().splitlines()[-1].split()[2:] == ["100.0%", "total"]


def test_nobody_times() -> None:
    with stage("anything"):
        pass


def test_a_stage_that_fails_ends() -> None:
    told: list[str] = []
    timings = Timings(time.perf_counter(), "before", told.append)
    with pytest.raises(ValueError, match="no"), timings.stage("outer"), timings.stage("inner"):
        raise ValueError("no")
    assert told == ["outer", "inner", "outer"]


def test_the_start_of_the_process() -> None:
    code = "import time; from pimc.timings import process_start; print(time.perf_counter() - process_start())"
    began = time.perf_counter()
    out = subprocess.run(
        [sys.executable, "-c", f"import time; time.sleep(0.3); {code}"], capture_output=True, check=True
    )
    tick = 0.02  # the system tells the start in hundredths of a second
    assert 0.25 < float(out.stdout) < time.perf_counter() - began + tick
    assert process_start() < time.perf_counter()


def test_timings_account_for_the_whole_wall_time(pimc_cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CODE)
    began = time.perf_counter()
    result = pimc_cli("compile", f"{tmp_path / 'net.py'}:net", "-o", tmp_path / "net.pimx", "--timings", "--json")
    wall = time.perf_counter() - began
    assert result.code == 0, result.err
    content = json.loads(result.out)
    stages = content["timings_s"]
    assert sum(stages.values()) == pytest.approx(wall, rel=0.02, abs=0.02)
    wanted = {"read the model", "export with torch.export", "pass lower", "write the binary"}
    assert wanted <= set(stages)
    assert stages["other"] < 0.05 * wall
    table = [line.split() for line in result.error_lines]
    assert table[-1][-1] == "total"
    assert sum(float(line[0]) for line in table[:-1]) == pytest.approx(float(table[-1][0]), abs=1)
