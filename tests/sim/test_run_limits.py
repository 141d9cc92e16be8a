"""Runs end: limits of cycles and seconds, interrupts, progress."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sim.programs import program, target

import pimc
from pimc.diagnostics import DeadlockError, RunLimitError, UsageError
from pimc.isa.container import write_program
from pimc.runtime import Executable
from pimc.runtime_sim import Machine
from pimc.runtime_sim.run_limits import RunLimits

#: Counts to 2^31, again and again, through the values of two registers: it ends, but nobody will see it.
COUNTS = """
    lui r2, 0x7fff
outer:
    addi r3, r3, 1
    addi r1, r0, 0
inner:
    addi r1, r1, 1
    blt r1, r2, inner
    blt r3, r2, outer
    halt
"""
_SHORT = "addi r1, r0, 5\nagain:\naddi r1, r1, -1\nbne r1, r0, again\nhalt"


def machine(text: str) -> Machine:
    return Machine(program(text), target())


def test_max_cycles_is_exact() -> None:
    cycles = machine(_SHORT).run("main").cycles
    assert machine(_SHORT).run("main", limits=RunLimits(max_cycles=cycles)).cycles == cycles
    with pytest.raises(RunLimitError, match=rf"at the limit of {cycles - 1} cycles"):
        machine(_SHORT).run("main", limits=RunLimits(max_cycles=cycles - 1))


def test_a_limit_says_where_each_stream_was() -> None:
    loaded = program({0: COUNTS, 1: "wait s3, r0, 1\nhalt"})
    with pytest.raises(RunLimitError) as caught:
        Machine(loaded, target()).run("main", limits=RunLimits(max_cycles=10_000_000))
    said = str(caught.value)
    assert "main: stopped at the limit of 10000000 cycles (max_cycles)" in said
    assert "2 streams have not ended: [main, core 0, pc " in said
    assert "[main, core 1, pc 0: wait s3, r0, 1] waits for semaphore 3 >= 1 (is 0)" in said
    assert caught.value.exit_code == 1


def test_timeout() -> None:
    began = time.monotonic()
    with pytest.raises(RunLimitError, match=r"at the limit of 0.2 seconds \(timeout\), after \d+ cycles; 1 stream"):
        machine(COUNTS).run("main", limits=RunLimits(timeout=0.2))
    assert time.monotonic() - began < 5, "a portion of work is short"


def test_errors_of_the_program_come_before_limits() -> None:
    with pytest.raises(DeadlockError):
        machine("wait s0, r0, 1\nhalt").run("main", limits=RunLimits(max_cycles=0))


def test_progress_and_a_machine_after_a_stop() -> None:
    seen: list[int] = []

    def watch(cycles: int) -> None:
        seen.append(cycles)
        if len(seen) == 3:
            raise KeyboardInterrupt

    stopped = machine(COUNTS)
    for _ in range(2):
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            stopped.run("main", limits=RunLimits(on_progress=watch))
        assert seen == sorted(set(seen))


@pytest.mark.parametrize("limits", [{"max_cycles": -1}, {"timeout": -1.0}, {"timeout": float("nan")}])
def test_limits_are_checked(limits: dict[str, float]) -> None:
    executable = Executable(program(_SHORT), target())
    with pytest.raises(UsageError, match=next(iter(limits))):
        executable.run(**limits)


@pytest.fixture
def counts(tmp_path: Path) -> Path:
    path = tmp_path / "counts.pimx"
    write_program(path, replace(program(COUNTS), target_digest=target().digest))
    return path


@pytest.mark.parametrize("limit", [("--max-cycles", "1000000"), ("--timeout", "0.1")])
def test_limits_on_the_command_line(pimc_cli, counts: Path, limit: tuple[str, str]) -> None:  # noqa: ANN001
    result = pimc_cli("run", counts, *limit)
    assert result.code == 1
    assert f"stopped at the limit of {limit[1]}" in result.err
    assert len(result.error_lines) == 1
    assert pimc_cli("run", counts, limit[0], "0").code == 2


def test_an_interrupt_ends_a_run(counts: Path) -> None:
    """Within a second on an idle machine, in one line, with the exit code of an interrupt."""
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # where jobs ignore it
        "from pimc.runtime_sim import event_loop, prepare; prepare(); run = event_loop.run_events\n"
        "class Told:\n"
        "    prepare = run.prepare\n"
        "    def __call__(self, *args): print('runs', flush=True); return run(*args)\n"
        "event_loop.run_events = Told()\n"
        "from pimc.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", str(counts)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(pimc.__file__).parents[1])},
    )
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline() == "runs\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert (process.returncode, said) == (130, "pimc: interrupted\n")
