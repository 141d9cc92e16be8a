"""Machines that lack a unit: the work goes to the units that are there, and binaries that need more are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import model_families
import numpy as np
import pytest

import pimc
import pimc.targets
from pimc.diagnostics import InputError, TargetError
from pimc.driver.compile import Compiled, Options, compile_model
from pimc.isa.hbm import BANK_UNIT
from pimc.isa.validate import check_against_target
from pimc.targets import load_target

HPIM = (Path(pimc.targets.__file__).parent / "hpim.toml").read_text(encoding="utf-8")
#: The tables of a unit: by header, or, of an array, by header and name.
SRAM_PIM = (
    "[pim_unit]", "[[domain]] pim_unit", "[[unit]] pim", "[[memory]] pim_array", "[[latency]] pim_load",
    "[[latency]] pim_gemv",
)  # fmt: skip
BANK_PIM = ("[hbm.pu]", "[[domain]] hbm", f"[[unit]] {BANK_UNIT}", "[[memory]] global_buffer")
LACKS = {"no SRAM-PIM unit": SRAM_PIM, "no bank PIM": BANK_PIM, "neither": SRAM_PIM + BANK_PIM}


def without(*tables: str) -> str:
    """The text of hpim's file without some of its tables."""
    kept: list[str] = []
    left = set(tables)
    for block in re.split(r"(?m)^(?=\[)", HPIM):
        header, _, rest = block.partition("\n")
        name = re.search(r'(?m)^name = "(.*?)"', rest)
        key = header.partition("#")[0].strip()
        key = f"{key} {name[1]}" if key.startswith("[[") and name else key
        if key in left:
            left.remove(key)
        else:
            kept.append(block)
    assert not left
    return "".join(kept)


@pytest.fixture
def target_file(tmp_path: Path) -> Callable[..., Path]:
    """A target file that lacks tables."""

    def write(*tables: str) -> Path:
        path = tmp_path / "lesser.toml"
        path.write_text(without(*tables), encoding="utf-8")
        return path

    return write


def small_decoder(target: str | Path, policy: str | None = None) -> Compiled:
    options = Options(target=target, policy=policy, max_seq=model_families.MAX_SEQ, prefill_chunk=model_families.CHUNK)
    return compile_model(model_families.build("llama"), options=options)


@pytest.mark.parametrize(("lack", "policy"), [*((lack, "paper") for lack in LACKS), ("neither", "cost")])
def test_decoder_on_what_is_there(lack: str, policy: str, target_file: Callable[..., Path]) -> None:
    compiled = small_decoder(target_file(*LACKS[lack]), policy)
    check_against_target(compiled.program, compiled.target)  # no instruction of a unit that is not there
    runner = model_families.Runner(pimc.Executable(compiled.in_memory(), compiled.target))
    tokens = model_families.random_tokens(model_families.CHUNK + 2)
    expected = model_families.torch_logits(model_families.build("llama"), tokens)
    assert np.abs(runner.prefill(tokens[:-2], 0) - expected[-3]).max() < model_families.BOUND
    for position in range(len(tokens) - 2, len(tokens)):
        assert np.abs(runner.decode(tokens[position], position) - expected[position]).max() < model_families.BOUND


@pytest.mark.parametrize(
    ("lack", "message"),
    [("no SRAM-PIM unit", "pimld at .* needs the unit 'pim'"), ("no bank PIM", "wrgb at .* needs the unit 'bank_pu'")],
)
def test_a_binary_for_more_is_refused(lack: str, message: str, target_file: Callable[..., Path]) -> None:
    compiled, lesser = small_decoder("hpim"), load_target(target_file(*LACKS[lack]))
    with pytest.raises(TargetError, match=message):
        check_against_target(compiled.program, lesser)


def test_a_policy_for_a_unit_that_is_not_there(target_file: Callable[..., Path]) -> None:
    compiled = small_decoder(target_file(*LACKS["neither"]), "no-sram-pim")
    check_against_target(compiled.program, compiled.target)


@pytest.mark.parametrize("tables", [SRAM_PIM, BANK_PIM])
def test_a_unit_is_there_with_its_figures_and_memory_or_not_at_all(
    tables: tuple[str, ...], target_file: Callable[..., Path]
) -> None:
    figures = tables[0]
    memory = next(table for table in tables if table.startswith("[[memory]]"))
    unit = next(table for table in tables if table.startswith("[[unit]]"))
    domain = next(table for table in tables if table.startswith("[[domain]]"))
    for part in ((memory,), (unit, domain)):
        with pytest.raises(TargetError, match="and not a") as error:
            load_target(target_file(*part))
        assert figures in str(error.value) or "a unit of kind" in str(error.value)


def test_what_no_unit_can_do_is_refused(target_file: Callable[..., Path]) -> None:
    """Without a domain for the vector unit, norms have no place."""
    with pytest.raises(InputError, match=r"can be done by no domain") as error:
        small_decoder(target_file("[[domain]] vcu"))
    assert "vector (not in the target)" in str(error.value.hint)
