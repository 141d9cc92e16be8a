"""Target files: what hpim says, what the loader refuses, how it says so."""

from __future__ import annotations

import copy
import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest

import pimc.targets
from pimc.diagnostics import TargetError
from pimc.isa.sram import SRAM_ISA
from pimc.targets import list_targets, load_target, parse_target

HPIM_FILE = Path(pimc.targets.__file__).parent / "hpim.toml"


@pytest.fixture
def raw() -> dict[str, Any]:
    return copy.deepcopy(tomllib.loads(HPIM_FILE.read_text()))


def test_hpim_derives_the_papers_figures() -> None:
    target = load_target("hpim")
    assert (target.cores.count, target.hbm.pch_count, target.pchs_per_core, target.hbm.banks) == (
        32,
        128,
        4,
        16,
    )
    assert (target.pim_unit.rows, target.pim_unit.lanes, target.local_bytes) == (4096, 128, 416 * 1024)
    assert target.hbm.rows * target.hbm.row_bytes == 48 << 20
    assert target.hbm.pch_count * target.hbm.banks * target.hbm.rows * target.hbm.row_bytes == 96 << 30
    hertz = 10**15 // target.clock.core_period_fs
    tcu = 2 * target.cores.count * target.tcu.rows * target.tcu.columns * hertz
    assert round(tcu / 1e12) == 262
    assert 2 * target.pim_unit.lanes * target.latency("pim_gemv").rate * hertz / 1e12 == pytest.approx(4.096)
    bank_pu = 2 * target.hbm.pch_count * target.hbm.banks * target.hbm.pu.multipliers * hertz
    assert bank_pu / 1e12 == pytest.approx(65.5, abs=0.1)
    external = target.hbm.pch_count * target.hbm.column_bytes / target.hbm.fs("nBL") * 1e6
    assert external == pytest.approx(3276.8)  # GB/s


def test_every_latency_and_unit_of_the_instruction_table_exists() -> None:
    target = load_target("hpim")
    for instruction in SRAM_ISA.instructions:
        assert target.latency(instruction.latency).pipeline >= 0
        assert target.unit(instruction.unit).scope == "core"


def test_every_figure_has_a_source() -> None:
    """Each integer of hpim.toml has its source on its line (structure and commands: on their table's)."""
    lines = HPIM_FILE.read_text().split("# Commands.  ticks:")[0].splitlines()
    exempt = {"base"}
    in_timing = False
    for number, line in enumerate(lines, 1):
        in_timing = line.startswith("[hbm.timing]") or (in_timing and not line.startswith("["))
        key, separator, value = line.partition("=")
        if separator and not line.startswith("#") and value.strip()[:1].isdigit() and not in_timing:
            assert "#" in value or key.strip() in exempt or "rate = 1" in line, f"line {number}: {line}"


def test_digest_is_of_the_resolved_content() -> None:
    base = load_target("hpim")
    assert base.digest == load_target(HPIM_FILE).digest == load_target("hpim", ["description=other"]).digest
    assert base.digest == load_target("hpim", ["vcu.lanes=64", "latency.vector.rate='vcu.lanes'"]).digest
    assert base.digest != load_target("hpim", ["hbm.timing.nFAW=20"]).digest
    assert pickle.loads(pickle.dumps(base)) == base
    assert hash(base) == hash(load_target("hpim"))


