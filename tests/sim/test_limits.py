"""Programs and targets beyond the simulator's limits: an error that says which, before anything is allocated."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CommandResult
from sim.programs import port, program, run, target

from pimc.diagnostics import IsaError, SimError, TargetError
from pimc.isa.container import write_program
from pimc.isa.program import Program
from pimc.isa.validate import check_against_target, validate_program
from pimc.limits import STREAM_WORDS
from pimc.runtime_sim import limits
from pimc.runtime_sim.engine import records
from pimc.runtime_sim.engine.arrays import ARRAYS, Use
from pimc.runtime_sim.engine.state import MACHINE
from pimc.targets import dram_spec

Cli = Callable[..., CommandResult]
WIDE_PIM = (
    "pim_unit.macros_per_group=1024", "pim_unit.multipliers_per_macro=1024", "pim_unit.macro_groups=1",
    "pim_unit.macro_bytes=2048", "memory.pim_array.bytes=2097152",
)  # fmt: skip
TINY = ("memory.activation.bytes=4", "memory.temp.base=4", "memory.temp.bytes=4", "vcu.lanes=4096", "tcu.columns=1")
SIGNALS = dict.fromkeys(range(32), "loop h0, 200\nsig s0\nendl\nhalt")


def _binary(folder: Path, loaded: Program, *overrides: str) -> Path:
    """A .pimx file of a program that brings its own overrides of the target."""
    path = folder / "hostile.pimx"
    digest = target(*overrides).digest
    write_program(path, replace(loaded, target_digest=digest, model={"name": "m", "target_overrides": list(overrides)}))
    return path


def test_pim_unit_wider_than_local_memory() -> None:
    """hostile_pimmv: the input of a PIM unit of 2**20 lanes is longer than any vector."""
    run(program("addi r2, r0, 1\npimmv.c r0, r0, r0, r2\nhalt"), on=target(*WIDE_PIM))


def test_reduction_over_more_lanes_than_local_memory() -> None:
    """hostile_vrprod: 4096 partial sums on a core with 8 bytes of local memory."""
    loaded = program("vrprod.h r0, r0, r0\nhalt", outputs=[port("y", "f32", 1, 0)])
    assert run(loaded, on=target(*TINY)).outputs["y"].tolist() == [1.0]


@pytest.mark.parametrize(
    "override",
    ["hbm.timing.nRFC=281474976710656", "hbm.timing.nREFI=1", "clock.core_period_fs=1000000000000",
     "latency.vector.pipeline=1048576", "latency.vector=5", "cores.count=" + "9" * 900, "cores.count=" + "[" * 900,
     "hbm.constraint.0.latency=nRFC * nRFC * nRFC", "cores.count=" + "9" * 5000],
)  # fmt: skip
def test_figures_of_a_target_have_ranges(pimc_cli: Cli, override: str) -> None:
    result = pimc_cli("targets", "hpim", "--set", override)
    assert result.code == 1
    assert "Traceback" not in result.err


def test_a_binary_with_absurd_figures_is_refused(tmp_path: Path, pimc_cli: Cli) -> None:
    """hostile_period, hostile_refi: a binary brings its own target."""
    path = _binary(tmp_path, program("halt"), "vcu.lanes=32")
    good = path.read_bytes()
    for override in (b"vcu.lanes=99", b"hbm.rows=999"):
        path.write_bytes(good.replace(b"vcu.lanes=32", override))
        assert pimc_cli("run", path).code == 1


def test_memory_is_bounded(tmp_path: Path, pimc_cli: Cli) -> None:
    """hostile_rows: 2**24 rows a bank would be 32 TiB."""
    path = _binary(tmp_path, program("halt", rows=1 << 24), f"hbm.rows={1 << 24}")
    began = time.monotonic()
    result = pimc_cli("run", path)
    assert result.code == 1
    assert "the simulator takes up to 64 GiB" in result.err
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (("memory.temp.bytes=16777216",), "local memory"),
        (("tcu.rows=4096", "tcu.columns=4096"), "tcu.rows"),
        (("memory.global_buffer.bytes=2097152",), "global_buffer"),
        (("transfer.queue_depth=64",), "queue_depth"),
        (("hbm.column_bytes=64", "hbm.pu.multipliers=32"), "column_bytes"),
        (("hbm.stacks=64", "hbm.channels=64"), "pseudo-channels"),
        (("cores.count=2048", "hbm.stacks=64", "noc.columns=256", "noc.rows=8"), "cores.count"),
        (("pim_unit.macro_bytes=16777216", f"memory.pim_array.bytes={1 << 32}"), "PIM array"),
    ],
)
def test_a_target_beyond_the_simulator(overrides: tuple[str, ...], what: str) -> None:
    with pytest.raises(TargetError, match=re.escape(what)):
        limits.check_target(target(*overrides))


def test_one_instruction_is_short() -> None:
    """vwsum_hang: rows that overlap entirely are bounded by no memory."""
    text = "sw r0, r0, 0\nlui r1, 3\nvfill.h r0, r0, r0, r1\nlui r4, 1\ncfg c1, r4\nvwsum r0, r0, r0, r1\nhalt"
    began = time.monotonic()
    with pytest.raises(SimError, match="too much work for one instruction"):
        run(program(text))
    assert time.monotonic() - began < 60  # the first run may compile the engine


def test_one_matrix_product_is_short() -> None:
    on = target("tcu.rows=1024", "tcu.columns=1024", "memory.temp.bytes=8388608")
    text = "li r1, 1024\ncfg c1, r1\ncfg c2, r1\nli r1, 1048576\ncfg c3, r1\ntmmc.nk r0, r0\nhalt"
    with pytest.raises(SimError, match="too much work for one instruction"):
        run(program(text), on=on, checks=False)


def test_signals_in_flight_are_bounded(tmp_path: Path, pimc_cli: Cli) -> None:
    """hostile_sig: it was called a bug in pimc."""
    loaded = program("halt", SIGNALS)
    with pytest.raises(SimError, match=r"more than 8192 signals are on their way") as caught:
        run(loaded, on=target("hbm.controller.signal_cycles=100000"))
    assert "sig" in str(caught.value)
    assert pimc_cli("run", _binary(tmp_path, loaded, "hbm.controller.signal_cycles=100000")).code == 1


def test_time_is_bounded() -> None:
    """Beyond 2**60 fs a run ends, and is not called a deadlock."""
    text = "sw r0, r0, 0\nsw r0, r0, 4\nli r1, 4\nx:\naddi r5, r5, 1\nvadd.h r0, r0, r0, r1\nbeq r0, r0, x\nhalt"
    with pytest.raises(SimError, match=r"takes more than 1152921504606846976 femtoseconds"):
        run(program(text), on=target("clock.core_period_fs=1000000000", "latency.vector.pipeline=65536"))


@pytest.mark.parametrize(
    ("text", "override", "what"),
    [
        ("wait s5, r0, 0\nhalt", "cores.semaphores=5", "wait"),
        ("nsend r0, r0, r0, r0, s6\nhalt", "cores.semaphores=5", "nsend"),
        ("cfg c7, r0\nhalt", "cores.config_registers=7", "cfg"),
        ("vwsum r0, r0, r0, r0\nhalt", "cores.config_registers=4", "stride_a"),
    ],
)
def test_semaphores_and_configuration_registers_bind_a_binary(text: str, override: str, what: str) -> None:
    loaded = program(text)
    check_against_target(loaded, target())
    with pytest.raises(TargetError, match=what):
        check_against_target(loaded, target(override))


def test_sizes_of_code_and_ports() -> None:
    good = program("halt", outputs=[port("y", "f16", 4, 0)])
    words = np.resize(good.code["code/main/core/0"], STREAM_WORDS + 1)
    with pytest.raises(IsaError, match="words, the limit of a stream"):
        validate_program(replace(good, code={"code/main/core/0": words}))
    huge = port("y", "f32", 1 << 29, 0)
    with pytest.raises(IsaError, match="the outputs take more than"):
        validate_program(replace(good, entries={"main": replace(good.entries["main"], outputs=(huge,))}))


def test_every_address_of_the_machine_record_is_an_array_of_the_table() -> None:
    assert {name.removesuffix("_at") for name in MACHINE.names or () if name.endswith("_at")} == set(ARRAYS)
    assert {array.use for array in ARRAYS.values()} == set(Use)


def test_the_documented_limits_are_the_limits() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| .*? \| `([\w.]+)` = ([0-9*]+) \|$", text, re.MULTILINE))
    modules = {"limits": limits, "records": records, "dram_spec": dram_spec}
    assert len(documented) >= 12
    for name, value in documented.items():
        module, _, constant = name.partition(".")
        base, _, power = value.partition("**")
        assert getattr(modules[module], constant) == int(base) ** int(power or 1), name