def test_overrides() -> None:
    target = load_target(
        "hpim",
        ["hbm.timing.nFAW=20", "latency.vector.pipeline=6", "vcu.lanes=32", "hbm.constraint.0.latency=nCCDL"],
    )
    assert target.hbm.timing["nFAW"] == 20
    assert (target.latency("vector").pipeline, target.latency("vector").rate) == (6, 32)
    assert target.hbm.clocks(target.hbm.constraints[0].latency) == 4


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("hbm.timing.tFAW=20", "unknown key 'tFAW'", "nFAW"),
        ("hbm.timng.nFAW=20", "unknown key 'timng'", "timing"),
        ("latency.vektor.rate=1", "no element 'vektor'", "vector"),
        ("clock.core_period_fs.x=1", "key of no table", None),
        ("clock.core_period_fs=0", "clock.core_period_fs: 0 is out of range", None),
        ("clock.core_period_fs=1.5", "expected an integer, found a number", None),
        ("clock.core_period_fs=true", "expected an integer, found a boolean", None),
        ("clock=3", "clock: expected a table", None),
        ("hbm.buses=3", "hbm.buses: expected an array", None),
        ("name=3", "name: expected a string", None),
        ("unit.scu.kind=scalr", "'scalr' is none of", "scalar"),
        ("latency.vector.rate='vcu.lane'", "unknown figure 'vcu.lane'", "vcu.lanes"),
        ("latency.vector.rate='__import__(1)'", "is not an expression", None),
        ("latency.vector.rate='vcu.lanes // 0'", "divides by zero", None),
        ("hbm.constraint.0.latency=nBL +", "is not an expression", None),
        ("hbm.constraint.0.latency=nBL - nCL", "is -18 clocks, not between 0", None),
        ("hbm.command.RD.bus=row2", "unknown bus 'row2'", "row"),
        ("hbm.constraint.5.window=3", "activates more banks than the window", None),
        ("domain.tcu.unit=tc", "unknown unit 'tc'", "tcu"),
        ("cores.count=7", "cannot share", None),
        ("cores.count=16", "a core has 8 pseudo-channels, and the mask of a command names 4", "at least 32 cores"),
        ("noc.rows=3", "mesh is too small", None),
        ("memory.temp.base=5", "must follow each other", None),
        ("memory.pim_array.bytes=5", "hold 1048576 bytes", None),
        ("memory.global_buffer.bytes=33", "multiple of hbm.column_bytes", None),
        ("memory.temp.name=activation", "given twice", None),
        ("hbm.pu.multipliers=8", "2 * pu.multipliers", None),
        ("hbm.row_bytes=1000", "multiple of column_bytes", None),
        ("hbm.timing.nFAW", "key.key=value", None),
    ],
)
def test_bad_overrides(override: str, message: str, hint: str | None) -> None:
    with pytest.raises(TargetError) as caught:
        load_target("hpim", [override])
    assert message in str(caught.value)
    if hint is not None:
        assert hint in str(caught.value.hint)


def test_bad_files(raw: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TargetError) as caught:
        load_target("hpin")
    assert "hpim" in str(caught.value.hint)
    with pytest.raises(TargetError, match="cannot be read"):
        load_target(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("name = ")
    with pytest.raises(TargetError, match="not a TOML file"):
        load_target(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("name = " + "9" * 5000)
    with pytest.raises(TargetError, match="thousands of digits"):
        load_target(tmp_path / "bad.toml")
    del raw["vcu"]["lanes"]
    with pytest.raises(TargetError, match=r"my.toml: latency\[vector\].rate|my.toml: vcu.lanes: missing key"):
        parse_target(raw, where="my.toml")
    del raw["tcu"]
    with pytest.raises(TargetError, match="missing key"):
        parse_target(raw)


def test_unknown_and_missing_keys(raw: dict[str, Any]) -> None:
    raw["noc"]["colums"] = raw["noc"].pop("columns")
    with pytest.raises(TargetError, match=r"hpim\.toml: noc\.colums: unknown key") as caught:
        parse_target(raw, where="hpim.toml")
    assert "columns" in str(caught.value.hint)


def test_lookups() -> None:
    target = load_target("hpim")
    assert "hpim" in list_targets()
    assert target.domain("hbm").unit == "bank_pu"
    assert target.memory("temp").base == target.memory("activation").bytes
    assert target.latency("vector").busy_cycles(0) == 1
    assert target.latency("vector").busy_cycles(65) == 2
    with pytest.raises(TargetError, match="no memory 'tmp'") as caught:
        target.memory("tmp")
    assert "temp" in str(caught.value.hint)
    with pytest.raises(TargetError, match="no DRAM command"):
        target.hbm.command("ACTT")


def test_refreshes_leave_time_for_something_else() -> None:
    """With refreshes due faster than they can be done, a run never ended."""
    with pytest.raises(TargetError, match=r"hbm\.timing\.nREFI: nREFI is 1: a refresh takes 720 clocks"):
        load_target("hpim", ["hbm.timing.nREFI=1"])
    with pytest.raises(TargetError, match="nREFI is 720: a refresh takes 720 clocks"):
        load_target("hpim", ["hbm.timing.nREFI=720"])
    assert load_target("hpim", ["hbm.timing.nREFI=0"]).hbm.timing["nREFI"] == 0
